"""The form: a recipe as fields, and the fields as a recipe.

It shows what applies to the chosen space; the rest of a recipe stays as its YAML has it. Knows the
recipe's fields and Gradio's; refuses to know what follows an edit (`studio.ui.editor`).
"""

from typing import Any, get_args

import gradio as gr
import yaml

from studio.errors import StudioError
from studio.models.sources import bundled
from studio.recipe import PROPERTIES, DataFlow, MethodName, Parameter, Recipe
from studio.tasks import objective_names
from studio.ui.strings import text
from studio.workspace import ASSETS

#: Tasks that need or take options; for the others the form has no such field.
WITH_OPTIONS = ("csv",)
#: The form's fields, in the order in which their values go around.
FIELDS = (
    "name", "space", "sources", "base", "objectives", "options", "examples", "budget", "hours",
    "population", "method", "granularity", "repeats", "scaling", "max_length", "lenders", "scheme",
    "optimizer", "seed", "begin", "precision", "vocabulary", "baseline",
    "racing",
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


def build(recipe: Recipe) -> dict[str, gr.components.Component]:
    """The form's fields, by the names in `FIELDS`, showing a recipe."""
    models = bundled()
    values = dict(zip(FIELDS, values_of(recipe), strict=True))
    looks = applying(values["space"], values["objectives"])
    made: dict[str, gr.components.Component] = {}

    def add(kind: type, key: str, **options: Any) -> None:
        shown = {"value": values[key], "label": text(key)} | options | looks.get(key, {})
        made[key] = kind(elem_id=f"field-{key}", **shown)

    def number(key: str, **options: Any) -> None:
        # no bounds: the recipe has them, and says which field is meant, in the page's language
        add(gr.Number, key, precision=0, min_width=120, **options)

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
        number("examples", placeholder=text("all"))
        number("budget")
        number("population")
        add(gr.Number, "hours", placeholder="∞", min_width=120)
    with gr.Row():
        methods = [(METHOD_NAMES.get(key, key), key) for key in get_args(MethodName)]
        choice("method", methods, min_width=150)
        sizes = ["1", "2", "4", "8", (text("whole_model"), "all")]
        choice("granularity", sizes, allow_custom_value=True, min_width=120)
    with gr.Row():
        number("repeats")
        scalings = [(text("automatic"), "auto"), (text("scale_matrix"), "matrix"),
                    (text("scale_network"), "network"), (text("off"), "off")]  # fmt: skip
        choice("scaling", scalings, min_width=150)
        number("max_length", placeholder="∞")
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
        number("seed")
        add(gr.Dropdown, "begin", allow_custom_value=True, info=text("begin_info"), min_width=150)
    with gr.Row():
        bits = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "nf4": 4}
        precisions = [(f"{key} ({n} bit)", key) for key, n in bits.items()]
        choice("precision", [*precisions, (text("automatic"), "auto")], min_width=150)
        vocabularies = [(text(f"vocabulary_{key}"), key) for key in ("same", "base", "union")]
        choice("vocabulary", vocabularies, allow_custom_value=True, min_width=150)
    add(gr.Checkbox, "racing", container=False, info=text("racing_info"))
    add(gr.Checkbox, "baseline", container=False)
    return made


def applying(space: str, objectives: list[str], optimizer: str = "") -> dict[str, dict[str, Any]]:
    """What a space and its objectives make of the other fields: shown or not, and the choices."""
    paths, mixes = space != "parameter", space != "data_flow"
    tasks = [name for name in objectives if name not in PROPERTIES]
    few = [(text("few_layers"), "length"), (text("few_parameters"), "parameters")]
    named = list(dict.fromkeys([*objective_names(), *tasks]))  # a YAML may have 'csv (2)'
    optimizers = [(text("automatic"), "auto"), (text("random"), "random")]
    if len(objectives if paths else tasks) > 1:
        optimizers.insert(1, ("NSGA-II", "nsga2"))
    else:
        optimizers[1:1] = [("CMA-ES", "cma"), ("CMA-ES with margin", "cmaes")]
    begins = [(text("begin_default"), "default"), (text("begin_uniform"), "uniform")]
    looks: dict[str, dict[str, Any]] = {
        "begin": {"choices": begins if mixes else begins[:1]},
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


def fitted(given: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What a change of space or objectives makes of the form.

    Args:
        given: every field's value.

    Returns:
        updates by field, and the values once they are applied.
    """
    changes = applying(given["space"], given["objectives"] or [], given["optimizer"])
    values = {key: change["value"] for key, change in changes.items() if "value" in change}
    return changes, given | values


def values_of(recipe: Recipe) -> list[Any]:
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
        "hours": recipe.budget.hours,
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
        "begin": recipe.search.start,
        "baseline": recipe.search.random_baseline,
        "racing": recipe.search.racing,
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
    # random search goes on from nowhere, and no path is a uniform merge
    nowhere = ["default", *(["uniform"] if given["space"] == "data_flow" else [])]
    begins = given["begin"] and given["begin"] not in nowhere and given["optimizer"] != "random"
    document["search"] |= {
        "start": given["begin"].strip() if begins else "default",
        "random_baseline": given["baseline"],
        "racing": given["racing"],
        "optimizer": None if given["optimizer"] == "auto" else given["optimizer"],
        "scheme": given["scheme"] if several else "joint",
    }
    _put(document["budget"], "candidates", given["budget"])
    document["budget"]["hours"] = given["hours"] or None
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


def shown(recipe: Recipe) -> list[Any]:
    """The form's fields changed to show a recipe."""
    values = dict(zip(FIELDS, values_of(recipe), strict=True))
    looks = applying(values["space"], values["objectives"])
    return [gr.update(**{"value": values[key]} | looks.get(key, {})) for key in FIELDS]
