"""The Evolve tab: a recipe on the left, the run that is being watched on the right.

The form and the YAML are two views of one recipe; whichever is open is what Start uses, and
changing the view carries the other along. The evolution itself runs in a worker process: this tab
starts and stops it, and otherwise only reads the store.
"""

from dataclasses import dataclass
from typing import Any, get_args

import gradio as gr
import yaml

from studio import api
from studio.errors import StudioError
from studio.models.sources import bundled
from studio.recipe import MethodName, Recipe
from studio.runs import Progress
from studio.tasks import objective_names
from studio.ui import pieces, plots
from studio.ui.shared import engine, esc, percent, run_choices, store, toast
from studio.ui.strings import say, text
from studio.workspace import ASSETS

#: Rows of the candidate table: beyond these nobody reads, and every poll would carry them.
SHOWN = 200
#: Tasks that need or take options; for the others the form has no such field.
WITH_OPTIONS = ("csv",)
#: Fields of the form, in the order of `_fields`.
FIELDS = 12
METHOD_NAMES = {
    "dare_ties": "DARE-TIES",
    "dare_linear": "DARE linear",
    "ties": "TIES",
    "task_arithmetic": "task arithmetic",
    "linear": "linear",
    "slerp": "SLERP",
}


@dataclass(frozen=True)
class Evolve:
    """The tab's components that other parts of the page wire up."""

    form: list[gr.components.Component]
    yaml: gr.Code
    view: gr.State
    start: gr.Button
    command: gr.Code
    status: gr.HTML
    curve: gr.HTML
    table: gr.Dataframe
    stop: gr.Button
    resume: gr.Button


def default_recipe() -> Recipe:
    """What the form shows at first: Japanese math from the bundled models, in minutes."""
    return Recipe.load(ASSETS.parent / "recipes" / "jmath.yaml")


def build() -> Evolve:
    """Lay the tab out."""
    recipe = default_recipe()
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="es-panel"):
            with gr.Tabs():
                with gr.Tab(text("form"), id="form") as form_tab:
                    form = _form(recipe)
                with gr.Tab(text("yaml"), id="yaml") as yaml_tab:
                    code = gr.Code(
                        recipe.to_yaml(),
                        language="yaml",
                        label="recipe.yaml",
                        interactive=True,
                        lines=22,
                        max_lines=34,
                        elem_id="recipe-yaml",
                    )
            view = gr.State("form")
            start = gr.Button(text("start"), variant="primary", elem_id="start")
            command = gr.Code(
                "python -m studio evolve recipe.yaml",
                language="shell",
                label=text("command"),
                interactive=False,
                lines=1,
                show_line_numbers=False,
                elem_id="command",
            )
        with gr.Column(scale=7, min_width=320):
            status = gr.HTML(elem_id="status")
            with gr.Row(elem_classes="es-buttons"):
                stop = gr.Button(text("stop"), variant="stop", size="sm", elem_id="stop")
                resume = gr.Button(text("resume"), size="sm", elem_id="resume")
            curve = gr.HTML(elem_id="curve")
            table = gr.Dataframe(
                headers=["#", "", "", "%", ""],
                datatype=["number", "number", "str", "number", "number"],
                interactive=False,
                max_height=320,
                label=text("candidates"),
                show_label=True,
                elem_id="candidates",
                buttons=[],
            )
    tab = Evolve(form, code, view, start, command, status, curve, table, stop, resume)
    yaml_tab.select(
        toast(to_yaml),
        [code, *form],
        [code, view],
        show_progress="hidden",
        api_visibility="private",
    )
    form_tab.select(
        toast(to_form), [code], [*form, view], show_progress="hidden", api_visibility="private"
    )
    form[3].input(
        lambda task: gr.update(visible=task in WITH_OPTIONS),
        form[3],
        form[4],
        show_progress="hidden",
        api_visibility="private",
    )
    return tab


def _form(recipe: Recipe) -> list[gr.components.Component]:
    """The form's fields, in the order of :func:`_fields`."""
    models = bundled()
    name = gr.Textbox(recipe.name, label=text("name"), max_lines=1, elem_id="field-name")
    sources = gr.Dropdown(
        models,
        value=recipe.sources,
        multiselect=True,
        allow_custom_value=True,
        label=text("sources"),
        info=text("sources_info"),
        elem_id="field-sources",
    )
    with gr.Row():
        base = gr.Dropdown(
            models,
            value=recipe.base,
            allow_custom_value=True,
            label=text("base"),
            info=text("base_info"),
            min_width=200,
            elem_id="field-base",
        )
        task = gr.Dropdown(
            objective_names(),
            value=recipe.objectives[0].task,
            label=text("task"),
            info=text("task_info"),
            min_width=200,
            elem_id="field-task",
        )
    options = gr.Textbox(
        label=text("options"),
        info=text("options_info"),
        lines=2,
        visible=False,
        elem_id="field-options",
    )
    with gr.Row():
        examples = _number("examples", recipe.objectives[0].examples, 1)
        budget = _number("budget", recipe.budget.candidates, 1)
        population = _number("population", recipe.search.population, 4)
    with gr.Row():
        method = gr.Dropdown(
            [(METHOD_NAMES.get(key, key), key) for key in get_args(MethodName)],
            value=recipe.space.method,
            label=text("method"),
            min_width=150,
            elem_id="field-method",
        )
        granularity = gr.Dropdown(
            ["1", "2", "4", "8", (text("whole_model"), "all")],
            value=str(recipe.space.layer_granularity),
            allow_custom_value=True,
            label=text("granularity"),
            min_width=120,
            elem_id="field-granularity",
        )
        seed = _number("seed", recipe.seed, 0)
    baseline = gr.Checkbox(
        recipe.search.random_baseline,
        label=text("baseline"),
        container=False,
        elem_id="field-baseline",
    )
    return [
        name, sources, base, task, options, examples, budget, method, granularity, population, seed,
        baseline,
    ]  # fmt: skip


def _number(key: str, value: int | None, minimum: int) -> gr.Number:
    return gr.Number(
        value,
        label=text(key),
        precision=0,
        minimum=minimum,
        min_width=120,
        elem_id=f"field-{key}",
    )


def _fields(recipe: Recipe) -> list[Any]:
    """A recipe's values in the order of the form."""
    objective = recipe.objectives[0]
    options = yaml.safe_dump(objective.options, allow_unicode=True) if objective.options else ""
    return [
        recipe.name, recipe.sources, recipe.base or "", objective.task, options.strip(),
        objective.examples, recipe.budget.candidates, recipe.space.method,
        str(recipe.space.layer_granularity), recipe.search.population, recipe.seed,
        recipe.search.random_baseline,
    ]  # fmt: skip


def overlay(text_: str, *fields: Any) -> Recipe:
    """The YAML's recipe with the form's values written over it.

    What the form does not show (filters, precision, report, …) stays as the YAML has it.

    Raises:
        StudioError: the YAML or a field is wrong.
    """
    (name, sources, base, task, options, examples, budget, method, granularity, population, seed,
     baseline) = fields  # fmt: skip
    try:
        document = Recipe.from_yaml(text_).model_dump(mode="json")
    except StudioError:
        # The form is in view: a slip in the YAML behind it must not stand in the way.
        document = default_recipe().model_dump(mode="json")
    first = document["objectives"][0]
    given = _options(options) if task in WITH_OPTIONS else {}
    document |= {
        "name": name or "untitled",
        "sources": list(sources or []),
        "base": base or None,
        "seed": seed,
    }
    document["objectives"] = [first | {"task": task, "options": given, "examples": examples}]
    document["budget"] |= {"candidates": budget}
    document["search"] |= {"population": population, "random_baseline": baseline}
    whole = str(granularity).strip()
    document["space"] |= {
        "method": method,
        "layer_granularity": int(whole) if whole.isdecimal() else whole,
    }
    # An emptied number means "the default", as leaving the field out of the YAML does.
    for section, key in (("budget", "candidates"), ("search", "population")):
        if document[section][key] is None:
            del document[section][key]
    if document["seed"] is None:
        del document["seed"]
    return Recipe.from_dict(document)


def _options(given: str) -> dict[str, Any]:
    try:
        options = yaml.safe_load(given or "") or {}
    except (yaml.YAMLError, ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise StudioError(
            "The task options cannot be read; write one `name: value` a line, such as "
            "`path: questions.csv`."
        )
    return options


def to_yaml(text_: str, *fields: Any) -> tuple[str, str]:
    """The YAML view of what the form says; where that is not valid, the YAML as it was."""
    try:
        return overlay(text_, *fields).to_yaml(), "yaml"
    except StudioError as error:
        gr.Warning(esc(error))
        return text_, "yaml"


def to_form(text_: str) -> list[Any]:
    """The form view of what the YAML says; of a YAML that cannot be read, the form as it was."""
    try:
        recipe = Recipe.from_yaml(text_)
    except StudioError as error:
        gr.Warning(esc(error))
        return [*[gr.skip()] * FIELDS, "form"]
    values = _fields(recipe)
    values[4] = gr.update(value=values[4], visible=recipe.objectives[0].task in WITH_OPTIONS)
    return [*values, "form"]


def start(view: str, text_: str, *fields: Any) -> Any:
    """Start the recipe in view; the page then watches it."""
    recipe = overlay(text_, *fields) if view == "form" else Recipe.from_yaml(text_)
    engine()
    run = api.start(recipe, store())
    return gr.update(choices=run_choices(store().runs()), value=run)


def stop(run: str | None) -> None:
    """Ask the run to stop after the candidate in flight."""
    api.stop(_chosen(run), store())


def resume(run: str | None) -> None:
    """Go on with a run that was stopped or interrupted."""
    api.restart(_chosen(run), store())


def _chosen(run: str | None) -> str:
    if not run:
        raise StudioError("No run is chosen; pick one at the top of the page, or start one.")
    return run


# ── watching ──────────────────────────────────────────────────────────────────────────────────


def buttons(state: str) -> tuple[Any, Any]:
    """Stop and Resume, each only while it can do something."""
    return (
        gr.update(interactive=state in ("running", "queued")),
        gr.update(interactive=state in ("interrupted", "stopped", "failed")),
    )


def draw(progress: Progress, language: str) -> tuple[str, str, Any]:
    """The run's status, curve and candidate table."""
    run = progress.run.id
    return (
        pieces.status(progress, language),
        _curve(progress, language),
        _table(run, language),
    )


def _curve(progress: Progress, language: str) -> str:
    run = progress.run
    found = api.curve(run.id, store())
    if not found:
        return pieces.empty(say(language, "waiting"))
    recipe = Recipe.from_yaml(run.recipe)
    lines = [
        plots.Line(
            say(language, "random" if stage == "random" else "evolution"),
            "other" if stage == "random" and len(found) > 1 else "main",
            points,
        )
        for stage, points in found.items()
    ]
    task = recipe.objectives[0].task
    references = {
        evaluation.subject.partition(":")[2]: evaluation.score
        for evaluation in store().evaluations(run.id, "dev")
        if evaluation.subject.startswith("model:") and evaluation.task == task
    }
    return plots.curve(
        lines,
        references,
        total=recipe.budget.candidates,
        title=say(language, "curve"),
        x_label=say(language, "curve_x"),
        y_label=say(language, "curve_y"),
    )


def _table(run: str, language: str) -> Any:
    scored = store().ranked(run)
    names = {"random": say(language, "random")}
    rows = [
        [
            c.id,
            c.generation,
            names.get(c.stage, say(language, "evolution")),
            float(percent(c.score)),
            round(c.tokens / c.seconds) if c.seconds else 0,
        ]
        for c in scored[:SHOWN]
    ]
    keys = ("col_id", "col_generation", "col_search", "col_score", "tokens_s")
    label = say(language, "candidates")
    if len(scored) > SHOWN:
        label = say(language, "table_note", shown=SHOWN, n=len(scored))
    headers = [say(language, key) for key in keys]
    return gr.update(value={"headers": headers, "data": rows}, label=label)
