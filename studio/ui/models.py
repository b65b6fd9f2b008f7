"""What the recipe's models are, under the form: cards, whether each fits the base, and the memory.

Looked up only once somebody opens it, since opening a model can mean downloading it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio import api
from studio.errors import StudioError
from studio.recipe import Recipe
from studio.ui.markup import esc
from studio.ui.pieces import empty
from studio.ui.shared import engine, store
from studio.ui.strings import say, text
from studio.ui.wiring import Visit, Wires


def build(wires: Wires) -> None:
    """Lay the Models tab out."""


def of_recipe(
    wires: Wires, inputs: Sequence[gr.components.Component], recipe_of: Callable[..., Recipe]
) -> gr.Accordion:
    """The closed card, which shows the recipe in view whenever it is opened.

    Args:
        inputs: what ``recipe_of`` takes.
    """
    with gr.Accordion(text("models"), open=False, elem_id="models") as accordion:
        shown = gr.HTML(elem_id="model-cards")

    def show(visit: Visit, *given: Any) -> str:
        return look(visit, recipe_of(*given))

    wires.on(accordion.expand, show, list(inputs), shown, shown="full")
    return accordion


def look(visit: Visit, recipe: Recipe) -> str:
    """The cards of a recipe's models, and what the recipe takes."""
    visit.who.recipe_models(store(), recipe)
    language = visit.language
    engine()
    cards = "".join(card(one, language) for one in api.cards(recipe, store()))
    try:
        memory = memory_table(api.memory(recipe), language)
    except StudioError as error:  # the cards say more than why there is no plan
        memory = empty(str(error))
    return f'<div class="es-models">{cards}</div>{memory}'


def card(one: dict[str, Any], language: str) -> str:
    """One model, or why it cannot be opened."""
    role = esc(say(language, f"role_{one['role']}"))
    on = f" · LoRA + {esc(one['base'])}" if one.get("base") else ""
    head = f"<header><b>{esc(one['name'])}</b> <span>{role}{on}</span></header>"
    if one.get("error"):
        return f'<section class="es-model">{head}<p class="no">{esc(one["error"])}</p></section>'
    quantized = f"{one['stored']} → " if one["kind"] == "gguf" else ""
    tied = say(language, "tied") if one["tied"] else ""
    facts = {
        "architecture": one["architecture"].removesuffix("ForCausalLM"),
        "length": one["layers"],
        "hidden": f"{one['hidden']:,}",
        "vocabulary": f"{one['vocab']:,}",
        "parameters": f"{one['parameters'] / 1e6:,.1f} M {tied}",
        "dtype": f"{quantized}{one['dtype']}",
        "size": f"{one['size'] / 1e6:,.1f} MB",
        "vision": (one.get("vision") or "").removesuffix("ForConditionalGeneration"),
        "licence": one["licence"] or say(language, "not_stated"),
    }
    cells = "".join(
        f"<div><dt>{esc(say(language, key))}</dt><dd>{esc(value)}</dd></div>"
        for key, value in facts.items()
        if key != "vision" or value  # a language model sees with nothing
    )
    fits = ""
    if one.get("fits"):
        fits = f'<p class="yes">✓ {esc(say(language, "fits"))}</p>'
    elif one.get("why"):
        fits = f'<p class="no">✗ {esc(one["why"])}</p>'
    return f'<section class="es-model">{head}<dl>{cells}</dl>{fits}</section>'


def memory_table(rows: Sequence[dict[str, Any]], language: str) -> str:
    """What the recipe takes at each precision."""
    body = "".join(
        f'<tr><th scope="row">{esc(row["precision"])}</th>'
        f'<td class="number">{row["bytes"] / 1e9:,.2f} GB</td>'
        f'<td class="number">{esc(row["batch"] or say(language, "does_not_fit"))}</td></tr>'
        for row in rows
    )
    head = "".join(
        f'<th scope="col"{extra}>{esc(say(language, key))}</th>'
        for key, extra in (
            ("precision", ""),
            ("memory", ' class="number"'),
            ("at_a_time", ' class="number"'),
        )
    )
    return (
        f'<figure class="es-figure"><figcaption>{esc(say(language, "memory_here"))}</figcaption>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></figure>"
    )
