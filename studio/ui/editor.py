"""The recipe being written: a form and a page of YAML that are always in step, and what to start.

Either is edited and the other follows. Where an edit makes no recipe, the page says why and the
other view stays as it was. The draft is kept by the browser, and outlives a reload. Knows recipes
and files that a visitor hands over; refuses to know runs (`studio.ui.controls`).
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from studio.errors import StudioError
from studio.models import search
from studio.recipe import DataFlow, Recipe
from studio.tasks import load_task
from studio.ui import form as forms
from studio.ui.form import FIELDS, RECIPES, WITH_OPTIONS
from studio.ui.markup import esc
from studio.ui.sentences import translate
from studio.ui.shared import store
from studio.ui.strings import text
from studio.ui.wiring import Visit, Wires, note

#: Where the browser keeps the draft, under a key of its own (see `studio.ui.page.SECRET`).
DRAFT, SECRET = "evollm-studio-draft", "evollm-studio"
#: Largest recipe and largest file of questions that are taken, in bytes.
MAX_RECIPE, MAX_QUESTIONS = 1_000_000, 5_000_000
_TERMINATOR = "RECIPE"
#: Tasks that only a model that sees can do, and the preset that has one.
PICTURES, _SEEING = ("ja_vqa", "ja_culture_vqa", "clip_score"), "vlm"

#: Saves the YAML as a file, under the recipe's name.
_SAVE = """(yaml) => {
    const name = (/^name: *(.+)$/m.exec(yaml)?.[1] ?? 'recipe').replace(/[^\\p{L}\\p{N}]+/gu, '-');
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([yaml], {type: 'text/yaml'}));
    link.download = `${name.replace(/^-+|-+$/g, '') || 'recipe'}.yaml`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


@dataclass(frozen=True)
class Editor:
    """The components that hold the recipe.

    Attributes:
        view: which of the two was edited last, 'form' or 'yaml': that one is meant.
        code: the YAML.
        fields: the form's, in the order of `FIELDS`.
        following: what every edit draws anew beside form and YAML.
    """

    view: gr.Textbox
    code: gr.Code
    fields: list[Any]
    following: list[Any]

    @property
    def command(self) -> gr.Code:
        """What does the same in a terminal; not rendered yet."""
        return self.following[1]

    @property
    def given(self) -> list[Any]:
        """What :func:`recipe_of` takes."""
        return [self.view, self.code, *self.fields]

    @property
    def all(self) -> list[Any]:
        """What :func:`filled` fills."""
        return [self.view, self.code, *self.fields, *self.following]


def build(wires: Wires) -> Editor:
    """Lay the editor out, and keep its two views in step."""
    recipe = forms.default_recipe()
    draft = gr.BrowserState({}, storage_key=DRAFT, secret=SECRET)
    preset = gr.Dropdown(
        [(found.name, key) for key, found in forms.presets().items()],
        value=forms.FIRST_PRESET,
        label=text("preset"),
        elem_id="preset",
    )
    fields = forms.build(recipe)
    with gr.Row(elem_classes="es-buttons"):
        upload = gr.UploadButton(
            text("upload_questions"), file_types=[".csv", ".tsv", ".jsonl"], size="sm",
            elem_id="upload-questions",
        )  # fmt: skip
    with gr.Accordion(text("yaml"), open=True, elem_id="yaml"):
        code = gr.Code(
            recipe.to_yaml(),
            language="yaml",
            label="recipe.yaml",
            interactive=True,
            lines=12,
            max_lines=16,
            elem_id="recipe-yaml",
        )
        with gr.Row(elem_classes="es-buttons"):
            save = gr.Button(text("save_recipe"), size="sm", elem_id="save-recipe")
            load = gr.UploadButton(
                text("load_recipe"), file_types=[".yaml", ".yml"], size="sm", elem_id="load-recipe"
            )
    problem = gr.HTML(elem_id="problem")
    command = gr.Code(
        command_for(recipe),
        language="shell",
        label=text("command"),
        interactive=False,
        lines=1,
        max_lines=4,
        show_line_numbers=False,
        elem_id="command",
        render=False,
    )
    view = gr.Textbox("form", visible=False)
    listed = [fields[key] for key in FIELDS]
    editor = Editor(view, code, listed, [problem, command, draft])

    code.input(None, None, view, js="() => 'yaml'")
    gr.on([field.input for field in listed], None, None, view, js="() => 'form'")
    shaping = [fields["space"].input, fields["objectives"].input]
    wires.on(
        shaping, reshape, [code, *listed], [*listed, code, *editor.following],
        trigger_mode="always_last",
    )  # fmt: skip
    wires.on(
        [field.input for key, field in fields.items() if key not in ("space", "objectives")],
        from_form,
        [code, *listed],
        [code, *editor.following],
        trigger_mode="always_last",
    )
    wires.on(code.input, from_yaml, code, [*listed, *editor.following], trigger_mode="always_last")
    wires.on(preset.input, from_preset, preset, editor.all)
    wires.on(load.upload, from_file, load, editor.all)
    wires.on(upload.upload, with_questions, [upload, *editor.given], editor.all)
    save.click(None, code, None, js=_SAVE)
    wires.on(Context.root_block.load, restore, draft, [preset, *editor.all])
    return editor


# ── one follows the other ─────────────────────────────────────────────────────────────────────


def from_form(visit: Visit, code: str, *values: Any) -> list[Any]:
    """The YAML after an edit of the form; as it was, where the form makes no recipe."""
    try:
        recipe = forms.overlay(code, *values)
    except StudioError as error:
        return [gr.skip(), _problem(visit, error), gr.skip(), gr.skip()]
    return [recipe.to_yaml(), *_following(recipe)]


def reshape(visit: Visit, code: str, *values: Any) -> list[Any]:
    """As :func:`from_form`, after a change of what the form shows at all."""
    changes, given = forms.fitted(dict(zip(FIELDS, values, strict=True)))
    shown = [gr.update(**changes[key]) if key in changes else gr.skip() for key in FIELDS]
    return [*shown, *from_form(visit, code, *(given[key] for key in FIELDS))]


def from_yaml(visit: Visit, code: str) -> list[Any]:
    """The form after an edit of the YAML; as it was, where that is no recipe."""
    try:
        recipe = Recipe.from_yaml(code)
    except StudioError as error:
        # kept all the same: a reload must not cost what was typed
        return [*[gr.skip()] * len(FIELDS), _problem(visit, error), gr.skip(), {"yaml": code}]
    return [*forms.shown(recipe), "", command_for(recipe, code), {"yaml": code}]


def _problem(visit: Visit, error: StudioError) -> str:
    sentence = translate(visit.language, str(error))
    return f'<p class="es-problem" role="alert">{esc(sentence)}</p>'


def _following(recipe: Recipe) -> list[Any]:
    return ["", command_for(recipe), {"yaml": recipe.to_yaml()}]


def filled(recipe: Recipe) -> list[Any]:
    """Form, YAML and all that follows them changed to show a recipe: values of `Editor.all`."""
    return ["form", recipe.to_yaml(), *forms.shown(recipe), *_following(recipe)]


def recipe_of(view: str, code: str, *values: Any) -> Recipe:
    """The recipe that is meant: the YAML's if that was edited last, else the form's.

    Raises:
        StudioError: it is none.
    """
    return Recipe.from_yaml(code) if view == "yaml" else forms.overlay(code, *values)


def restore(visit: Visit, draft: Any) -> list[Any]:
    """What the browser kept of an earlier visit; a fresh page has its first preset."""
    code = draft.get("yaml") if isinstance(draft, dict) else None
    if not isinstance(code, str) or len(code) > MAX_RECIPE:
        # filled all the same: Gradio shows an empty number as 0 at first
        return [gr.skip(), *filled(forms.default_recipe())[:-1], gr.skip()]
    try:
        recipe = Recipe.from_yaml(code)
    except StudioError as error:
        kept = [gr.skip()] * len(FIELDS)
        return [gr.skip(), "yaml", code, *kept, _problem(visit, error), gr.skip(), gr.skip()]
    shown = forms.shown(recipe)
    return [_preset_of(recipe), "yaml", code, *shown, "", command_for(recipe, code), gr.skip()]


def command_for(recipe: Recipe, code: str | None = None) -> str:
    """What does the same in a terminal, in the project's folder.

    A preset is a file there; any other recipe is written to one first, so that the command works
    when it is pasted.

    Args:
        code: the recipe's YAML as its author wrote it, comments included.
    """
    key = _preset_of(recipe)
    if key is not None:
        return f"python -m studio evolve recipes/{key}.yaml"
    page = (code or recipe.to_yaml()).rstrip("\n")
    end = _TERMINATOR
    while end in page.splitlines():
        end += "_"
    return f"cat > recipe.yaml <<'{end}'\n{page}\n{end}\npython -m studio evolve recipe.yaml"


def _preset_of(recipe: Recipe) -> str | None:
    return next((key for key, found in forms.presets().items() if found == recipe), None)


# ── recipes and questions from elsewhere ──────────────────────────────────────────────────────


def from_preset(visit: Visit, key: str) -> list[Any]:
    """One of the recipes that come with the Studio."""
    return filled(Recipe.load(RECIPES / f"{Path(key).name}.yaml"))


def from_file(visit: Visit, path: str) -> list[Any]:
    """A recipe that the visitor hands over; their comments stay."""
    if Path(path).stat().st_size > MAX_RECIPE:
        raise StudioError("This file is too large for a recipe (1 MB at most); choose another.")
    recipe = Recipe.load(path)
    code = Path(path).read_text(encoding="utf-8-sig")
    following = ["", command_for(recipe, code), {"yaml": code}]
    return ["yaml", code, *forms.shown(recipe), *following]


def with_questions(visit: Visit, path: str, view: str, code: str, *values: Any) -> list[Any]:
    """The recipe with the visitor's own questions, kept in their folder, as an objective."""
    file = keep_questions(visit.who.folder("uploads"), Path(path))
    document = recipe_of(view, code, *values).model_dump(mode="json")
    mine = next((o for o in document["objectives"] if o["task"] in WITH_OPTIONS), None)
    if mine is None:
        # the first upload says what the merge must become good at, in place of the preset's task
        mine = {"task": "csv", "options": {}}
        tasks = [o for o in document["objectives"] if o["task"]]
        rest = [o for o in document["objectives"] if not o["task"]]
        document["objectives"] = [mine, *rest]
        document["report"] = [o for o in document["report"] if o["task"] != "csv"]
        if len(tasks) > 1 and not rest:
            document["search"]["optimizer"] = None
            document["search"]["scheme"] = "joint"
    mine["options"] = {**mine["options"], "path": str(file)}
    recipe = Recipe.from_dict(document)
    note(visit, "questions_taken", name=file.name)
    return filled(recipe)


def keep_questions(folder: Path, upload: Path) -> Path:
    """A file of questions copied into a folder, under a name that is safe there.

    Raises:
        StudioError: it is too large, or no questions can be read from it; nothing is kept then.
    """
    if upload.stat().st_size > MAX_QUESTIONS:
        raise StudioError(
            f"{upload.name} is larger than {MAX_QUESTIONS // 1_000_000} MB; take fewer questions."
        )
    stem = re.sub(r"[^\w-]+", "-", upload.stem).strip("-")[:60] or "questions"
    kept = folder / f"{stem}{upload.suffix.lower()}"
    before = kept.read_bytes() if kept.is_file() else None
    shutil.copyfile(upload, kept)
    try:
        load_task("csv", path=str(kept)).examples("dev")
    except StudioError:
        kept.unlink() if before is None else kept.write_bytes(before)
        raise
    return kept


def with_models(
    visit: Visit, base: str | None, sources: Sequence[str], view: str, code: str, *values: Any
) -> list[Any]:
    """The recipe with other models: values of `Editor.all`."""
    for name in [*sources, *([base] if base else [])]:
        visit.who.model(store(), name)
    return filled(Recipe.from_dict(with_models_in(recipe_of(view, code, *values), base, sources)))


def with_models_in(recipe: Recipe, base: str | None, sources: Sequence[str]) -> dict[str, Any]:
    """A recipe's document for other models.

    Paths, where there is no base to mix weights with; a task about pictures where a bundled model
    sees them, and no such task where none does.
    """
    document = recipe.model_dump(mode="json")
    document |= {"base": base, "sources": list(sources)}
    if document["vocabulary"] not in ("same", "base", "union"):
        document["vocabulary"] = "same"
    sees = any(model.sees for model in search.bundled() if model.name in (base, *sources))
    tasks = [item.task for item in recipe.objectives if item.task]
    if sees != any(task in PICTURES for task in tasks) and not set(tasks) & set(WITH_OPTIONS):
        preset = forms.presets()[_SEEING if sees else forms.FIRST_PRESET]
        for key in ("objectives", "report"):
            document[key] = preset.model_dump(mode="json")[key]
        document["search"] |= {"optimizer": None, "scheme": "joint"}
    if base is None and document["space"]["type"] != "data_flow":
        document["space"] = DataFlow().model_dump(mode="json")
        document["vocabulary"], document["base_storage"] = "same", "packed"
        document["search"]["scheme"] = "joint"
    paths = document["space"].get("data_flow", document["space"])
    if paths.get("sources"):
        paths["sources"] = [name for name in paths["sources"] if name in sources] or None
    return document
