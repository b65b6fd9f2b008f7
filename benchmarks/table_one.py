"""Rows 1 to 6 of the paper's Table 1 in miniature, as `python -m studio paper` runs them.

    python benchmarks/table_one.py

Runs what the workspace does not hold yet. Prints Markdown and writes it to
benchmarks/results/table_one.md: the rows that the README's table has of paths, with the random
baselines of the same budget, then Table 1 beside ours, and which findings held.
"""

from collections.abc import Iterator

from publish import cells, machine, publish

from studio import api, paper
from studio.runs import Store

#: What the README's table calls rows 5 and 6, and their roles.
OURS = {
    paper.DFS: ("paths through bonsai-abel and bonsai-ja (DFS, #{})", "evolved paths"),
    paper.BOTH: ("paths through the evolved merge and bonsai-ja (PS + DFS, #{})", "evolved, both"),
}


def readme_rows(store: Store) -> Iterator[str]:
    for number, (name, role) in OURS.items():
        run = paper.run_of(number, store).id
        for row in api.report(run, store):
            candidate = row["subject"].partition(":")[2]
            if row["role"] == "evolved":
                yield f"| {name.format(candidate)} | {role} | {cells(row)}"
            elif row["role"] == "random":
                baseline = role.replace("evolved", "random")
                steps = f"random steps from the same start (#{candidate})"
                yield f"| {steps} | {baseline} | {cells(row)}"


def main() -> None:
    store = paper.reproduce(on_progress=lambda row, p: print(row, p.stage, p.done, p.best))
    lines = ["| model | role | right | 95 % interval |", "|---|---|---|---|", *readme_rows(store)]
    lines += [
        "",
        "| | paper | MGSM-JA | here | right | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['id']} | {row['model']} | {row['accuracy']:.1f} % | {row['ours']} | {cells(row)}"
        for row in paper.table(store)
    ]
    lines += ["", "| finding | paper | here | |", "|---|---|---|---|"]
    lines += [
        f"| {row['claim']} | {row['paper'] or 'in words'} | {row['here']} | {row['verdict']} |"
        for row in paper.findings(store)
    ]
    seconds = {n: paper.run_of(n, store).seconds for n in (paper.PS, paper.DFS, paper.BOTH)}
    said = ", ".join(f"{value:.0f} s for row {number}" for number, value in seconds.items())
    lines += ["", f"With random baselines: {said}. {machine()}."]
    publish("table_one", lines)


if __name__ == "__main__":
    main()
