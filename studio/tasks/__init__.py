"""The registry of tasks: what a model can be asked to be good at.

Knows each task's name and where its class lives, as a string, and imports it on first use; nothing
of models, generation or search. Tasks with pictures live in ``vlm``; without that folder they are
neither listed nor loaded, and all else works.
"""

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from studio.errors import StudioError
from studio.tasks.base import Example, LiveTask, Measurement, Score, Task

__all__ = [
    "TASKS", "Example", "LiveTask", "Measurement", "Score", "Task", "has_pictures", "load_task",
    "objective_names", "task_names",
]  # fmt: skip

#: name → "module:Class"; the class's keyword arguments are the task's options.
TASKS: dict[str, str] = {
    "jmath": "studio.tasks.word_problems:JMath",
    "emath": "studio.tasks.word_problems:EMath",
    "mgsm": "studio.tasks.mgsm:MGSM",
    "csv": "studio.tasks.csv:CSV",
    "lm_eval": "studio.tasks.lm_eval:LMEval",
    "ja_vqa": "vlm.tasks:JaVQA",
    "ja_culture_vqa": "vlm.tasks:JaCultureVQA",
    "vqa": "vlm.folder:VQA",
    "ja_vg_vqa_500": "vlm.published:JaVGVQA500",
    "ja_vlm_bench": "vlm.published:JaVLMBench",
    "clip_score": "vlm.clip_score:CLIPScore",
}
#: Benchmarks without a dev split: a report may have them, a search may not.
REPORT_ONLY = {"mgsm", "ja_vlm_bench"}
#: Tasks that are nothing without options no form has a field for, or without a large download: a
#: recipe's YAML names them.
YAML_ONLY = {"lm_eval", "vqa", "ja_vg_vqa_500"}


def task_names() -> list[str]:
    """The tasks there are, in the order a list should show them."""
    return [name for name in TASKS if find_spec(_package(name))]


def objective_names() -> list[str]:
    """The tasks that a form can offer a search, in the same order: those with a dev split."""
    return [name for name in task_names() if name not in REPORT_ONLY | YAML_ONLY]


def has_pictures(name: str) -> bool:
    """Whether a task's examples have pictures, so that a model should see."""
    return _package(name) == "vlm"


def load_task(name: str, /, **options: Any) -> Task | LiveTask:
    """The task called ``name``, ready to give examples and score responses.

    >>> task = load_task("jmath")
    >>> example = task.examples("dev")[0]
    >>> task.score(example, f"答えは{example.answer}です。").value
    1.0

    Raises:
        StudioError: no such task, an option it does not have, or one it needs and was not given.
    """
    if name not in TASKS:
        raise StudioError(
            f"There is no task called {name!r}; choose one of {', '.join(task_names())}."
        )
    if not find_spec(_package(name)):
        raise StudioError(
            f"The task {name} needs the {_package(name)} folder, which is not here; get the whole "
            "project."
        )
    module, _, attribute = TASKS[name].partition(":")
    task = getattr(import_module(module), attribute)
    parameters = inspect.signature(task).parameters
    for option in options:
        if option not in parameters:
            has = f"its options are {', '.join(parameters)}" if parameters else "it has no options"
            raise StudioError(f"The task {name} has no option {option!r}; {has}.")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise StudioError(f"The task {name} needs the option {option!r}; give it a value.")
    return task(**options)


def _package(name: str) -> str:
    return TASKS[name].partition(".")[0]
