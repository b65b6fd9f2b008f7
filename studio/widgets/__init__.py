"""The Studio's steps as widgets for notebooks: sliders that merge, a monitor, a chat, answers.

Each is an ipywidgets box that is also driven from code: what a mouse can do, a line can, and
``wait()`` returns when all of it is done. Made of core ipywidgets alone, of what versions 7.7 and 8
have in common, so that they work in Jupyter, Colab and editors. Importing this room is quick;
ipywidgets comes with the first widget.

>>> from studio.widgets import MergeByHand
>>> hand = MergeByHand("recipes/quick.yaml")  # doctest: +SKIP
>>> hand.move(0.8, source="bonsai-math")  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

from studio.errors import StudioError

#: Where each widget lives; they are imported on first use.
_PLACES = {
    "Answers": "answers",
    "Chat": "chat",
    "Figure": "looks",
    "MergeByHand": "hand",
    "Monitor": "monitor",
    "figures": "",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(name)
    try:
        module = import_module(f"studio.widgets.{_PLACES[name] or name}")
    except ModuleNotFoundError as error:
        if error.name != "ipywidgets":
            raise
        raise StudioError(
            "The widgets are made of ipywidgets, which is not installed; pip install ipywidgets."
        ) from error
    return getattr(module, name) if _PLACES[name] else module
