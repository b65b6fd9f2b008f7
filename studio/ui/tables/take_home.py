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
}
