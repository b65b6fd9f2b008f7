"""How the Studio's pictures look in a notebook: the page's own stylesheet, as far as it is needed.

Knows the stylesheet, and what the themes of Jupyter, Colab and VS Code call their colours. Refuses
to know what is drawn.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import ipywidgets as widgets

_STYLES = Path(__file__).resolve().parent.parent / "ui" / "style.css"
#: The colours that the page has from Gradio's theme, from whichever notebook is around; asked for
#: where the widget is, for some set them on the page's root and some on its body.
_COLOURS = """
:root { --es-ink: #1f2937; --es-paper: #fff; --es-line: #d5dbe3; }
.dark { --es-ink: #e5e7eb; --es-paper: #111; --es-line: #475569; }
.es-notebook {
    --body-text-color: var(
        --jp-content-font-color1, var(--colab-primary-text-color, var(--es-ink))
    );
    --background-fill-primary: var(
        --jp-layout-color0, var(--colab-primary-surface-color, var(--es-paper))
    );
    --border-color-primary: var(--jp-border-color2, var(--es-line));
    --color-accent: var(--es-right);
    color: var(--body-text-color); line-height: 1.4; max-width: 960px;
}
.es-notebook p { margin: 4px 0; }
.es-turn { border-left: 4px solid var(--es-track); padding: 2px 12px; margin: 8px 0; }
.es-turn.assistant { border-left-color: var(--es-right); white-space: pre-wrap; }
.es-turn b { display: block; font-size: .82rem; color: var(--es-soft); font-weight: 400; }
.es-turn img { display: block; max-width: 96px; border-radius: 6px; }
.es-said { border-left: 3px solid var(--es-half); padding-left: 10px; }
"""
#: Where the page has Gradio's class for dark.
_DARK = '.dark, [data-jp-theme-light="false"], html[theme="dark"], .vscode-dark'


class Box(widgets.VBox):
    """What the Studio's widgets are: a column that brings the stylesheet along."""

    def __init__(self, children: Sequence[widgets.Widget]):
        super().__init__([style(), *children])

    def __repr__(self) -> str:
        # what is seen where a notebook is read and not run
        return f"{type(self).__name__}: a widget; it comes alive where this notebook is run."


class Figure:
    """A picture that stays in a notebook: HTML, with those rules of the stylesheet that it needs.

    Args:
        html: of `studio.ui.plots` or `studio.ui.pieces`, escaped as theirs is.
    """

    def __init__(self, html: str):
        self.html = html

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        caption = re.search(r"<figcaption>(.*?)</figcaption>", self.html)
        # Colab shows every output in a frame of its own: each brings its style along.
        styled = f"<style>{rules(self.html)}</style>{wrapped(self.html)}"
        return {"text/html": styled, "text/plain": caption[1] if caption else "figure"}


def wrapped(html: str) -> str:
    """HTML within the element that the notebook's own rules are for."""
    return f'<div class="es-notebook">{html}</div>'


@cache
def style() -> widgets.HTML:
    """The whole stylesheet as a widget: one, shown wherever one of the Studio's widgets is."""
    return widgets.HTML(f"<style>{rules()}</style>", layout=widgets.Layout(height="0"))


def rules(html: str | None = None) -> str:
    """The page's rules for the classes ``es-…`` that occur in ``html``, or for all of them."""
    text = re.sub(r"/\*.*?\*/", "", _STYLES.read_text(encoding="utf-8") + _COLOURS, flags=re.S)
    used = None if html is None else set(re.findall(r"\bes-[a-z]+", wrapped(html)))
    return "\n".join(_kept(text, used))


def _kept(text: str, used: set[str] | None) -> Iterator[str]:
    for selector, body in _blocks(text):
        if selector.startswith("@media"):
            inner = "\n".join(_kept(body, used))
            if inner:
                yield f"{selector} {{{inner}}}"
            continue
        classes = set(re.findall(r"\.(es-[a-z]+)", selector))
        if classes if used is None else classes & used:
            yield f"{selector} {{{body}}}"
        elif selector in (":root", ".dark"):
            yield f"{selector.replace('.dark', _DARK)} {{{body}}}"


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """The rules of a stylesheet: (selector, what is between its braces)."""
    start = opened = depth = 0
    for at, sign in enumerate(text):
        if sign == "{":
            depth += 1
            opened = at if depth == 1 else opened
        elif sign == "}":
            depth -= 1
            if depth == 0:
                yield text[start:opened].strip(), " ".join(text[opened + 1 : at].split())
                start = at + 1
