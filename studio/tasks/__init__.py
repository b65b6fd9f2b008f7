"""The registry of tasks: what a model can be asked to be good at.

Knows each task's name and where its class lives, as a string, and imports it on first use; nothing
of models, generation or search. ``vlm`` and later tasks add a line to ``TASKS``.
"""

import inspect
from importlib import import_module
from typing import Any

from studio.errors import StudioError
from studio.tasks.base import Example, LiveTask, Measurement, Score, Task

__all__ = [
    "TASKS", "Example", "LiveTask", "Measurement", "Score", "Task", "load_task", "objective_names",
    "task_names",
]  # fmt: skip

#: name → "module:Class"; the class's keyword arguments are the task's options.
TASKS: dict[str, str] = {
    "jmath": "studio.tasks.word_problems:JMath",
    "emath": "studio.tasks.word_problems:EMath",
    "mgsm": "studio.tasks.mgsm:MGSM",
    "csv": "studio.tasks.csv:CSV",
    "lm_eval": "studio.tasks.lm_eval:LMEval",
}
#: Benchmarks without a dev split: a report may have them, a search may not.
REPORT_ONLY = {"mgsm"}
#: Tasks that are nothing without options no form has a field for: a recipe's YAML names them.
YAML_ONLY = {"lm_eval"}


def task_names() -> list[str]:
    """The tasks there are, in the order a list should show them."""
    return list(TASKS)


def objective_names() -> list[str]:
    """The tasks that a form can offer a search, in the same order: those with a dev split."""
    return [name for name in TASKS if name not in REPORT_ONLY | YAML_ONLY]


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
        raise StudioError(f"There is no task called {name!r}; choose one of {', '.join(TASKS)}.")
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
