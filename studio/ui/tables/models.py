"""The words of the Models tab."""

TABLE: dict[str, tuple[str, str, str]] = {
    "search_models": ("Search models", "モデルを探す", "搜索模型"),
    "search_models_hint": (
        "A name, an architecture, a licence, a hub id, a folder",
        "名前、構造、ライセンス、Hub の ID、フォルダ",
        "名称、架构、许可证、Hub ID 或文件夹",
    ),
    "chosen": ("### What is to be merged", "### マージするもの", "### 要合并的模型"),
    "use_models": ("Use in a recipe", "レシピで使う", "用于配方"),
    "as_base": ("Base", "ベース", "基础"),
    "as_source": ("Source", "元モデル", "来源"),
    "take_away": ("Take {name} away", "{name} を外す", "移除 {name}"),
    "choose": (
        "Choose a base and at least one source on the cards.",
        "カードでベースと元モデルを選んでください。",
        "请在卡片上选择基础模型和至少一个来源。",
    ),
    "choose_base": (
        "Choose the sources' common ancestor as base to mix weights; without one, paths through "
        "their layers are searched.",
        "重みを混ぜるには共通の祖先をベースに選びます。なければ層を通る経路を探します。",
        "要混合权重，请把各来源的共同祖先选为基础；否则搜索穿过各层的路径。",
    ),
    "place_bundled": ("bundled", "同梱", "内置"),
    "place_local": ("in the workspace", "ワークスペース", "工作区"),
    "place_cached": ("downloaded", "ダウンロード済み", "已下载"),
    "place_exported": ("exported", "書き出し済み", "已导出"),
    "place_hub": ("on the hub", "Hub", "Hub"),
    "adapter_on": ("adapter on {base}", "{base} のアダプタ", "{base} 的适配器"),
    "sees": ("sees pictures", "画像が見える", "能看图"),
    "gated": ("gated", "承認制", "需授权"),
    "downloads": ("Downloads a month", "月間ダウンロード", "月下载量"),
    "on_hub": ("On the hub", "Hub のモデル", "Hub 上的模型"),
    "search_hub": (
        "Type two letters or more to search the Hugging Face hub as well.",
        "2 文字以上入力すると Hugging Face Hub も検索します。",
        "输入两个以上字符即可同时搜索 Hugging Face Hub。",
    ),
    "no_model_here": (
        "No model on this machine matches “{query}”.",
        "このマシンに「{query}」に合うモデルはありません。",
        "本机没有与“{query}”匹配的模型。",
    ),
    "no_model_hub": (
        "The hub has no model with safetensors weights for “{query}”.",
        "Hub に「{query}」に合う safetensors のモデルはありません。",
        "Hub 上没有与“{query}”匹配的 safetensors 模型。",
    ),
}
