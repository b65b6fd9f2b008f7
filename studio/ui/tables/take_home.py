"""The words of the Take home tab."""

TABLE: dict[str, tuple[str, str, str]] = {
    # ── take home ──
    "export_intro": (
        "Writes an ordinary checkpoint: safetensors, tokenizer, model card, the recipe, and a "
        "mergekit configuration where mergekit can express it. `transformers` loads it as it is.",
        "通常のチェックポイントを書き出します：safetensors、トークナイザ、モデルカード、レシピ、"
        "可能なら mergekit の設定。`transformers` でそのまま読めます。",
        "写出普通检查点：safetensors、分词器、模型卡、配方，以及可表达时的 mergekit 配置。"
        "`transformers` 可直接加载。",
    ),
    "which": ("Which candidate", "どの候補", "哪个候选"),
    "folder": ("Folder name", "フォルダ名", "文件夹名"),
    "folder_info": (
        "Made in the workspace's exports folder; left empty: run and candidate.",
        "ワークスペースの exports に作成。空欄なら実行と候補の番号。",
        "建在工作区的 exports 中；留空则用运行与候选编号。",
    ),
    "export": ("Export", "書き出す", "导出"),
    "written": ("Written to", "書き出し先", "已写入"),
    "files": ("Files", "ファイル", "文件"),
    "size": ("Size", "サイズ", "大小"),
    "card": ("Model card", "モデルカード", "模型卡"),
    "nothing_exported": (
        "Export a candidate to see its files here.",
        "書き出すと、ここにファイルが表示されます。",
        "导出后，这里显示文件。",
    ),
    "export_as": ("As", "形式", "形式"),
    "as_folder": ("a folder", "フォルダ", "文件夹"),
    "as_zip": ("a zip file", "zip ファイル", "zip 文件"),
    "on_hub": ("on the Hugging Face hub", "Hugging Face Hub に", "上传到 Hugging Face Hub"),
    "repository": ("Repository", "リポジトリ", "仓库"),
    "repository_info": (
        "owner/name. Written with HF_TOKEN, or with who is logged in on this machine.",
        "所有者/名前。HF_TOKEN、またはこのマシンのログインで書き込みます。",
        "所有者/名称。用 HF_TOKEN 或本机的登录写入。",
    ),
    "repository_info_public": (
        "owner/name. Written in your name; sign in first.",
        "所有者/名前。あなたの名義で書き込みます。先にサインインしてください。",
        "所有者/名称。以你的名义写入；请先登录。",
    ),
    "for_everybody": ("For everybody to see", "公開する", "对所有人公开"),
    "for_everybody_info": (
        "Otherwise the repository is private.",
        "しなければ非公開のリポジトリになります。",
        "否则仓库为私有。",
    ),
    "cancel": ("Cancel", "やめる", "取消"),
    "download": ("Download the zip file", "zip をダウンロード", "下载 zip 文件"),
    "mergekit": ("mergekit configuration", "mergekit の設定", "mergekit 配置"),
    "no_mergekit": (
        "mergekit has no words for this merge.",
        "このマージは mergekit では表せません。",
        "mergekit 无法表达该合并。",
    ),
    "export_waits": ("Getting ready …", "準備中…", "准备中……"),
    "export_writes": ("Writing the weights", "重みを書き出し中", "正在写入权重"),
    "export_zips": ("Packing the zip file", "zip にまとめています", "正在打包 zip"),
    "export_uploads": ("Uploading to the hub …", "Hub にアップロード中…", "正在上传到 Hub……"),
    "export_cancelled": (
        "Cancelled; nothing was kept.",
        "取り消しました。何も残っていません。",
        "已取消；没有留下任何文件。",
    ),
    "uploaded": ("Uploaded to", "アップロード先：", "已上传到"),
    "too_large_to_zip": (
        "Too large for a zip file through the browser: here is the folder instead.",
        "ブラウザで渡す zip には大きすぎるため、フォルダに書き出しました。",
        "太大，无法通过浏览器以 zip 下载：改为写入文件夹。",
    ),
    "licence_of_merge": ("Licence of the merge", "マージのライセンス", "合并后的许可证"),
    "weights_size": (
        "Candidate {n}, {size} of weights.",
        "候補 {n}、重み {size}。",
        "候选 {n}，权重 {size}。",
    ),
    "licence_free": (
        "Free to use, share and sell; keep the licence notices of all sources.",
        "自由に使用・共有・販売できます。全元モデルのライセンス表示を残してください。",
        "可自由使用、分享和销售；请保留所有来源的许可声明。",
    ),
    "licence_terms": (
        "The terms of {names} apply to the merge, too.",
        "{names} の条件がマージにも適用されます。",
        "{names} 的条款同样适用于合并结果。",
    ),
    "licence_several": (
        "Several licences apply at once: {names}.",
        "複数のライセンスが同時に適用されます：{names}。",
        "同时适用多个许可证：{names}。",
    ),
    "licence_unknown": (
        "No licence is stated by {names}: ask the authors before you share the merge.",
        "{names} にはライセンスの記載がありません。共有する前に作者に確認してください。",
        "{names} 未注明许可证：分享前请先询问作者。",
    ),
    "licence_noncommercial": (
        "For research and non-commercial use only: it contains {names}.",
        "研究・非商用に限ります：{names} を含みます。",
        "仅限研究和非商业用途：其中包含 {names}。",
    ),
    "licence_conflict": (
        "It may not be passed on: the terms of {names} exclude each other.",
        "配布できません：{names} の条件は両立しません。",
        "不得分发：{names} 的条款互相排斥。",
    ),
    "licence_forbidden": (
        "It may not be passed on: {names} allows no adaptations.",
        "配布できません：{names} は改変を認めていません。",
        "不得分发：{names} 不允许改编。",
    ),
    "licence_llama": (
        "Llama's terms ask for a name that begins with “Llama”.",
        "Llama の条件により、名前は「Llama」で始める必要があります。",
        "Llama 的条款要求名称以“Llama”开头。",
    ),
    "my_data": ("My data", "自分のデータ", "我的数据"),
    "my_data_info": (
        "Your runs, uploads, exports and conversations are deleted after 7 days, or now.",
        "実行、アップロード、書き出し、会話は 7 日後に削除されます。今すぐ削除もできます。",
        "你的运行、上传、导出和对话会在 7 天后删除，也可立即删除。",
    ),
    "delete_data": ("Delete my data", "自分のデータを削除", "删除我的数据"),
    "delete_sure": ("Yes, delete all of it", "はい、すべて削除", "是的，全部删除"),
    "deleted": (
        "Deleted: runs {runs}, conversations {chats}, uploads {uploads}, exported files {exports}.",
        "削除しました：実行 {runs} 件、会話 {chats} 件、アップロード {uploads} 件、"
        "書き出し {exports} 件。",
        "已删除：运行 {runs} 个，对话 {chats} 个，上传 {uploads} 个，导出文件 {exports} 个。",
    ),
    "not_deleted_yet": (
        "Still stopping: {runs}; delete again in a minute.",
        "停止中：{runs}。1 分ほどしてからもう一度削除してください。",
        "仍在停止：{runs}；一分钟后请再删除一次。",
    ),
}
