"""The words of the Front tab, and of its pictures wherever else they are shown."""

TABLE: dict[str, tuple[str, str, str]] = {
    # ── the report ──
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
    "role_stage": ("winner of the first search", "最初の探索の勝者", "首轮搜索优胜"),
    "role_exported": ("as exported", "書き出した形", "导出后"),
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
    # ── scores between 0 and 1 ──
    "metric_accuracy": ("accuracy", "正答率", "正确率"),
    "metric_rouge_l": ("ROUGE-L", "ROUGE-L", "ROUGE-L"),
    "metric_clip_score": ("CLIPScore", "CLIPScore", "CLIPScore"),
    "metric_other": ("score", "得点", "得分"),
    "metric_mean": ("mean score", "平均点", "平均得分"),
    "full_score": ("100", "100", "100"),
    "part_score": (
        "in between: the taller, the better",
        "部分点：高いほど良い",
        "部分得分：越高越好",
    ),
    "no_score": ("0", "0", "0"),
    "counts_empty": (
        "another language: counts as empty",
        "他の言語：空とみなす",
        "其他语言：视为空",
    ),
    "question_picture": ("The question's picture", "問題の画像", "题目图片"),
    "merge_leads": (
        "The merge answers {n} questions better than every source.",
        "マージはどの元モデルよりも {n} 問でよく答えます。",
        "合并在 {n} 道题上答得比所有来源都好。",
    ),
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
    "heat": ("What this merge is made of", "このマージの中身", "该合并的配方"),
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
    "path": (
        "The path through the layers",
        "層を通る経路",
        "穿过各层的路径",
    ),
    "path_note": (
        "Candidate {n}: {length} layers, from top to bottom, one lane per model. The bar shows "
        "what a layer's input is scaled by; ↻2 marks a layer passed for the second time.",
        "候補 {n}：{length} 層、上から下へ、モデルごとに 1 列。棒は層の入力の倍率。"
        "↻2 は 2 回目に通る層。",
        "候选 {n}：{length} 层，自上而下，每个模型一列。条形为该层输入的缩放倍数；"
        "↻2 表示第二次经过的层。",
    ),
    "step": ("Step", "順", "步"),
    "scale": ("Input ×", "入力 ×", "输入 ×"),
    "main_model": ("main", "主", "主"),
    "layer_n": ("layer {n}", "層 {n}", "层 {n}"),
    "front": ("The front", "フロント", "前沿"),
    "front_note": (
        "★ {n} of {total} candidates that no other beats in every objective, on the search's "
        "questions. Click one, or press Enter on it, to look inside.",
        "★ 全目標で他に負けない候補（{total} 件中 {n} 件、探索用問題）。"
        "クリックか Enter で中身を表示。",
        "★ 没有其他候选在所有目标上都胜过的 {n} 个（共 {total} 个，搜索题目）。"
        "点击或按 Enter 查看内部。",
    ),
    "front_size": (
        "A larger dot: more {name}.",
        "点が大きいほど {name} が大きい。",
        "点越大，{name} 越大。",
    ),
    "front_empty": (
        "The front appears with the first scored candidates of the last search.",
        "フロントは最後の探索の最初の候補が採点されると表示されます。",
        "最后一轮搜索的首批候选评测后显示前沿。",
    ),
    "on_front": ("on the front", "フロント上", "在前沿上"),
    "beaten": ("beaten", "他に劣る", "被支配"),
    "role_source_point": ("source or base", "元モデル・ベース", "来源或基础"),
    "length": ("layers", "層数", "层数"),
    "parameters": ("parameters", "パラメータ数", "参数量"),
    "less_is_better": ("fewer is better", "少ないほど良い", "越少越好"),
    "n_layers": ("{n} layers", "{n} 層", "{n} 层"),
    "n_parameters": ("{n} parameters", "パラメータ {n}", "参数 {n}"),
    "group": ("Layer group", "層グループ", "层组"),
    "density": ("density", "密度", "密度"),
    "weight": ("weight", "重み", "权重"),
    # ── what rows and layer groups are called ──
    "called_evolved": ("evolved (#{n})", "進化 (#{n})", "进化 (#{n})"),
    "called_random": (
        "best of random search (#{n})",
        "ランダム探索の最良 (#{n})",
        "随机搜索最佳 (#{n})",
    ),
    "called_stage": (
        "winner of the first search (#{n})",
        "最初の探索の勝者 (#{n})",
        "首轮搜索优胜 (#{n})",
    ),
    "called_exported": (
        "evolved (#{n}), as exported",
        "進化 (#{n})、書き出した形",
        "进化 (#{n})，导出后",
    ),
    "group_layer": ("layer {n}", "層 {n}", "层 {n}"),
    "group_layers": ("layers {n}", "層 {n}", "层 {n}"),
    "group_embedding": ("embedding", "埋め込み", "嵌入"),
    "group_head": ("head", "出力ヘッド", "输出头"),
    "group_embedding_head": ("embedding+head", "埋め込み＋出力ヘッド", "嵌入＋输出头"),
    "group_all": ("all layers", "全層", "所有层"),
    # ── every candidate: plot and table ──
    "timeline": (
        "Every candidate on the search's questions",
        "全候補の得点（探索用問題）",
        "所有候选在搜索题目上的得分",
    ),
    "timeline_note": (
        "In the order scored; the line is the best so far. Click a point, or Tab to the plot and "
        "use the arrow keys and Enter, to look inside.",
        "採点順。線はこれまでの最高。点をクリック、または Tab で図に移り、"
        "矢印キーと Enter で中身を表示。",
        "按评测顺序；线为目前最佳。点击一点，或用 Tab 进入图中再用方向键和回车，即可查看内部。",
    ),
    "timeline_empty": (
        "The first point appears when a candidate has been scored.",
        "最初の候補が採点されると点が現れます。",
        "首个候选评测后出现第一个点。",
    ),
    "all_points": ("All candidates", "すべての候補", "所有候选"),
    "record": ("best so far", "最高を更新", "刷新最佳"),
    "candidate": ("candidate", "候補", "候选"),
    "reference": (
        "measured by (with 95 % interval)",
        "比較対象（95 % 区間つき）",
        "参照（附 95% 区间）",
    ),
    "candidates_all": (
        "All {n} that are scored. A heading sorts; a row opens below.",
        "採点済みの全 {n} 件。見出しで並べ替え、行を選ぶと下に表示。",
        "已评测的全部 {n} 个。点表头排序；点行在下方查看。",
    ),
    "candidates_cut": (
        "The first {shown} of {n} by {column}. A heading sorts; a row opens below.",
        "{column} の順で {n} 件中の先頭 {shown} 件。見出しで並べ替え、行を選ぶと下に表示。",
        "按 {column} 排序的前 {shown} 个，共 {n} 个。点表头排序；点行在下方查看。",
    ),
    "candidates_csv": ("CSV of all candidates", "全候補の CSV", "全部候选的 CSV"),
    # ── the one that is looked into ──
    "opening": (
        "Opening the models to see what it is made of …",
        "中身を表示するためモデルを開いています…",
        "正在打开模型以查看配方……",
    ),
    "look_inside": ("Look inside", "中身を見る", "查看内部"),
    "beside": ("Compare with", "比べる候補", "与之比较"),
    "no_other": ("no other", "なし", "无"),
    "chat_with": ("Chat with this one", "この候補と話す", "与它对话"),
    "export_this": ("Export this one", "この候補を書き出す", "导出它"),
    "candidate_n": ("Candidate {n}", "候補 {n}", "候选 {n}"),
    "from_generation": (
        "{stage}, generation {n}",
        "{stage}、第 {n} 世代",
        "{stage}，第 {n} 代",
    ),
    "is_best": ("the best of this run", "この実行の最良", "本次运行的最佳"),
    "reported": (
        "Reported: below are the test questions, which no search has seen.",
        "報告対象：下はどの探索でも使っていないテスト問題。",
        "已报告：下面是任何搜索都没见过的测试题。",
    ),
    "not_reported": (
        "Not reported, so never asked the test questions: below are the search's own.",
        "報告対象ではなく、テスト問題は未実施：下は探索用の問題。",
        "未报告，从未做过测试题：下面是搜索所用的题目。",
    ),
    "other_not_reported": (
        "The other was never asked the test questions: below are the search's own.",
        "もう一方はテスト問題が未実施：下は探索用の問題。",
        "另一个从未做过测试题：下面是搜索所用的题目。",
    ),
    "candidate_broken": ("Broken: {why}", "異常：{why}", "异常：{why}"),
    "never_asked": (
        "This candidate was never asked {task}.",
        "この候補には {task} が出題されていません。",
        "该候选从未做过 {task}。",
    ),
    # ── two beside each other ──
    "versus": (
        "What #{a} and #{b} are made of",
        "#{a} と #{b} の中身",
        "#{a} 与 #{b} 的配方",
    ),
    "versus_note": (
        "Weight of each source by layer group, and the difference, #{b} less #{a}.",
        "層グループごとの各元モデルの重みと差（#{b} − #{a}）。",
        "各层组中每个来源的权重及其差（#{b} − #{a}）。",
    ),
    "versus_note_dense": (
        "Weight of each source by layer group, and the difference, #{b} less #{a}; the small "
        "numbers are the densities.",
        "層グループごとの各元モデルの重みと差（#{b} − #{a}）。小さな数字は密度。",
        "各层组中每个来源的权重及其差（#{b} − #{a}）；小数字为密度。",
    ),
    "versus_note_t": (
        "How far each layer group goes to the second source, and the difference, #{b} less #{a}.",
        "層グループごとに第 2 の元モデルへどこまで進むかと差（#{b} − #{a}）。",
        "各层组走向第二个来源的程度及其差（#{b} − #{a}）。",
    ),
    "difference": ("difference", "差", "差"),
    "versus_paths": (
        "Layers on the path: #{a} {length_a}, #{b} {length_b}; {n} of them are in both.",
        "経路の層：#{a} は {length_a}、#{b} は {length_b}、共通は {n}。",
        "路径层数：#{a} 为 {length_a}，#{b} 为 {length_b}，其中共有 {n}。",
    ),
    "versus_kinds": (
        "#{a} and #{b} come from different spaces: each as it is.",
        "#{a} と #{b} は別の空間の候補なので、それぞれを示します。",
        "#{a} 与 #{b} 来自不同空间：分别显示。",
    ),
    "only_one": (
        "Questions that only #{n} gets right: {count}",
        "#{n} だけが正解した問題：{count}",
        "只有 #{n} 答对的题：{count}",
    ),
    "only_one_graded": (
        "Questions that #{n} answers better: {count}",
        "#{n} の方が高得点の問題：{count}",
        "#{n} 得分更高的题：{count}",
    ),
    "not_the_same": (
        "#{n} was not asked these questions: pick one that was, or another task.",
        "#{n} にはこの問題が出題されていません。別の候補か課題を選んでください。",
        "#{n} 没有做过这些题：请选择做过的候选或其他任务。",
    ),
}
