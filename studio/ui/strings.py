"""Every word of the page, in English, Japanese and Chinese: one table, two ways to read it.

Words of one tab alone are in :mod:`studio.ui.tables`, and join the table here.

``text(key)`` is for components: Gradio translates it in the browser. ``say(language, key, …)`` is
for HTML made on the server. Knows no components; sentences of errors are not here, they come from
the rooms that raise them.
"""

from functools import cache
from typing import TYPE_CHECKING

from studio.ui.tables import TABLES

if TYPE_CHECKING:
    import gradio as gr

#: Each language's own name.
NAMES = {"en": "English", "ja": "日本語", "zh": "中文"}
LANGUAGES = tuple(NAMES)

#: key → (English, Japanese, Chinese), of what no tab has for itself
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
    "language": ("Language", "言語", "语言"),
    "theme": ("Light or dark", "明るい・暗い配色", "浅色或深色"),
    "error": ("Error", "エラー", "错误"),
    "warning": ("Note", "お知らせ", "提示"),
    "unexpected": (
        "Something went wrong that should not have; the log of the Studio says what.",
        "予期しないエラーが起きました。詳しくは Studio のログをご覧ください。",
        "发生了意外错误；详情请看 Studio 的日志。",
    ),
    # ── tabs ──
    "models_tab": ("Models", "モデル", "模型"),
    "front_tab": ("Front", "フロント", "前沿"),
    "evolve": ("Evolve", "進化", "进化"),
    "chat": ("Chat", "チャット", "对话"),
    "take_home": ("Take home", "持ち帰る", "带走"),
    # ── cards of the recipe's models ──
    "models": ("Models and memory", "モデルとメモリ", "模型与内存"),
    "architecture": ("Architecture", "構造", "架构"),
    "hidden": ("Hidden size", "隠れ層の幅", "隐藏维度"),
    "dtype": ("Numbers", "数値型", "数值类型"),
    "vision": ("Sees with", "視覚", "视觉"),
    "licence": ("Licence", "ライセンス", "许可证"),
    "not_stated": ("not stated", "記載なし", "未注明"),
    "tied": ("(tied head)", "（ヘッド共有）", "（共享输出头）"),
    "fits": ("Fits the base.", "ベースと組み合わせられます。", "与基础模型匹配。"),
    "memory_here": (
        "What the recipe takes, at the most",
        "このレシピが使うメモリ（最大）",
        "该配方所需内存（最多）",
    ),
    "memory": ("Memory", "メモリ", "内存"),
    "at_a_time": ("Answers at a time", "同時に答える数", "同时回答数"),
    "does_not_fit": ("does not fit here", "ここでは不足", "此处不足"),
    # ── recipe form ──
    "preset": ("Begin with", "ひな形", "从范例开始"),
    "form": ("Form", "フォーム", "表单"),
    "yaml": ("Recipe (YAML)", "レシピ (YAML)", "配方 (YAML)"),
    "name": ("Name", "名前", "名称"),
    "sources": ("Sources", "元モデル", "来源模型"),
    "sources_info": (
        "Bundled models; or type a folder, a GGUF file, an adapter or a hub id and press Enter.",
        "同梱モデルのほか、フォルダ、GGUF、アダプタ、Hub の ID を入力して Enter。",
        "内置模型；也可输入文件夹、GGUF 文件、适配器或 Hub ID 后按回车。",
    ),
    "sources_info_paths": (
        "The first is the main model: embedding, first and last layer and head are its own.",
        "先頭が主モデル：埋め込み、最初と最後の層、出力ヘッドはこのモデルのもの。",
        "第一个是主模型：嵌入、首末层和输出头都取自它。",
    ),
    "space": ("What evolves", "進化させるもの", "进化什么"),
    "parameter": ("parameter space", "パラメータ空間", "参数空间"),
    "data_flow": ("data-flow space", "データフロー空間", "数据流空间"),
    "both": ("both", "両方", "两者"),
    "space_info": (
        "Weights are mixed (parameter space), tokens take another path through the layers "
        "(data-flow space), or first the one, then the other.",
        "重みを混ぜる（パラメータ空間）、層を通る経路を変える（データフロー空間）、または順に両方。",
        "混合权重（参数空间）、改变穿过各层的路径（数据流空间），或先后进行两者。",
    ),
    "base": ("Base", "ベース", "基础模型"),
    "base_info": (
        "The common ancestor of the sources; paths need none.",
        "元モデルに共通の祖先。経路だけなら不要。",
        "各来源的共同祖先；只进化路径则不需要。",
    ),
    "task": ("Task", "課題", "任务"),
    "objectives": ("Must become good at", "目標", "目标"),
    "objectives_info": (
        "jmath, emath: word problems in Japanese and English. …vqa: questions about pictures. csv: "
        "your own questions. Several are traded off.",
        "jmath・emath：日本語・英語の文章題。…vqa：画像への質問。csv：自分の問題。"
        "複数なら両立の度合いを探る。",
        "jmath、emath：日语和英语应用题。…vqa：看图问答。csv：你自己的问题。多个目标则寻求权衡。",
    ),
    "few_layers": ("few layers (length)", "層を少なく (length)", "层数少 (length)"),
    "few_parameters": (
        "few parameters (parameters)",
        "パラメータを少なく (parameters)",
        "参数少 (parameters)",
    ),
    "optimizer": ("Optimizer", "最適化手法", "优化器"),
    "automatic": ("automatic", "自動", "自动"),
    "repeats": ("Rounds of all layers", "全層の繰り返し", "全部层的轮数"),
    "scaling": ("Input scaling", "入力のスケール", "输入缩放"),
    "scale_matrix": ("per pair of layers", "層の組ごと", "每对层"),
    "scale_network": ("by a small network", "小さなネットワーク", "由小型网络"),
    "off": ("off", "なし", "关闭"),
    "max_length": ("Layers at most", "最大の層数", "层数上限"),
    "lenders": ("Layers also from", "層を貸すモデル", "另取层自"),
    "lenders_info": (
        "Beside the first search's winner; empty: all sources.",
        "最初の探索の勝者のほかに。空欄ならすべての元モデル。",
        "除首轮优胜者外；留空则为所有来源。",
    ),
    "scheme": ("First search", "最初の探索", "首轮搜索"),
    "scheme_joint": ("one for all tasks", "全課題で 1 回", "所有任务一次"),
    "scheme_paper": ("one per task (paper)", "課題ごと（論文）", "每任务一次（论文）"),
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
    "precision": ("Precision", "精度", "精度"),
    "vocabulary": ("Vocabulary", "語彙", "词表"),
    "vocabulary_same": ("the same in all", "全モデル共通", "所有模型相同"),
    "vocabulary_base": ("the base's", "ベースのもの", "基础模型的"),
    "vocabulary_union": ("all tokens of all", "すべての和集合", "全部词元的并集"),
    "seed": ("Seed", "乱数シード", "随机种子"),
    "begin": ("Begin at", "開始点", "起点"),
    "begin_default": ("the middle", "中央", "中间"),
    "begin_uniform": ("the best uniform merge", "最良の均一マージ", "最佳均匀合并"),
    "begin_info": (
        "Or a run's id: where that ended.",
        "または実行の ID：その終わりから。",
        "或运行的 ID：从其终点开始。",
    ),
    "baseline": (
        "Random search as well, with the same budget",
        "同じ予算のランダム探索も行う",
        "同时以相同预算做随机搜索",
    ),
    "asked": ("{n} questions", "{n} 問", "{n} 题"),
    "racing": (
        "Race: more questions only where they can change the ranking",
        "レース：順位が変わりうる候補だけに質問を増やす",
        "竞赛：仅在可能改变名次时追加问题",
    ),
    "racing_info": (
        "Several times fewer answers; scores are rougher until the finalists.",
        "回答数は数分の一。最終候補までは得点が粗くなります。",
        "回答数减少数倍；在决选之前得分较粗略。",
    ),
    "start": ("Start", "開始", "开始"),
    "command": ("The same in a terminal", "ターミナルで同じこと", "终端中的等价命令"),
    # ── monitor ──
    "stop": ("Stop", "停止", "停止"),
    "resume": ("Resume", "再開", "继续"),
    "queued": ("in the queue", "順番待ち", "排队中"),
    "running": ("running", "実行中", "运行中"),
    "stopping": ("pausing", "一時停止しています", "正在暂停"),
    "interrupted": ("interrupted", "中断", "已中断"),
    "stopped": ("paused", "一時停止中", "已暂停"),
    "finished": ("finished", "完了", "已完成"),
    "failed": ("failed", "失敗", "失败"),
    "phase_sources": ("scoring the sources", "元モデルを採点中", "正在评测来源"),
    "phase_search": ("searching ({stage})", "探索中（{stage}）", "搜索中（{stage}）"),
    "phase_selection": ("comparing the finalists", "最終候補を比較中", "正在比较入围候选"),
    "phase_report": ("scoring on test", "テストで採点中", "正在测试集上评测"),
    "candidates": ("Candidates", "候補", "候选"),
    "best": ("Best so far", "これまでの最高", "目前最佳"),
    "best_mean": ("Best mean so far", "平均の最高", "目前最佳均值"),
    "eta": ("Time left", "残り時間", "剩余时间"),
    "elapsed": ("Worked", "経過", "已用"),
    "tokens_s": ("Tokens/s", "トークン/秒", "词元/秒"),
    "per_minute": ("Candidates/min", "候補/分", "候选/分钟"),
    "col_id": ("#", "番号", "编号"),
    "col_generation": ("Generation", "世代", "代"),
    "col_search": ("Search", "探索", "搜索"),
    "col_score": ("Score %", "得点 %", "得分 %"),
    "col_mean": ("Mean %", "平均 %", "均值 %"),
    "curve": (
        "Best score so far on the search's questions",
        "探索用問題での最高得点の推移",
        "搜索题目上的最佳得分",
    ),
    "curve_mean": (
        "Best score so far on the search's questions: the mean of each search's tasks",
        "探索用問題での最高得点の推移：各探索の課題の平均",
        "搜索题目上的最佳得分：各搜索自身任务的均值",
    ),
    "curve_hypervolume": (
        "What the front covers (hypervolume)",
        "フロントが覆う割合（超体積）",
        "前沿覆盖的份额（超体积）",
    ),
    "curve_y_hypervolume": (
        "share of all possible values, %",
        "全範囲に占める割合 %",
        "占全部取值范围 %",
    ),
    "stage_for": ("{space} for {task}", "{space}（{task}）", "{space}（{task}）"),
    "curve_x": ("candidates scored", "採点した候補", "已评测候选"),
    "curve_y": ("right, %", "正答率 %", "正确率 %"),
    "evolution": ("evolution", "進化", "进化"),
    "random": ("random search", "ランダム探索", "随机搜索"),
    "waiting": (
        "The curve begins with the first scored candidate.",
        "最初の候補が採点されると曲線が始まります。",
        "首个候选评测后曲线开始。",
    ),
    # ── notebooks ──
    "strip_note_plain": (
        "One column per question, {n} of them; the taller row is the one to look at.",
        "1 列が 1 問、全 {n} 問。高い行に注目してください。",
        "每列一题，共 {n} 题；较高的一行是要看的。",
    ),
    "front_note_plain": (
        "{n} of {total} candidates that no other beats in every objective, on the search's "
        "questions.",
        "全目標で他に負けない候補：{total} 件中 {n} 件（探索用問題）。",
        "没有其他候选在所有目标上都胜过的：{total} 个中的 {n} 个（搜索题目）。",
    ),
    "hand_sources": (
        "Asking {name} the same questions …",
        "{name} にも同じ問題を出しています…",
        "正在向 {name} 提同样的问题……",
    ),
    "hand_scoring": (
        "Merged. Now asking it {n} questions …",
        "マージしました。{n} 問を出しています…",
        "已合并。正在提 {n} 道题……",
    ),
    "hand_scored": (
        "This merge: {score} on {n} questions. The best of {tried} so far: {best}.",
        "このマージ：{n} 問で {score}。これまでの {tried} 回の最高：{best}。",
        "该合并：{n} 题得 {score}。目前 {tried} 次中最佳：{best}。",
    ),
    # ── paper ──
    "paper": ("Paper", "論文", "论文"),
    "paper_intro": (
        "*Evolutionary Optimization of Model Merging Recipes* (Akiba et al., arXiv 2403.13187), "
        "rows 1 to 6 of its table 1, done again with the bundled models: weights evolved (PS), "
        "paths through the layers evolved (DFS), and first the one, then the other.",
        "*Evolutionary Optimization of Model Merging Recipes*（Akiba ほか、arXiv 2403.13187）の"
        "表 1 の 1〜6 行目を同梱モデルで再現：重みの進化（PS）、層を通る経路の進化（DFS）、"
        "その両方を順に。",
        "用内置模型重做 *Evolutionary Optimization of Model Merging Recipes*（Akiba 等，"
        "arXiv 2403.13187）表 1 的第 1 至 6 行：权重进化（PS）、层间路径进化（DFS），"
        "以及先后进行两者。",
    ),
    "reproduce": ("Run the missing rows", "足りない行を実行", "运行缺少的行"),
    "not_run": ("not run yet", "未実行", "尚未运行"),
    "paper_table": (
        "Table 1, rows 1 to 6, and its miniature",
        "表 1 の 1〜6 行目とそのミニチュア",
        "表 1 第 1 至 6 行及其缩影",
    ),
    "paper_table_note": (
        "The paper: MGSM-JA, accuracy in %. Here: jmath, test questions, with 95 % intervals.",
        "論文：MGSM-JA の正答率 %。ここ：jmath のテスト問題、95 % 信頼区間つき。",
        "论文：MGSM-JA 正确率 %。此处：jmath 测试题，附 95% 置信区间。",
    ),
    "col_paper_model": ("The paper's model", "論文のモデル", "论文中的模型"),
    "col_paper_score": ("Its score", "論文の得点", "论文得分"),
    "col_here": ("Here", "ここ", "此处"),
    "col_right": ("Right, %", "正答率 %", "正确率 %"),
    "findings": ("What held", "再現できたこと", "哪些结论成立"),
    "findings_note": (
        "≈ means the same direction as in the paper, with overlapping 95 % intervals.",
        "≈ は論文と同じ向きだが 95 % 信頼区間が重なることを示す。",
        "≈ 表示方向与论文相同，但 95% 置信区间重叠。",
    ),
    "no_findings": (
        "What held is said here once the first row has run.",
        "最初の行の実行が終わると、ここに結果が出ます。",
        "第一行运行完后，这里会说明哪些结论成立。",
    ),
    "col_verdict": ("Verdict", "判定", "判定"),
    "col_finding": ("Finding", "知見", "结论"),
    "col_paper": ("Paper", "論文", "论文"),
    "in_words": ("in words", "言葉のみ", "仅文字"),
    "held": ("held", "成立", "成立"),
    "held_noise": ("held, within noise", "誤差の範囲で成立", "成立，但在误差内"),
    "held_not": ("did not hold", "不成立", "不成立"),
    "finding_ps": (
        "Parameter space (4) beats the best of its sources.",
        "パラメータ空間 (4) は最良の元モデルを上回る。",
        "参数空间 (4) 胜过其最佳来源。",
    ),
    "finding_dfs": (
        "Data-flow space (5) beats the better of its sources.",
        "データフロー空間 (5) は良い方の元モデルを上回る。",
        "数据流空间 (5) 胜过其较好的来源。",
    ),
    "finding_both": (
        "Paths over the merge (6) beat the merge alone (4).",
        "マージ上の経路 (6) はマージ単独 (4) を上回る。",
        "在合并之上的路径 (6) 胜过单独的合并 (4)。",
    ),
    "finding_ps_dfs": (
        "Parameter space (4) beats data-flow space (5).",
        "パラメータ空間 (4) はデータフロー空間 (5) を上回る。",
        "参数空间 (4) 胜过数据流空间 (5)。",
    ),
    "finding_scales": (
        "Without its scales the path of row {row} loses more than 20 % of its score.",
        "スケールを外すと {row} 行目の経路は得点の 20 % 超を失う。",
        "去掉缩放后，第 {row} 行的路径得分下降超过 20%。",
    ),
    "finding_sources": (
        "All three sources matter, the Japanese one most.",
        "三つの元モデルはどれも効き、日本語モデルが最も効く。",
        "三个来源都重要，日语模型最重要。",
    ),
    "finding_kept": (
        "The merge keeps what its sources solve (here: at least 90 % of it) and adds problems that "
        "none of them solves.",
        "マージは元モデルが解く問題を保ち（ここでは 90 % 以上）、どれも解けない問題を加える。",
        "合并保留来源能解的题（此处：至少 90%），并增加它们都不会的题。",
    ),
    "paper_strip_note": (
        "One column per problem, the same in every row; hover to read it.",
        "一列が一問、どの行でも同じ問題。マウスを重ねると問題文が出ます。",
        "每列一题，各行相同；悬停可阅读题目。",
    ),
}
for _more in TABLES:
    TABLE |= _more


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
