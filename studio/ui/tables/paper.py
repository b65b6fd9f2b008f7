"""The words of the Paper tab's account of the method."""

TABLE: dict[str, tuple[str, str, str]] = {
    "method": ("The method", "手法", "方法"),
    "method_idea": (
        "Models that descend from one ancestor can be merged without training. How much of "
        "which, and where, used to be guessed; the paper has evolution find it. A candidate is "
        "a list of numbers (a genome), it is made into a model in place, the model answers "
        "questions whose answers are known, and the next generation is drawn from around the "
        "best.",
        "同じ祖先を持つモデルは、学習なしでマージできます。どれをどこにどれだけ混ぜるかは勘に頼"
        "っていましたが、論文はそれを進化に任せます。候補は数の並び（ゲノム）で、その場でモデル"
        "になり、答えのわかっている問題を解き、次の世代は良い候補のまわりから選ばれます。",
        "同源的模型无需训练即可合并。各取多少、取在何处，过去全凭猜测；论文让进化来寻找。候选是"
        "一串数字（基因组），就地变成模型，回答已知答案的问题，下一代再从最好的候选周围抽取。",
    ),
    "method_ps": ("Parameter space (PS)", "パラメータ空間 (PS)", "参数空间 (PS)"),
    "method_ps_text": (
        "What a fine-tuned model has learnt is its difference from the ancestor. DARE drops a "
        "share of each difference at random, TIES settles where differences disagree in sign, "
        "and a weighted sum goes back onto the ancestor. A weight and a density per source and "
        "group of layers are the genome. This is what evolved in the run of row 4:",
        "ファインチューニングで学んだことは、祖先との差に現れます。DARE は各差分の一部を無作為"
        "に落とし、TIES は符号の食い違いを調停し、重み付きの和を祖先に足します。元モデルと層グ"
        "ループごとの重みと密度がゲノムです。4 行目の実行で進化したもの：",
        "微调模型学到的东西就是它与祖先的差。DARE 随机丢弃每个差的一部分，TIES 调解符号冲突，再"
        "把加权和加回祖先。每个来源、每个层组的权重和密度构成基因组。第 4 行的运行进化出：",
    ),
    "method_dfs": ("Data-flow space (DFS)", "データフロー空間 (DFS)", "数据流空间 (DFS)"),
    "method_dfs_text": (
        "No weight changes. All layers of all sources are laid out in order, several times "
        "over; the genome says which of them a token passes through, and by how much the input "
        "of each is scaled. This path evolved in the run of row 5:",
        "重みは変えません。全モデルの全層を順に何度か並べ、トークンがどの層を通るか、各層の入力"
        "をどれだけスケールするかをゲノムが決めます。5 行目の実行で進化した経路：",
        "权重不变。把所有来源的所有层按顺序排列数遍；基因组决定词元经过哪些层，以及每层输入缩放"
        "多少。第 5 行的运行进化出的路径：",
    ),
    "method_search": ("Evolution", "進化", "进化"),
    "method_search_text": (
        "CMA-ES keeps a cloud of genomes and moves it towards those that answered better; for "
        "several goals NSGA-II keeps the front. The search sees its own questions only. Beside "
        "it stands random search with the same budget, without which no result means anything:",
        "CMA-ES はゲノムの雲を、よく答えた候補のほうへ動かします。目標が複数なら NSGA-II がフロ"
        "ントを保ちます。探索が見るのは探索用の問題だけです。同じ予算のランダム探索が並びます。"
        "それなしでは結果に意味がありません：",
        "CMA-ES 维持一团基因组，并向答得更好的候选移动；多个目标时由 NSGA-II 维持前沿。搜索只看"
        "自己的题目。旁边是同样预算的随机搜索，没有它，结果毫无意义：",
    ),
    "method_both": ("Both", "両方", "两者"),
    "method_both_text": (
        "First weights, then paths: the merge of row 4 leads the pool of layers of row 6. At "
        "the end the questions that no search has seen decide, once; below is what they said.",
        "まず重み、次に経路：4 行目のマージが 6 行目の層の候補の先頭になります。最後に、どの探"
        "索も見ていない問題が一度だけ判定します。下がその結果です。",
        "先权重，后路径：第 4 行的合并作为第 6 行层池之首。最后由任何搜索都没见过的题目一次性裁"
        "决，结果如下。",
    ),
}
