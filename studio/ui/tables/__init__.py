"""The page's words by tab: a module each, with a ``TABLE`` of key → (English, Japanese, Chinese).

Knows which tables there are; :mod:`studio.ui.strings` makes one of them all and reads it.
"""

from studio.ui.tables import chat, front, take_home

TABLES: tuple[dict[str, tuple[str, str, str]], ...] = (
    chat.TABLE,
    front.TABLE,
    take_home.TABLE,
)
