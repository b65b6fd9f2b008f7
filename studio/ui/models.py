"""The Models tab: what there is to merge, what fits together and why not, and what it takes.

Cards of what is on this machine are there at once and follow every letter of a search; the hub's
come after them. Looking inside models, which loads torch, waits until somebody looks here. Knows
shelves and what is chosen; refuses to know the recipe that it ends in (`studio.ui.editor`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from studio import api
from studio.errors import StudioError
from studio.models import search
from studio.models.sources import bundled
from studio.recipe import Recipe
from studio.ui import cards, editor, form
from studio.ui.markup import esc
from studio.ui.pieces import empty
from studio.ui.sentences import translate
from studio.ui.shared import engine, store
from studio.ui.strings import text
from studio.ui.wiring import Visit, Wires
from studio.visitors import allowed_models
from studio.workspace import workspace

#: Letters after which the hub is asked.
ENOUGH = 2

#: A click on a toggle shows at once; the server is told what was clicked.
_PICK = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-role]');
    if (!button) return;
    const {role, name} = button.dataset;
    const all = [...document.querySelectorAll('.es-card button[data-role]')];
    const same = all.filter((b) => b.dataset.role === role && b.dataset.name === name);
    const on = same[0] ? same[0].ariaPressed !== 'true' : false;
    const others = role === 'base' ? all.filter((b) => b.dataset.role === 'base') : [];
    others.forEach((b) => b.ariaPressed = 'false');
    same.forEach((b) => b.ariaPressed = String(on));
    trigger('click', {role, name});
});
"""


@dataclass(frozen=True)
class Models:
    """What other parts of the page wire up.

    Attributes:
        picked: a state, {"base": name or '', "sources": [names]}.
        use: the button that hands it to a recipe.
    """

    picked: gr.State
    use: gr.Button


def build(wires: Wires, tab: gr.Tab) -> Models:
    """Lay the tab out."""
    recipe = form.default_recipe()
    picked = gr.State({"base": recipe.base or "", "sources": recipe.sources})
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=7, min_width=320):
            query = gr.Textbox(
                label=text("search_models"), placeholder=text("search_models_hint"), max_lines=1,
                elem_id="search-models",
            )  # fmt: skip
            here = gr.HTML(js_on_load=_PICK, elem_id="shelf")
            hub = gr.HTML(js_on_load=_PICK, elem_id="hub")
        with gr.Column(scale=5, min_width=320):
            gr.Markdown(text("chosen"), elem_classes="es-title")
            chosen = gr.HTML(js_on_load=_PICK, elem_id="chosen")
            use = gr.Button(text("use_models"), variant="primary", elem_id="use-models")
            fits = gr.HTML(elem_id="fits")
    load = Context.root_block.load
    wires.on(load, enter, picked, [here, chosen], concurrency_limit=20)
    wires.on(load, find_on_hub, [query, picked], hub)
    wires.on(
        query.input, find, [query, picked], here, trigger_mode="always_last", concurrency_limit=20
    )
    wires.on(query.input, find_on_hub, [query, picked], hub, trigger_mode="always_last")
    changed = wires.on(
        [here.click, hub.click, chosen.click], pick, picked, [picked, chosen], concurrency_limit=20
    )
    wires.then(changed.success, look, picked, fits, shown="full")
    wires.on(tab.select, look, picked, fits, shown="full")
    return Models(picked, use)


def hand_over(wires: Wires, made: Models, recipe: editor.Editor, tabs: gr.Tabs) -> None:
    """Have the button put what is chosen into the recipe, and show that."""

    def use(visit: Visit, picked: dict[str, Any], *given: Any) -> list[Any]:
        base, sources = picked["base"] or None, picked["sources"]
        return [*editor.with_models(visit, base, sources, *given), gr.update(selected="evolve")]

    wires.on(made.use.click, use, [made.picked, *recipe.given], [*recipe.all, tabs])


# ── shelves ───────────────────────────────────────────────────────────────────────────────────


def enter(visit: Visit, picked: dict[str, Any]) -> list[str]:
    """What a fresh page shows: all that is on this machine."""
    chosen = cards.chosen(picked["base"], picked["sources"], visit.language)
    return [find(visit, "", picked), chosen]


def on_this_machine(visit: Visit) -> list[search.Found]:
    """The models that a visitor may choose here: in public the bundled ones alone."""
    if visit.who.public:
        return search.bundled()
    return [
        *search.bundled(),
        *search.here(workspace() / "models"),
        *search.here(visit.who.folder("exports"), search.EXPORTED),
        *search.cached(),
    ]


def find(visit: Visit, query: str, picked: dict[str, Any]) -> str:
    """The cards that a search leaves of this machine's models."""
    query = (query or "").strip()[:200]
    found = search.matching(on_this_machine(visit), query)
    if not found and query and not visit.who.public and Path(query).expanduser().exists():
        found = search.here(Path(query).expanduser())
    if not found:
        return empty(visit.say("no_model_here", query=query))
    return cards.shelf(found, picked["base"], picked["sources"], visit.language)


def find_on_hub(visit: Visit, query: str, picked: dict[str, Any]) -> str:
    """The hub's cards; in public those of the list of models that are offered."""
    query = (query or "").strip()[:200]
    try:
        found = _of_hub(visit, query)
    except StudioError as error:
        typed = search.typed(query)
        shown = cards.shelf(typed, picked["base"], picked["sources"], visit.language)
        return shown + empty(translate(visit.language, str(error)))
    if found is None:
        return empty(visit.say("search_hub"))
    if not found:
        return empty(visit.say("no_model_hub", query=query)) if query else ""
    shown = cards.shelf(found, picked["base"], picked["sources"], visit.language)
    return f'<h3 class="es-title">{esc(visit.say("on_hub"))}</h3>{shown}'


def _of_hub(visit: Visit, query: str) -> list[search.Found] | None:
    if visit.who.public:
        offered = [name for name in allowed_models() if name not in bundled()]
        return search.matching(search.of_names(offered), query)
    if len(query) < ENOUGH:
        return None
    found = search.on_hub(query)
    names = {model.name for model in found}
    return [*(model for model in search.typed(query) if model.name not in names), *found]


# ── choosing ──────────────────────────────────────────────────────────────────────────────────


def pick(visit: Visit, picked: dict[str, Any]) -> list[Any]:
    """Choose a model as base or source, or no longer; the event says which."""
    role, name = visit.event.get("role"), visit.event.get("name")
    if role not in ("base", "source") or not isinstance(name, str) or len(name) > 500:
        return [gr.skip(), gr.skip()]
    base, sources = picked["base"], list(picked["sources"])
    if role == "base":
        base = "" if name == base else name
    elif name in sources:
        sources.remove(name)
    else:
        sources.append(name)
    now = {"base": base, "sources": sources}
    return [now, cards.chosen(base, sources, visit.language)]


def look(visit: Visit, picked: dict[str, Any]) -> str:
    """What of the chosen fits together, and the memory that merging them takes."""
    base, sources = picked["base"] or None, picked["sources"]
    if not sources:
        return ""
    try:
        recipe = Recipe.from_dict(editor.with_models_in(form.default_recipe(), base, sources))
    except StudioError as error:
        return empty(translate(visit.language, str(error)))
    return of_recipe(visit, recipe)


def of_recipe(visit: Visit, recipe: Recipe) -> str:
    """The cards of a recipe's models, and what the recipe takes."""
    visit.who.recipe_models(store(), recipe)
    engine()
    models = api.cards(recipe, store())
    shown = "".join(cards.card(one, visit.language) for one in models)
    try:
        memory = cards.memory_table(api.memory(recipe), visit.language)
    except StudioError as error:
        memory = empty(translate(visit.language, str(error)))
    return f'<div class="es-models">{shown}</div>{cards.licence(models, visit.language)}{memory}'


def beside(
    wires: Wires, inputs: Sequence[gr.components.Component], recipe_of: Callable[..., Recipe]
) -> None:
    """A closed card with the models and the memory of a recipe, looked up when it is opened.

    Args:
        inputs: what ``recipe_of`` takes.
    """
    with gr.Accordion(text("models"), open=False, elem_id="models") as accordion:
        shown = gr.HTML(elem_id="model-cards")
    wires.on(
        accordion.expand,
        lambda visit, *given: of_recipe(visit, recipe_of(*given)),
        list(inputs),
        shown,
        shown="full",
    )
