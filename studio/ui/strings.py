"""Every word of the page, in English, Japanese and Chinese: one table, two ways to read it.

``text(key)`` is for components: Gradio translates it in the browser. ``say(language, key, …)`` is
for HTML made on the server. Knows no components; sentences of errors are not here, they come from
the rooms that raise them.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

LANGUAGES = ("en", "ja", "zh")

#: key → (English, Japanese, Chinese)
TABLE: dict[str, tuple[str, str, str]] = {
    "tagline": (
        "Evolve a recipe that merges language models, talk to the result, take it home.",
        "言語モデルのマージ手順を進化させ、できたモデルと話し、持ち帰る。",
        "让合并语言模型的配方进化，与结果对话，再把它带走。",
    ),
    "run": ("Run", "実行", "运行"),
    "no_run": (
        "There is no run yet. Choose sources and a task, then press Start.",
        "まだ実行がありません。元モデルと課題を選んで「開始」を押してください。",
        "还没有运行。选择来源模型和任务，然后按“开始”。",
    ),
    # ── tabs ──
    "evolve": ("Evolve", "進化", "进化"),
    "results": ("Results", "結果", "结果"),
    "chat": ("Chat", "チャット", "对话"),
    "take_home": ("Take home", "持ち帰る", "带走"),
    # ── recipe form ──
    "form": ("Form", "フォーム", "表单"),
    "yaml": ("Recipe (YAML)", "レシピ (YAML)", "配方 (YAML)"),
    "name": ("Name", "名前", "名称"),
    "sources": ("Sources", "元モデル", "来源模型"),
    "sources_info": (
        "Bundled models; or type a local folder or a hub id and press Enter.",
        "同梱モデルのほか、フォルダや Hub の ID を入力して Enter。",
        "内置模型；也可输入本地文件夹或 Hub ID 后按回车。",
    ),
    "base": ("Base", "ベース", "基础模型"),
    "base_info": (
        "The common ancestor of the sources.",
        "元モデルに共通の祖先。",
        "各来源的共同祖先。",
    ),
    "task": ("Must become good at", "得意にする課題", "要擅长的任务"),
    "task_info": (
        "jmath: Japanese word problems. csv: your own questions.",
        "jmath：日本語の文章題。csv：自分の問題。",
        "jmath：日语应用题。csv：你自己的问题。",
    ),
    "options": ("Task options", "課題のオプション", "任务选项"),
    "options_info": (
        "One `name: value` a line, such as `path: questions.csv`.",
        "1 行に「名前: 値」、例 `path: questions.csv`。",
        "每行一个“名称: 值”，如 `path: questions.csv`。",
    ),
    "examples": ("Questions per candidate", "候補ごとの問題数", "每个候选的题数"),
    "method": ("Merge method", "マージ手法", "合并方法"),
    "granularity": ("Layers per group", "グループの層数", "每组层数"),
    "whole_model": ("whole model", "モデル全体", "整个模型"),
    "population": ("Population", "集団の大きさ", "种群大小"),
    "budget": ("Candidates", "候補の数", "候选数"),
    "seed": ("Seed", "乱数シード", "随机种子"),
    "baseline": (
        "Random search as well, with the same budget",
        "同じ予算のランダム探索も行う",
        "同时以相同预算做随机搜索",
    ),
    "start": ("Start", "開始", "开始"),
    "command": ("The same in a terminal", "ターミナルで同じこと", "终端中的等价命令"),
    # ── monitor ──
    "stop": ("Stop", "停止", "停止"),
    "resume": ("Resume", "再開", "继续"),
    "queued": ("starting", "準備中", "启动中"),
    "running": ("running", "実行中", "运行中"),
    "stopping": ("stopping", "停止中…", "正在停止"),
    "interrupted": ("interrupted", "中断", "已中断"),
    "stopped": ("stopped", "停止済み", "已停止"),
    "finished": ("finished", "完了", "已完成"),
    "failed": ("failed", "失敗", "失败"),
    "stage_sources": ("scoring the sources", "元モデルを採点中", "正在评测来源"),
    "stage_cma": ("searching", "探索中", "搜索中"),
    "stage_random": ("random search", "ランダム探索中", "随机搜索中"),
    "stage_selection": ("comparing the finalists", "最終候補を比較中", "正在比较入围候选"),
    "stage_report": ("scoring on test", "テストで採点中", "正在测试集上评测"),
    "candidates": ("Candidates", "候補", "候选"),
    "best": ("Best so far", "これまでの最高", "目前最佳"),
    "eta": ("Time left", "残り時間", "剩余时间"),
    "elapsed": ("Worked", "経過", "已用"),
    "tokens_s": ("Tokens/s", "トークン/秒", "词元/秒"),
    "per_minute": ("Candidates/min", "候補/分", "候选/分钟"),
    "col_id": ("#", "番号", "编号"),
    "col_generation": ("Generation", "世代", "代"),
    "col_search": ("Search", "探索", "搜索"),
    "col_score": ("Score %", "得点 %", "得分 %"),
    "curve": (
        "Best score so far on the search's questions",
        "探索用問題での最高得点の推移",
        "搜索题目上的最佳得分",
    ),
    "curve_x": ("candidates scored", "採点した候補", "已评测候选"),
    "curve_y": ("right, %", "正答率 %", "正确率 %"),
    "evolution": ("evolution", "進化", "进化"),
    "random": ("random search", "ランダム探索", "随机搜索"),
    "waiting": (
        "The curve begins with the first scored candidate.",
        "最初の候補が採点されると曲線が始まります。",
        "首个候选评测后曲线开始。",
    ),
    "table_note": (
        "Candidates: the best {shown} of {n} scored so far",
        "候補：採点済み {n} 件の上位 {shown} 件",
        "候选：已评测 {n} 个中得分最高的 {shown} 个",
    ),
    # ── results ──
    "report": ("Scores on the test questions", "テスト問題の得点", "测试题得分"),
    "report_note": (
        "Never seen by the search. The bar is the 95 % confidence interval.",
        "探索では使っていない問題。帯は 95 % 信頼区間。",
        "搜索从未见过。条形为 95% 置信区间。",
    ),
    "report_empty": (
        "Test scores appear when the search has ended. Until then, the search's own questions "
        "are shown below.",
        "テストの得点は探索の終了後に出ます。それまでは探索用の問題を下に示します。",
        "测试得分在搜索结束后出现。此前，下面显示搜索所用的题目。",
    ),
    "col_model": ("Model", "モデル", "模型"),
    "col_role": ("Role", "役割", "角色"),
    "col_interval": ("95 % interval", "95 % 区間", "95% 区间"),
    "role_base": ("base", "ベース", "基础"),
    "role_source": ("source", "元モデル", "来源"),
    "role_evolved": ("evolved merge", "進化したマージ", "进化的合并"),
    "role_random": ("random search", "ランダム探索", "随机搜索"),
    "strip": ("Question by question", "問題ごと", "逐题对比"),
    "strip_note": (
        "One column per question. Click one, or use the arrow keys, to read the answers.",
        "1 列が 1 問。クリックか矢印キーで解答を読めます。",
        "每列一题。点击或用方向键查看回答。",
    ),
    "strip_empty": (
        "The strip appears once the sources are scored.",
        "元モデルが採点されると表示されます。",
        "来源评测后显示。",
    ),
    "test_split": ("test questions", "テスト問題", "测试题"),
    "dev_split": ("the search's questions", "探索用の問題", "搜索题目"),
    "right": ("right", "正解", "正确"),
    "language_wrong": (
        "right number, wrong language",
        "数は正しいが言語が違う",
        "数字对但语言不对",
    ),
    "wrong": ("wrong", "不正解", "错误"),
    "only_merge": (
        "{n} questions that no source gets right are solved by the merge.",
        "どの元モデルも解けない {n} 問をマージが解きます。",
        "合并解出了 {n} 道所有来源都答错的题。",
    ),
    "question": ("Question", "問題", "题目"),
    "question_of": ("Question {i} of {n}", "問題 {i} / {n}", "第 {i} 题，共 {n} 题"),
    "expected": ("Right answer", "正解", "正确答案"),
    "question_gone": (
        "{example}: the file with this question is gone or has changed.",
        "{example}：この問題のファイルがないか、変更されています。",
        "{example}：该题所在的文件已不存在或已更改。",
    ),
    "no_answer": ("(no answer)", "（無回答）", "（无回答）"),
    "heat": ("What the best merge is made of", "最良のマージの中身", "最佳合并的配方"),
    "heat_note": (
        "Candidate {n}. Weight of each source by layer group; the small number is the density, the "
        "share of its differences from the base that is kept.",
        "候補 {n}。層グループごとの各元モデルの重み。小さい数字は密度（差分を残す割合）。",
        "候选 {n}。各层组中每个来源的权重；小号数字为密度（保留的与基础模型差异的比例）。",
    ),
    "heat_note_plain": (
        "Candidate {n}. Weight of each source by layer group.",
        "候補 {n}。層グループごとの各元モデルの重み。",
        "候选 {n}。各层组中每个来源的权重。",
    ),
    "heat_note_t": (
        "Candidate {n}. How far each layer group goes from the first source to the second.",
        "候補 {n}。層グループごとに、第 1 の元モデルから第 2 へどこまで進むか。",
        "候选 {n}。各层组从第一个来源走向第二个来源的程度。",
    ),
    "group": ("Layer group", "層グループ", "层组"),
    "density": ("density", "密度", "密度"),
    "weight": ("weight", "重み", "权重"),
    # ── chat ──
    "speaker": ("Talk to", "話す相手", "对话模型"),
    "speaker_info": (
        "A source, or a candidate of this run.",
        "元モデル、またはこの実行の候補。",
        "来源模型或本次运行的候选。",
    ),
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
    "candidate": ("candidate", "候補", "候选"),
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


def say(language: str, key: str, **values: object) -> str:
    """The words of a key in a language, placeholders filled; not escaped."""
    return TABLE[key][LANGUAGES.index(language)].format(**values)


@cache
def i18n() -> "gr.I18n":
    """The table as Gradio wants it, for ``launch``."""
    import gradio as gr

    tables = {
        language: {key: row[index] for key, row in TABLE.items()}
        for index, language in enumerate(LANGUAGES)
    }
    return gr.I18n(**tables, **{"zh-CN": tables["zh"]})


def text(key: str) -> "gr.I18nData":  # type: ignore[name-defined]
    """A key for a component's label, translated in the browser."""
    if key not in TABLE:
        raise KeyError(key)
    return i18n()(key)


def language(accepted: str | None) -> str:
    """The page's language for a browser's Accept-Language header: its first choice, or English.

    >>> language("ja-JP,ja;q=0.9"), language("zh-TW"), language("fr"), language(None)
    ('ja', 'zh', 'en', 'en')
    """
    first = (accepted or "").split(",")[0].split("-")[0].split(";")[0].strip().lower()
    return first if first in LANGUAGES else "en"
