"""The Evolve tab: a recipe on the left, the run that is being watched on the right.

The form and the YAML are two views of one recipe; whichever is open is what Start uses, and
changing the view carries the other along. The form shows what applies to the chosen space; the rest
of the recipe stays as the YAML has it. The evolution itself runs in a worker process: this tab
starts and stops it, and otherwise only reads the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import yaml

from studio import api
from studio.errors import StudioError
from studio.models.sources import bundled
from studio.recipe import PROPERTIES, DataFlow, MethodName, Parameter, Recipe
from studio.runs import Candidate
from studio.tasks import objective_names
from studio.ui import models, pieces, plots, words
from studio.ui.markup import percent
from studio.ui.shared import engine, metric_of, metrics, run_choices, store
from studio.ui.strings import say, text
from studio.ui.wiring import Look, Panel, Visit, Wires, warn
from studio.workspace import ASSETS

#: Rows of the candidate table: beyond these nobody reads, and every poll would carry them.
SHOWN = 200
#: Tasks that need or take options; for the others the form has no such field.
WITH_OPTIONS = ("csv",)
#: The form's fields, in the order in which their values go around.
FIELDS = (
    "name", "space", "sources", "base", "objectives", "options", "examples", "budget", "population",
    "method", "granularity", "repeats", "scaling", "max_length", "lenders", "scheme", "optimizer",
    "seed", "precision", "vocabulary", "baseline",
)  # fmt: skip
METHOD_NAMES = {
    "dare_ties": "DARE-TIES",
    "dare_linear": "DARE linear",
    "ties": "TIES",
    "task_arithmetic": "task arithmetic",
    "linear": "linear",
    "slerp": "SLERP",
}
RECIPES = ASSETS.parent / "recipes"
FIRST_PRESET = "jmath"


@dataclass(frozen=True)
class Evolve:
    """What other parts of the page wire up."""

    panels: list[Panel]


def presets() -> dict[str, Recipe]:
    """The recipes that come with the Studio and need no file of the user's, by file name."""
    found = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        try:
            recipe = Recipe.load(path)
        except StudioError:  # somebody is writing it
            continue
        if not any(item.task in WITH_OPTIONS for item in [*recipe.objectives, *recipe.report]):
            found[path.stem] = recipe
    return found


def default_recipe() -> Recipe:
    """What the form shows at first: Japanese math from the bundled models, in minutes."""
    return Recipe.load(RECIPES / f"{FIRST_PRESET}.yaml")


def build(wires: Wires, run: gr.Dropdown) -> Evolve:
    """Lay the tab out; ``run`` is the page's run picker."""
    recipe = default_recipe()
    with gr.Row(elem_classes="es-columns"):
        with gr.Column(scale=5, min_width=320, elem_classes="es-panel"):
            preset = gr.Dropdown(
                [(found.name, key) for key, found in presets().items()],
                value=FIRST_PRESET,
                label=text("preset"),
                elem_id="preset",
            )
            with gr.Tabs():
                with gr.Tab(text("form"), id="form") as form_tab:
                    fields = _form(recipe)
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
            gr.Code(
                "python -m studio evolve recipe.yaml",
                language="shell",
                label=text("command"),
                interactive=False,
                lines=1,
                show_line_numbers=False,
                elem_id="command",
            )
            form = [fields[key] for key in FIELDS]
            models.of_recipe(wires, [view, code, *form], in_view)
        with gr.Column(scale=7, min_width=320):
            status = gr.HTML(elem_id="status")
            with gr.Row(elem_classes="es-buttons"):
                stop = gr.Button(text("stop"), variant="stop", size="sm", elem_id="stop")
                resume = gr.Button(text("resume"), size="sm", elem_id="resume")
            curve = gr.HTML(elem_id="curve")
            table = gr.Dataframe(
                headers=["#", "", "", "%", ""],
                interactive=False,
                max_height=320,
                label=text("candidates"),
                show_label=True,
                elem_id="candidates",
                buttons=[],
            )
    wires.on(yaml_tab.select, to_yaml, [code, *form], [code, view])
    wires.on(form_tab.select, to_form, [code], [*form, view])
    wires.on(preset.input, fill, preset, [*form, code])
    wires.on(
        [fields["space"].input, fields["objectives"].input],
        fit,
        [fields[key] for key in ("space", "objectives", "optimizer")],
        form,
    )
    wires.on(
        start.click,
        begin,
        [view, code, *form],
        run,
        shown="minimal",
        show_progress_on=[start],
    )
    wires.on(stop.click, pause, run, None)
    wires.on(resume.click, go_on, run, None)
    panel = Panel(
        name="monitor",
        parts=[status, curve, table, stop, resume],
        key=lambda look: (
            look.run.version,
            look.progress.state,
            getattr(look.progress, "position", None),
        ),
        draw=draw,
        blank=_blank,
    )
    return Evolve([panel])


def _blank(language: str) -> list[Any]:
    off = gr.update(interactive=False)
    return [pieces.empty(say(language, "no_run")), "", gr.update(value=[]), off, off]


# ── the form ──────────────────────────────────────────────────────────────────────────────────


def _form(recipe: Recipe) -> dict[str, gr.components.Component]:
    """The form's fields, by the names in `FIELDS`, showing a recipe."""
    models = bundled()
    values = dict(zip(FIELDS, _fields(recipe), strict=True))
    looks = _looks(values["space"], values["objectives"])
    made: dict[str, gr.components.Component] = {}

    def add(kind: type, key: str, **options: Any) -> None:
        shown = {"value": values[key], "label": text(key)} | options | looks.get(key, {})
        made[key] = kind(elem_id=f"field-{key}", **shown)

    def number(key: str, minimum: int, **options: Any) -> None:
        add(gr.Number, key, precision=0, minimum=minimum, min_width=120, **options)

    def choice(key: str, choices: list[Any], **options: Any) -> None:
        add(gr.Dropdown, key, choices=choices, **options)

    add(gr.Textbox, "name", max_lines=1)
    add(
        gr.Radio,
        "space",
        choices=[(text(key), key) for key in ("parameter", "data_flow", "both")],
        info=text("space_info"),
    )
    choice("sources", models, multiselect=True, allow_custom_value=True)
    choice("base", models, allow_custom_value=True, info=text("base_info"))
    add(gr.Dropdown, "objectives", multiselect=True, info=text("objectives_info"))
    add(gr.Textbox, "options", info=text("options_info"), lines=2)
    with gr.Row():
        number("examples", 1)
        number("budget", 1)
        number("population", 4)
    with gr.Row():
        methods = [(METHOD_NAMES.get(key, key), key) for key in get_args(MethodName)]
        choice("method", methods, min_width=150)
        sizes = ["1", "2", "4", "8", (text("whole_model"), "all")]
        choice("granularity", sizes, allow_custom_value=True, min_width=120)
    with gr.Row():
        number("repeats", 1)
        scalings = [(text("automatic"), "auto"), (text("scale_matrix"), "matrix"),
                    (text("scale_network"), "network"), (text("off"), "off")]  # fmt: skip
        choice("scaling", scalings, min_width=150)
        number("max_length", 2, placeholder="∞")
    with gr.Row():
        choice(
            "lenders",
            models,
            multiselect=True,
            allow_custom_value=True,
            info=text("lenders_info"),
            min_width=240,
        )
        schemes = [(text("scheme_joint"), "joint"), (text("scheme_paper"), "paper")]
        choice("scheme", schemes, min_width=240)
    with gr.Row():
        add(gr.Dropdown, "optimizer", min_width=150)
        number("seed", 0)
    with gr.Row():
        bits = {"fp32": 32, "bf16": 16, "int8": 8, "nf4": 4}
        choice("precision", [(f"{key} ({n} bit)", key) for key, n in bits.items()], min_width=150)
        vocabularies = [(text(f"vocabulary_{key}"), key) for key in ("same", "base", "union")]
        choice("vocabulary", vocabularies, allow_custom_value=True, min_width=150)
    add(gr.Checkbox, "baseline", container=False)
    return made


def _looks(space: str, objectives: list[str], optimizer: str = "") -> dict[str, dict[str, Any]]:
    """What a space and its objectives make of the other fields: shown or not, and the choices."""
    paths, mixes = space != "parameter", space != "data_flow"
    tasks = [name for name in objectives if name not in PROPERTIES]
    few = [(text("few_layers"), "length"), (text("few_parameters"), "parameters")]
    named = list(dict.fromkeys([*objective_names(), *tasks]))  # a YAML may have 'csv (2)'
    optimizers = [(text("automatic"), "auto"), (text("random"), "random")]
    if len(objectives) > 1:
        optimizers.insert(1, ("NSGA-II", "nsga2"))
    else:
        optimizers[1:1] = [("CMA-ES", "cma"), ("CMA-ES with margin", "cmaes")]
    looks: dict[str, dict[str, Any]] = {
        "sources": {"info": text("sources_info" if mixes else "sources_info_paths")},
        "objectives": {"choices": [*((name, name) for name in named), *(few if paths else [])]},
        "options": {"visible": any(name in WITH_OPTIONS for name in objectives)},
        "optimizer": {"choices": optimizers},
        "scheme": {"visible": space == "both" and len(tasks) > 1},
        "lenders": {"visible": space == "both"},
    }
    looks |= {key: {"visible": mixes} for key in ("method", "granularity", "vocabulary")}
    looks |= {key: {"visible": paths} for key in ("repeats", "scaling", "max_length")}
    if not paths and tasks != objectives:  # every mix of weights has the same length
        looks["objectives"]["value"] = tasks
    if optimizer and optimizer not in dict(optimizers).values():
        looks["optimizer"]["value"] = "auto"
    return looks


def fit(visit: Visit, space: str, objectives: list[str], optimizer: str) -> list[Any]:
    """The form after a change of space or objectives: only the fields that apply."""
    looks = _looks(space, objectives or [], optimizer)
    return [gr.update(**looks[key]) if key in looks else gr.skip() for key in FIELDS]


def _fields(recipe: Recipe) -> list[Any]:
    """A recipe's values in the order of `FIELDS`."""
    space = recipe.space
    mixing = {"parameter": space, "both": getattr(space, "parameter", None)}.get(space.type)
    paths = {"data_flow": space, "both": getattr(space, "data_flow", None)}.get(space.type)
    mixing, paths = mixing or Parameter(), paths or DataFlow()
    with_options = next(
        (o for o in recipe.objectives if o.task in WITH_OPTIONS and o.options), None
    )
    options = yaml.safe_dump(with_options.options, allow_unicode=True) if with_options else ""
    automatic = "nsga2" if len(recipe.objectives) > 1 else "cma"
    optimizer = recipe.search.optimizer
    values = {
        "name": recipe.name,
        "space": space.type,
        "sources": recipe.sources,
        "base": recipe.base or "",
        "objectives": recipe.objective_names(),
        "options": options.strip(),
        "examples": _examples(recipe),
        "budget": recipe.budget.candidates,
        "population": recipe.search.population,
        "method": mixing.method,
        "granularity": str(mixing.layer_granularity),
        "repeats": paths.repeats,
        "scaling": paths.scaling,
        "max_length": paths.max_length,
        "lenders": paths.sources or [],
        "scheme": recipe.search.scheme,
        "optimizer": "auto" if optimizer == automatic else optimizer,
        "seed": recipe.seed,
        "precision": recipe.precision,
        "vocabulary": recipe.vocabulary,
        "baseline": recipe.search.random_baseline,
    }
    return [values[key] for key in FIELDS]


def _examples(recipe: Recipe) -> int | None:
    """The form has one number for all tasks: the first one's."""
    return next(item.examples for item in recipe.objectives if item.task)


def overlay(text_: str, *fields: Any) -> Recipe:
    """The YAML's recipe with the form's values written over it.

    What the form does not show (filters, batch size, report, …) stays as the YAML has it.

    Raises:
        StudioError: the YAML or a field is wrong.
    """
    given = dict(zip(FIELDS, fields, strict=True))
    try:
        before = Recipe.from_yaml(text_)
    except StudioError:
        # The form is in view: a slip in the YAML behind it must not stand in the way.
        before = default_recipe()
    document = before.model_dump(mode="json")
    document |= {
        "name": given["name"] or "untitled",
        "sources": list(given["sources"] or []),
        "base": given["base"] or None,
        "objectives": _objectives(before, given),
        "space": _space(document["space"], given),
        "precision": given["precision"],
        "vocabulary": given["vocabulary"] if given["space"] != "data_flow" else "same",
    }
    tasks = [name for name in given["objectives"] or [] if name not in PROPERTIES]
    several = given["space"] == "both" and len(tasks) > 1
    document["search"] |= {
        "random_baseline": given["baseline"],
        "optimizer": None if given["optimizer"] == "auto" else given["optimizer"],
        "scheme": given["scheme"] if several else "joint",
    }
    _put(document["budget"], "candidates", given["budget"])
    _put(document["search"], "population", given["population"])
    _put(document, "seed", given["seed"])
    return Recipe.from_dict(document)


def _put(section: dict[str, Any], key: str, value: Any) -> None:
    """An emptied number means "the default", as leaving the field out of the YAML does."""
    section[key] = value
    if value is None:
        del section[key]


def _objectives(before: Recipe, given: dict[str, Any]) -> list[dict[str, Any]]:
    """The chosen objectives; those that the YAML has keep what the form does not say of them."""
    items = [item.model_dump(mode="json") for item in before.objectives]
    known = dict(zip(before.objective_names(), items, strict=True))
    changed = given["examples"] != _examples(before)
    chosen = []
    for name in given["objectives"] or []:
        if name in PROPERTIES:
            chosen.append({"property": name})
            continue
        item = dict(known.get(name) or {"task": name})
        if changed or name not in known:
            item["examples"] = given["examples"]
        if name in WITH_OPTIONS:
            item["options"] = _options(given["options"])
        chosen.append(item)
    return chosen


def _space(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The chosen space's section; of the one before, whatever belongs to it as well."""
    kind = before["type"]
    mixing = before if kind == "parameter" else before.get("parameter", {})
    paths = before if kind == "data_flow" else before.get("data_flow", {})
    whole = str(given["granularity"]).strip()
    mixing = mixing | {
        "type": "parameter",
        "method": given["method"],
        "layer_granularity": int(whole) if whole.isdecimal() else whole,
    }
    # a model that is no source any more lends no layers either
    lenders = [name for name in given["lenders"] or [] if name in (given["sources"] or [])]
    paths = paths | {
        "type": "data_flow",
        "scaling": given["scaling"],
        "max_length": given["max_length"],
        "sources": lenders or None,
    }
    _put(paths, "repeats", given["repeats"])
    sections = {"parameter": mixing, "data_flow": paths}
    return sections.get(given["space"]) or {"type": given["space"], **sections}


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


def to_yaml(visit: Visit, text_: str, *fields: Any) -> tuple[str, str]:
    """The YAML view of what the form says; where that is not valid, the YAML as it was."""
    try:
        return overlay(text_, *fields).to_yaml(), "yaml"
    except StudioError as error:
        warn(visit, error)
        return text_, "yaml"


def to_form(visit: Visit, text_: str) -> list[Any]:
    """The form view of what the YAML says; of a YAML that cannot be read, the form as it was."""
    try:
        recipe = Recipe.from_yaml(text_)
    except StudioError as error:
        warn(visit, error)
        return [*[gr.skip()] * len(FIELDS), "form"]
    return [*_shown(recipe), "form"]


def _shown(recipe: Recipe) -> list[Any]:
    """The form's fields changed to show a recipe."""
    values = dict(zip(FIELDS, _fields(recipe), strict=True))
    looks = _looks(values["space"], values["objectives"])
    return [gr.update(**{"value": values[key]} | looks.get(key, {})) for key in FIELDS]


def fill(visit: Visit, preset: str) -> list[Any]:
    """Form and YAML of one of the recipes that come with the Studio."""
    recipe = Recipe.load(RECIPES / f"{Path(preset).name}.yaml")
    return [*_shown(recipe), recipe.to_yaml()]


def in_view(view: str, text_: str, *fields: Any) -> Recipe:
    """The recipe that the form or the YAML shows, whichever is open.

    Raises:
        StudioError: it is wrong.
    """
    return overlay(text_, *fields) if view == "form" else Recipe.from_yaml(text_)


def begin(visit: Visit, view: str, text_: str, *fields: Any) -> Any:
    """Start the recipe in view; the page then watches it."""
    recipe = visit.who.recipe(store(), in_view(view, text_, *fields))
    engine()
    run = api.start(recipe, store(), owner=visit.who.owner)
    return gr.update(choices=run_choices(visit.who.runs(store())), value=run)


def pause(visit: Visit, run: str | None) -> None:
    """Ask the run to stop before its next token, and free what it holds."""
    api.stop(visit.who.mine(store(), run).id, store())


def go_on(visit: Visit, run: str | None) -> None:
    """Go on with a run that was stopped or interrupted."""
    api.restart(visit.who.mine(store(), run).id, store())


# ── watching ──────────────────────────────────────────────────────────────────────────────────


def buttons(state: str) -> tuple[Any, Any]:
    """Stop and Resume, each only while it can do something."""
    return (
        gr.update(interactive=state in ("running", "queued")),
        gr.update(interactive=state in ("interrupted", "stopped", "failed")),
    )


def draw(look: Look) -> list[Any]:
    """The run's status, curve and candidate table, and what can be done with it."""
    progress, language = look.progress, look.visit.language
    run = progress.run.id
    recipe = Recipe.from_yaml(progress.run.recipe)
    several = len(_tasks(recipe)) > 1
    return [
        pieces.status(progress, language, mean=several, metric=_metric(recipe)),
        _curves(run, recipe, language),
        _table(run, recipe, language),
        *buttons(progress.state),
    ]


def _tasks(recipe: Recipe) -> list[str]:
    return [name for name in recipe.objective_names() if name not in PROPERTIES]


def _metric(recipe: Recipe) -> str:
    """What the mean over a recipe's tasks is: their metric or, of different ones, a mean."""
    found = {metric_of(recipe.to_yaml(), task) for task in _tasks(recipe)}
    return found.pop() if len(found) == 1 else words.MEAN


def _curves(run: str, recipe: Recipe, language: str) -> str:
    """The best score of every stage and, of several objectives, what the front covers."""
    found = api.curve(run, store())
    if not found:
        return pieces.empty(say(language, "waiting"))
    several = len(_tasks(recipe)) > 1
    drawn = plots.curve(
        _lines(recipe, found, language),
        _references(run, _tasks(recipe)),
        total=recipe.budget.candidates,
        title=say(language, "curve_mean" if several else "curve"),
        x_label=say(language, "curve_x"),
        y_label=_y_label(_metric(recipe), language),
    )
    covered = _covered(run, recipe)
    if covered:
        drawn += plots.curve(
            _lines(recipe, covered, language),
            {},
            total=recipe.budget.candidates,
            title=say(language, "curve_hypervolume"),
            x_label=say(language, "curve_x"),
            y_label=say(language, "curve_y_hypervolume"),
        )
    return drawn


def _y_label(metric: str, language: str) -> str:
    right = metric == words.ACCURACY
    return say(language, "curve_y") if right else words.metric(language, metric)


def _lines(
    recipe: Recipe, found: dict[str, list[tuple[int, float]]], language: str
) -> list[plots.Line]:
    """A line per stage: the baseline's are grey, those that only lead to another stage thin."""
    return [
        plots.Line(
            words.stage(language, stage.name),
            ("other" if stage.baseline else "main") + ("" if stage.final else " early"),
            found[stage.name],
        )
        for stage in recipe.stages()
        if stage.name in found
    ]


def _references(run: str, tasks: list[str]) -> dict[str, float]:
    """The mean over the tasks of each model that the search's questions were put to."""
    scores: dict[str, list[float]] = {}
    for evaluation in store().evaluations(run, "dev"):
        if evaluation.subject.startswith("model:") and evaluation.task in tasks:
            name = evaluation.subject.partition(":")[2]
            scores.setdefault(name, []).append(evaluation.score)
    return {k: sum(v) / len(v) for k, v in scores.items() if len(v) == len(tasks)}


def _covered(run: str, recipe: Recipe) -> dict[str, list[tuple[int, float]]]:
    """The hypervolume over the candidates scored: of final stages, which have all objectives."""
    final = {stage.name for stage in recipe.stages() if stage.final}
    asked = {name: [c.generation for c in store().candidates(run, name)] for name in final}
    lines: dict[str, list[tuple[int, float]]] = {}
    for event in store().events(run):
        if event.kind == "front" and event.payload["stage"] in final:
            name, generation = event.payload["stage"], event.payload["generation"]
            count = sum(other <= generation for other in asked[name])
            lines.setdefault(name, []).append((count, event.payload["hypervolume"]))
    return lines


def _table(run: str, recipe: Recipe, language: str) -> Any:
    scored = store().ranked(run)
    names, tasks = recipe.objective_names(), _tasks(recipe)
    several = len(names) > 1
    columns = [
        (say(language, "col_id"), "number", lambda c: c.id),
        (say(language, "col_generation"), "number", lambda c: c.generation),
        (say(language, "col_search"), "str", lambda c: words.stage(language, c.stage)),
    ]
    if several:
        known = metrics(recipe.to_yaml())
        columns += [
            (words.objective(language, name, known.get(name, words.ACCURACY)), "number", value)
            for name, value in zip(names, map(_value_of, names), strict=True)
        ]
    if len(tasks) > 1 or not several:
        head = say(language, "col_mean" if several else "col_score")
        if _metric(recipe) != words.ACCURACY:
            head = words.metric(language, _metric(recipe))
        columns.append((head, "number", lambda c: float(percent(c.score))))
    columns.append((say(language, "tokens_s"), "number", _speed))
    label = say(language, "candidates")
    if len(scored) > SHOWN:
        label = say(language, "table_note", shown=SHOWN, n=len(scored))
    return gr.update(
        value={
            "headers": [head for head, _, _ in columns],
            "data": [[value(c) for _, _, value in columns] for c in scored[:SHOWN]],
        },
        datatype=[kind for _, kind, _ in columns],
        label=label,
    )


def _value_of(objective: str) -> Callable[[Candidate], float | None]:
    """A candidate's value for the table: nothing where its stage has no such objective."""

    def value(candidate: Candidate) -> float | None:
        found = candidate.scores.get(objective)
        if found is None:
            return None
        return round(found) if objective in PROPERTIES else float(percent(found))

    return value


def _speed(candidate: Candidate) -> int:
    """Tokens per second."""
    return round(candidate.tokens / candidate.seconds) if candidate.seconds else 0
