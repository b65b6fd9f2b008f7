"""YAML from a user or a stranger: a page of plain values, or one sentence on why it is none.

Knows what can be wrong with any such document. Refuses to know what it should say: that is for
recipes and merge configurations.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from studio.errors import StudioError

#: A recipe is a page, not a data file: larger input is a mistake (or an attack).
MAX_BYTES = 256 * 1024
#: YAML aliases can make a page mean gigabytes ("billion laughs"): this many values are refused.
MAX_VALUES = 10_000
#: The parser's time grows with the square of brackets inside brackets: 256 KiB of them take hours.
MAX_DEPTH = 50
_BRACKETS = re.compile(r"[][{}]")


def page_text(path: Path, where: str) -> str:
    """The text of a file that should be a page.

    Args:
        where: what to call it at the beginning of a sentence.

    Raises:
        StudioError: it cannot be read, is no text, or more than a page.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudioError(
                f"{where} is larger than {MAX_BYTES // 1024} KiB; it should be a page."
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudioError(f"{where} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise StudioError(f"{where} is not UTF-8 text; save it as UTF-8.") from error


def read_page(text: str, where: str) -> Any:
    """The values of a YAML document.

    Args:
        where: what to call it at the beginning of a sentence.

    Raises:
        StudioError: not YAML, or more than a page.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise StudioError(f"{where} is larger than {MAX_BYTES // 1024} KiB; it should be a page.")
    if _depth(text) > MAX_DEPTH:
        raise StudioError(
            f"{where} has brackets within brackets, more than {MAX_DEPTH} deep; it should be a "
            "page that people can read."
        )
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudioError(f"{where} is not valid YAML{place}; check the indentation.") from error
    if _weight(document) > MAX_VALUES:
        raise StudioError(
            f"{where} holds more than {MAX_VALUES} values once its aliases are written out; it "
            "should be a page."
        )
    return document


def _depth(text: str) -> int:
    """How deep brackets lie within brackets, at most; those inside of texts count as well."""
    deepest = depth = 0
    for bracket in _BRACKETS.findall(text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


def _weight(document: Any) -> int:
    """How many values a document means with its aliases written out; stops counting when many."""
    count, waiting = 0, [document]
    while waiting and count <= MAX_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
    return count
