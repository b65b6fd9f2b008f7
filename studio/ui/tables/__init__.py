"""The page's words by tab: a module each, with a ``TABLE`` of key → (English, Japanese, Chinese).

Knows which tables there are; :mod:`studio.ui.strings` makes one of them all and reads it.
"""

from studio.ui.tables import chat, evolve, front, models, paper, take_home

TABLES: tuple[dict[str, tuple[str, str, str]], ...] = (
    chat.TABLE,
    evolve.TABLE,
    front.TABLE,
    models.TABLE,
    paper.TABLE,
    take_home.TABLE,
)
