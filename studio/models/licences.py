"""What the licences of models make of their merge.

Knows the hub's licence ids and which demand what; refuses to read cards or to know what is merged.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.models.model import Model

#: Licences (hub ids) whose only demand is to keep their notices.
PERMISSIVE = {
    "0bsd", "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "ecl-2.0",
    "isc", "mit", "ms-pl", "ncsa", "postgresql", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
#: What else the hub accepts as a licence id; anything else is "other" with a ``license_name``.
_KNOWN = re.compile(
    r"[la]?gpl(-[123]\.[01])?|mpl-2\.0|epl-[12]\.0|eupl-1\.[12]|osl-3\.0|gemma|llama[234](\.\d)?"
    r"|(\w+-)?openrail(-m|\+\+)?|cc-by(-nc)?(-sa|-nd)?-[234]\.[05]"
)
_RESTRICTED = re.compile(r"-nc\b|non-?commercial|research|\bamlr\b", re.IGNORECASE)


def licence_of_merge(models: "Sequence[Model]") -> tuple[dict[str, str], str]:
    """What the licences of all models make of their merge.

    Returns:
        Front matter (``license`` and, for "other", ``license_name``), and a sentence for people.
        A research-only or non-commercial source makes the merge so; a model without a stated
        licence makes the merge's unknown; otherwise the one that demands something rules.
    """
    licences = {model.name: model.licence for model in models}
    restricted = {n: x for n, x in licences.items() if x and _RESTRICTED.search(x)}
    demanding = {x for x in licences.values() if x and x.lower() not in PERMISSIVE}
    if restricted:
        why = ", ".join(f"{name} ({licence})" for name, licence in restricted.items())
        sentence = f"Not for commercial use: it contains {why}."
        if None in licences.values():
            sentence += f" {_silent(licences)}"
        if len(demanding) == 1 and None not in licences.values():
            return _front(demanding.pop()), sentence
        return {"license": "other", "license_name": "non-commercial"}, sentence
    if None in licences.values():
        return {"license": "other", "license_name": "unknown"}, _silent(licences)
    if len(demanding) > 1:
        return (
            {"license": "other", "license_name": "several"},
            f"Several licences apply at once: {', '.join(sorted(demanding))}.",
        )
    if demanding:
        licence = demanding.pop()
        return _front(licence), f"The terms of {licence} apply to the merge."
    distinct = sorted({x.lower() for x in licences.values()})
    licence = "apache-2.0" if "apache-2.0" in distinct else distinct[0]
    return {"license": licence}, "Free to use; keep the licence notices of all models above."


def _front(licence: str) -> dict[str, str]:
    known = licence.lower() in PERMISSIVE or _KNOWN.fullmatch(licence.lower())
    return {"license": licence} if known else {"license": "other", "license_name": licence}


def _silent(licences: Mapping[str, str | None]) -> str:
    names = ", ".join(name for name, licence in licences.items() if licence is None)
    return f"No licence is stated by {names}: ask the authors before sharing the merge."
