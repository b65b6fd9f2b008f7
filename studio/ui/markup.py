"""Text for HTML, and numbers as people read them. Knows no Gradio: notebooks draw with it, too."""

import html


def esc(value: object) -> str:
    """Text made safe for HTML, attribute values included. Everything a user or model said."""
    return html.escape(str(value), quote=True)


def percent(score: float) -> str:
    """A score in [0, 1] as people read it, without the sign.

    >>> percent(0.524)
    '52.4'
    """
    return f"{100 * score:.1f}"
