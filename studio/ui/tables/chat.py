"""The words of the Chat tab and of notebooks' chat boxes, and those about pictures."""

TABLE: dict[str, tuple[str, str, str]] = {
    # ── chat ──
    "speaker": ("Talk to", "話す相手", "对话模型"),
    "speaker_info": (
        "A source, or a candidate of this run.",
        "元モデル、またはこの実行の候補。",
        "来源模型或本次运行的候选。",
    ),
    "compare": ("Compare with", "比べる相手", "对比模型"),
    "compare_info": (
        "Another model, asked the same beside it.",
        "同じ質問に並んで答える別のモデル。",
        "并排回答同一问题的另一个模型。",
    ),
    "nobody": ("nobody", "なし", "无"),
    "sees_nothing": (
        "sees no pictures: asked without it",
        "画像は見えません：画像なしで質問しました",
        "看不到图片：未附图提问",
    ),
    # ── pictures ──
    "upload": ("Upload a picture", "画像をアップロード", "上传图片"),
    "gallery": ("Gallery", "ギャラリー", "图库"),
    "gallery_note": (
        "Things of Japanese culture first. Click one to ask about it.",
        "日本文化のものから順に。クリックして質問できます。",
        "日本文化事物在前。点击即可就它提问。",
    ),
    "by_likeness": (
        "The likest to “{word}” first, as the bundled CLIP model sees it.",
        "同梱の CLIP モデルが「{word}」に近いと見る順。",
        "按内置 CLIP 模型判断与“{word}”的相似度排序。",
    ),
    "by_name": (
        "Those called “{word}” first; the CLIP model is not here.",
        "名前に「{word}」を含むものから順に（CLIP モデルがありません）。",
        "名称含“{word}”的在前（没有 CLIP 模型）。",
    ),
    "search": ("Search by a word", "言葉で探す", "用词语搜索"),
    "search_hint": (
        "torii, ramen, 花火 …",
        "鳥居、ラーメン、fireworks …",
        "torii、花火、ramen …",
    ),
    "style": ("Artist", "絵柄", "画风"),
    "all_styles": ("all artists", "すべて", "全部"),
    "webcam": ("Webcam", "ウェブカメラ", "摄像头"),
    "webcam_info": (
        "Browsers allow a webcam on this computer's own address (localhost) and over https only.",
        "カメラを使えるのは、このコンピュータ自身（localhost）か https で開いたときだけです。",
        "浏览器仅在本机地址（localhost）或 https 下允许使用摄像头。",
    ),
    "photo": ("photo", "写真", "照片"),
    "remove_picture": ("Remove the picture", "画像を外す", "移除图片"),
    "message": ("Your message", "メッセージ", "你的消息"),
    "message_hint": (
        "Ask something, or pick a question below",
        "質問を書くか、下の問題を選んでください",
        "输入问题，或从下面选一题",
    ),
    "talk_hint": (
        "Ask a question, or pick one below. Sources and merges answer differently: try several.",
        "質問するか、下の問題を選んでください。元モデルとマージの答えを比べてみましょう。",
        "提问，或从下面选一题。来源与合并的回答各不相同，不妨都试试。",
    ),
    "send": ("Send", "送信", "发送"),
    "clear": ("Clear", "消去", "清空"),
    "remember": (
        "Remember earlier turns",
        "前のやりとりを覚える",
        "记住之前的对话",
    ),
    "remember_info": (
        "The bundled models were taught single questions.",
        "同梱モデルは一問一答で学習しています。",
        "内置模型只学过单轮问答。",
    ),
    "try": ("Questions from the task", "課題の問題", "任务中的题目"),
    "best_candidate": ("best of this run", "この実行の最良", "本次运行的最佳"),
}
