"""The Paper tab: Table 1 of the paper beside its miniature, the strip, and which findings held.

Knows how to show what :mod:`studio.paper` reads from the store, and a button that has the missing
rows run by a process of their own. Refuses to compute a figure.
"""

from typing import Any

import gradio as gr

from studio import paper
from studio.errors import StudioError
from studio.tasks import load_task
from studio.ui import method, pieces, plots
from studio.ui.markup import esc
from studio.ui.shared import engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Visit, Wires

SIGNS = {paper.HELD: "✓", paper.NOISE: "≈", paper.NOT: "✗"}
VERDICTS = {paper.HELD: "held", paper.NOISE: "held_noise", paper.NOT: "held_not"}


def build(wires: Wires, tab: gr.Tab) -> None:
    """Lay the tab out; ``tab`` is the one it stands in."""
    gr.Markdown(text("paper_intro"))
    told = gr.HTML(elem_id="method")
    with gr.Row(elem_classes="es-buttons"):
        reproduce = gr.Button(text("reproduce"), size="sm", elem_id="reproduce")
    gr.Code(
        "python -m studio paper",
        language="shell",
        label=text("command"),
        interactive=False,
        lines=1,
        show_line_numbers=False,
    )
    shown = gr.HTML(elem_id="paper")
    wires.on(reproduce.click, start, None, reproduce)
    opened = wires.on(tab.select, draw, None, [told, shown, reproduce])
    wires.then(opened.success, draw_method, None, told)


def start(visit: Visit) -> Any:
    """Have the rows that are missing run; the page shows their runs like any other."""
    if not visit.who.host:
        raise StudioError("The paper's rows take hours; run them on your own machine.")
    engine()
    paper.start(store())
    return gr.update(interactive=False)


def draw_method(visit: Visit) -> str:
    """The method with pictures of its runs; the first to ask wait for torch."""
    engine()
    return method.drawn(visit.language, store())


def draw(visit: Visit) -> tuple[str, str, Any]:
    """The method in words, the tables, and the button, there as long as a row is missing."""
    language = visit.language
    rows = paper.table(store())
    missing = any(row["score"] is None for row in rows)
    parts = [
        _table(rows, language),
        _findings(paper.findings(store()), language),
        _strip(language),
    ]
    idle = missing and not paper.is_running(store())
    return (
        method.words(language),
        "".join(parts),
        gr.update(interactive=idle, visible=missing and visit.who.host),
    )


def _table(rows: list[dict[str, Any]], language: str) -> str:
    n = next((row["n"] for row in rows if row["n"]), 0)
    body = []
    for row in rows:
        evolved = "evolved" if row["id"] in (paper.PS, paper.DFS, paper.BOTH) else "source"
        here = f'<td colspan="3" class="role">{esc(say(language, "not_run"))}</td>'
        if row["score"] is not None:
            here = pieces.interval_cells(row)
        body.append(
            f'<tr class="{evolved}"><td class="number">{row["id"]}</td>'
            f'<th scope="row">{esc(row["model"])}</th>'
            f'<td class="number">{row["accuracy"]:.1f}</td>'
            f"<td>{esc(row['ours'])}</td>{here}</tr>"
        )
    head = "".join(
        f'<th scope="col"{extra}>{esc(say(language, key, n=n))}</th>'
        for key, extra in (
            ("col_id", ' class="number"'),
            ("col_paper_model", ""),
            ("col_paper_score", ' class="number"'),
            ("col_here", ""),
            ("col_right", ' class="number"'),
            ("col_interval", ' class="number range"'),
        )
    )
    return (
        f'<figure class="es-figure es-report es-paper">'
        f"<figcaption>{esc(say(language, 'paper_table'))}</figcaption>"
        f'<p class="note">{esc(say(language, "paper_table_note"))}</p>'
        f'<div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}{pieces.scale_cell()}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div></figure>"
    )


def _findings(rows: list[dict[str, str]], language: str) -> str:
    if not rows:
        return pieces.empty(say(language, "no_findings"))
    body = "".join(
        f'<tr><td class="verdict" data-verdict="{esc(VERDICTS[row["verdict"]])}">'
        f"{SIGNS[row['verdict']]} {esc(say(language, VERDICTS[row['verdict']]))}</td>"
        f'<th scope="row">{esc(say(language, "finding_" + row["key"], row=row["row"]))}</th>'
        f'<td class="paper">{esc(row["paper"] or say(language, "in_words"))}</td>'
        f"<td>{esc(row['here'])}</td></tr>"
        for row in rows
    )
    head = "".join(
        f'<th scope="col">{esc(say(language, key))}</th>'
        for key in ("col_verdict", "col_finding", "col_paper", "col_here")
    )
    return (
        f'<figure class="es-figure es-findings"><figcaption>{esc(say(language, "findings"))}'
        f'</figcaption><p class="note">{esc(say(language, "findings_note"))}</p>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></figure>"
    )


def _strip(language: str) -> str:
    rows = paper.strip(store())
    if not rows:
        return ""
    drawn = [
        plots.Row(
            label=row["label"],
            role=row["role"],
            score=sum(o.score for o in row["outcomes"]) / len(row["outcomes"]),
            states=[pieces.state_of(o) for o in row["outcomes"]],
            best=row["role"] == "evolved",
        )
        for row in rows
    ]
    questions = {e.id: e.question for e in load_task("jmath").examples("test")}
    return plots.strip(
        drawn,
        [questions.get(o.example, o.example) for o in rows[0]["outcomes"]],
        title=f"{say(language, 'strip')}: jmath, {say(language, 'test_split')}",
        note=say(language, "paper_strip_note"),
        names=pieces.state_names(language),
        selected=None,
    )
