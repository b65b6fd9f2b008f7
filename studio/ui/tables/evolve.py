"""The words of the Evolve tab that its form does not share with other tabs."""

TABLE: dict[str, tuple[str, str, str]] = {
    # ── the recipe ──
    "all": ("all", "すべて", "全部"),
    "hours": ("Hours at most", "時間の上限（時間）", "小时上限"),
    "upload_questions": (
        "Use my own questions (CSV)",
        "自分の問題を使う (CSV)",
        "使用自己的题目 (CSV)",
    ),
    "questions_taken": (
        "{name} is the recipe's task now.",
        "{name} をレシピの課題にしました。",
        "{name} 已成为配方的任务。",
    ),
    "save_recipe": ("Download recipe", "レシピを保存", "下载配方"),
    "load_recipe": ("Open a recipe", "レシピを開く", "打开配方"),
    "no_storage": (
        "This Space has no persistent storage: runs are lost when it restarts. Download those "
        "that you want to keep.",
        "この Space には永続ストレージがありません。再起動すると実行は失われます。"
        "残したいものはダウンロードしてください。",
        "此 Space 没有持久存储：重启后运行会丢失。请下载想保留的运行。",
    ),
    # ── before Start ──
    "estimate": ("Estimate", "見積もる", "估算"),
    "cancel": ("Cancel", "中止", "取消"),
    "estimating": (
        "Measuring for about ten seconds …",
        "約 10 秒間測っています…",
        "正在测量，约十秒……",
    ),
    "estimate_cancelled": ("Cancelled.", "中止しました。", "已取消。"),
    "estimate_time": ("Time", "時間", "时间"),
    "estimate_memory": ("Memory", "メモリ", "内存"),
    "estimate_disk": ("Disk", "ディスク", "磁盘"),
    "estimate_answers": ("Answers", "解答数", "回答数"),
    "estimate_measured": (
        "Measured on this machine.",
        "このマシンで測った値です。",
        "在本机上测得。",
    ),
    "estimate_guessed": (
        "Reckoned from sizes; the probe did not get to measure.",
        "大きさから計算した値です（測定は間に合いませんでした）。",
        "按规模推算；未能完成实测。",
    ),
    # ── where it is worked on ──
    "placing": ("Where it runs", "実行する場所", "运行位置"),
    "executor": ("Candidates are scored by", "候補を採点するもの", "由谁给候选评分"),
    "executor_info": (
        "It changes how fast a run is, and nothing of what it finds with the same search.",
        "速さだけが変わり、同じ探索なら見つかるものは変わりません。",
        "只影响速度；搜索方式相同时，找到的结果不变。",
    ),
    "placing_here": ("one process", "1 つのプロセス", "一个进程"),
    "placing_devices": ("a process per device", "デバイスごとのプロセス", "每个设备一个进程"),
    "placing_ray": ("a Ray cluster", "Ray クラスタ", "Ray 集群"),
    "workers": ("Workers", "ワーカー数", "工作进程数"),
    "workers_info": (
        "Left empty: one for every device.",
        "空欄ならデバイスごとに 1 つ。",
        "留空：每个设备一个。",
    ),
    "address": ("Address", "アドレス", "地址"),
    "address_info": (
        "HOST:PORT; left empty: the cluster of this machine, or a new one.",
        "HOST:PORT。空欄ならこのマシンのクラスタ、なければ新しく作ります。",
        "HOST:PORT；留空：本机的集群，没有则新建。",
    ),
    "placing_flags": (
        "Added to the command below",
        "下のコマンドに加えるもの",
        "添加到下面的命令中",
    ),
    # ── what can be done with a run ──
    "pause": ("Pause", "一時停止", "暂停"),
    "finish": ("Finish now", "ここで仕上げる", "立即收尾"),
    "delete": ("Delete", "削除", "删除"),
    "yes": ("Yes", "はい", "是"),
    "no": ("No", "いいえ", "否"),
    "more_of_run": ("Keep, repeat, share", "保存・繰り返し・共有", "保存、重复、分享"),
    "duplicate": ("Use its recipe", "レシピを使う", "使用其配方"),
    "duplicated": (
        "The recipe is in the form; change it and press Start.",
        "レシピをフォームに入れました。変更して「開始」を押してください。",
        "配方已填入表单；修改后按“开始”。",
    ),
    "keep_run": ("Download run", "実行を保存", "下载运行"),
    "bring_run": ("Open a downloaded run", "保存した実行を開く", "打开下载的运行"),
    "seeds": ("Further seeds", "追加のシード数", "另用种子数"),
    "repeat": ("Repeat", "繰り返す", "重复"),
    "repeated": (
        "{n} runs are in the queue.",
        "{n} 件を順番待ちに入れました。",
        "{n} 个运行已排队。",
    ),
    "share": ("Share", "共有", "分享"),
    "share_link": ("Read-only link", "閲覧専用リンク", "只读链接"),
    "share_info": (
        "Whoever has it can look at this run, and change nothing.",
        "リンクを知る人はこの実行を見られますが、変更はできません。",
        "持有链接者可查看此运行，但不能更改。",
    ),
    "only_read": (
        "This run can only be looked at here. Use its recipe to start your own.",
        "この実行は閲覧のみです。レシピを使って自分の実行を始められます。",
        "此运行在这里只能查看。可用其配方开始自己的运行。",
    ),
    "pause_asked": (
        "It pauses before its next answer and frees its memory.",
        "次の解答の前に止まり、メモリを解放します。",
        "将在下一个回答前暂停并释放内存。",
    ),
    "finish_asked": (
        "The search ends here; the finalists are compared, then the report is made.",
        "探索はここまで。最終候補を比べて報告します。",
        "搜索到此为止；比较入围候选后出报告。",
    ),
    "ask_delete": (
        "Delete {run} and everything recorded of it? Exports stay.",
        "{run} とその記録をすべて削除しますか？書き出したものは残ります。",
        "删除 {run} 及其全部记录？导出的文件会保留。",
    ),
    "ask_pause_elsewhere": (
        "{run} was started in another browser or a terminal. Pause it all the same?",
        "{run} は別のブラウザか端末で始められました。それでも一時停止しますか？",
        "{run} 是在另一个浏览器或终端中启动的。仍要暂停吗？",
    ),
    "ask_finish_elsewhere": (
        "{run} was started in another browser or a terminal. Finish it now all the same?",
        "{run} は別のブラウザか端末で始められました。それでも仕上げますか？",
        "{run} 是在另一个浏览器或终端中启动的。仍要立即收尾吗？",
    ),
    # ── the queue ──
    "queue": ("Queue", "順番待ち", "队列"),
    "place": ("Place", "順番", "位置"),
    "wait": ("Wait", "待ち時間", "等待"),
    "at_work": ("at work", "実行中", "进行中"),
    "others": ("somebody else's run", "ほかの人の実行", "他人的运行"),
    "wait_turn": ("begins in about {time}", "開始まで約 {time}", "约 {time} 后开始"),
    "wait_end": ("ends in about {time}", "終了まで約 {time}", "约 {time} 后结束"),
    "queued_at": (
        "Another run is at work; yours is number {n} in the queue.",
        "別の実行が進行中です。順番は {n} 番目です。",
        "有其他运行在进行；你的排在第 {n} 位。",
    ),
    # ── how the best compares ──
    "standing": (
        "The best so far, on the search's questions",
        "これまでの最良（探索用問題）",
        "目前最佳（搜索题目）",
    ),
    "standing_note": (
        "It was chosen on these questions; the test questions decide. The bar is the 95 % "
        "confidence interval.",
        "この問題で選ばれたもの。最後はテスト問題で決まります。帯は 95 % 信頼区間。",
        "它就是按这些题选出的；最终以测试题为准。条形为 95% 置信区间。",
    ),
}
