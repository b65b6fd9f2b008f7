"""The words of the Chat tab and of notebooks' chat boxes, and those about pictures."""

TABLE: dict[str, tuple[str, str, str]] = {
    # ── chat ──
    "speaker": ("Talk to", "話す相手", "对话模型"),
    "compare": ("Compare with", "比べる相手", "对比模型"),
    "compare_too": ("And with", "さらに比べる相手", "再对比"),
    "you_asked": ("You asked", "あなたの質問", "你的提问"),
    "not_asked": ("(was not asked)", "（質問していません）", "（未提问）"),
    "thinking": ("reading the question …", "質問を読んでいます…", "正在读题……"),
    "before_you": (
        "waiting: {n} before you",
        "順番待ち：あなたの前に {n} 件",
        "排队中：前面还有 {n} 个",
    ),
    "run_has_memory": (
        "waiting for memory: the run “{run}” is using it",
        "メモリ待ち：実行「{run}」が使用中です",
        "等待内存：运行“{run}”正在使用",
    ),
    "copy_answer": ("Copy this answer", "この答えをコピー", "复制此回答"),
    "copy_talk": ("Copy all", "すべてコピー", "全部复制"),
    "save_markdown": ("Save as Markdown", "Markdown で保存", "存为 Markdown"),
    "save_json": ("Save as JSON", "JSON で保存", "存为 JSON"),
    "decoding": ("How answers are decoded", "答えの生成方法", "回答的生成方式"),
    "max_new_tokens": ("Tokens at most", "最大トークン数", "词元数上限"),
    "temperature": ("Temperature", "温度", "温度"),
    "temperature_info": (
        "0: always the likeliest token, as in a run's scores.",
        "0：常に最も確からしいトークン（採点時と同じ）。",
        "0：总取最可能的词元，与评测时相同。",
    ),
    "top_p": ("Top-p (where drawn)", "Top-p（抽選時）", "Top-p（采样时）"),
    "repetition_penalty": ("Repetition penalty", "繰り返しの抑制", "重复惩罚"),
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
        "Ask something, or pick one of the task's questions",
        "質問を書くか、課題の問題を選んでください",
        "输入问题，或从任务中选一题",
    ),
    "talk_hint": (
        "Ask a question, or pick one of the task's. Sources and merges answer differently: compare "
        "them.",
        "質問するか、課題の問題を選んでください。元モデルとマージの答えを比べてみましょう。",
        "提问，或从任务中选一题。来源与合并的回答各不相同，不妨都试试。",
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
