"""The paper's method in words, beside what it made here: pictures of the runs of Table 1's rows.

Knows which picture shows which step. Refuses to know how a run is read (`studio.paper`,
`studio.api.inside`) or a picture drawn (`studio.ui.plots`, `studio.ui.pieces`).
"""

from studio import api, paper
from studio.api.inside import inside
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.runs import Store
from studio.ui import curves, pieces, versus
from studio.ui.markup import esc
from studio.ui.sentences import translate
from studio.ui.strings import say


def words(language: str) -> str:
    """The method without its pictures, which have to wait for the models to be opened."""
    return _told(language, {})


def drawn(language: str, store: Store) -> str:
    """The method with its pictures, of the runs that the store holds."""
    pictures = {
        "ps": _made(paper.PS, language, store),
        "dfs": _made(paper.DFS, language, store),
        "search": _searched(language, store),
    }
    return _told(language, pictures)


def _told(language: str, pictures: dict[str, str]) -> str:
    steps = "".join(
        f'<section><div class="told"><h4>{esc(say(language, f"method_{step}"))}</h4>'
        f"<p>{esc(say(language, f'method_{step}_text'))}</p></div>"
        f'<div class="drawn">{pictures.get(step, "")}</div></section>'
        for step in ("ps", "dfs", "search")
    )
    return (
        f'<article class="es-method"><h3>{esc(say(language, "method"))}</h3>'
        f"<p>{esc(say(language, 'method_idea'))}</p>{steps}"
        f"<h4>{esc(say(language, 'method_both'))}</h4>"
        f"<p>{esc(say(language, 'method_both_text'))}</p></article>"
    )


def _made(row: int, language: str, store: Store) -> str:
    """What the best candidate of a row's run is made of."""
    run = paper.run_of(row, store)
    if run is None or store.best(run.id) is None:
        return pieces.empty(say(language, "not_run"))
    try:
        return versus.inside(inside(run.id, "best", store), language)
    except StudioError as error:  # a model may have changed since
        return pieces.empty(translate(language, str(error)))


def _searched(language: str, store: Store) -> str:
    """The search of row 4's run, beside random search."""
    run = paper.run_of(paper.PS, store)
    if run is None or not api.curve(run.id, store):
        return pieces.empty(say(language, "not_run"))
    return curves.curves(run.id, Recipe.from_yaml(run.recipe), store, language)
