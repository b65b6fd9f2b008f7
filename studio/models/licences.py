"""What the licences of models make of their merge.

Knows the hub's licence ids (SPDX names and those of vendors' own terms) and which demand what. It
reads names, not texts, and is no lawyer: it says which terms apply and what is known to clash.
Refuses to read cards or to know what is merged.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.models.model import Model

#: Licences whose only demand is to keep their notices.
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
_NO_DERIVATIVES = re.compile(r"-nd\b|no-?deriv", re.IGNORECASE)
#: What is made with these must be under the very same terms, with no others on top.
_SHARE_ALIKE = re.compile(r"a?gpl\b.*|.*-sa\b.*|osl-.*|eupl-.*", re.IGNORECASE)
#: Pairs of which the licence's own authors say that the merge may be under the second.
_MAY_BECOME = {
    ("gpl-3.0", "agpl-3.0"), ("lgpl-3.0", "gpl-3.0"), ("lgpl-3.0", "agpl-3.0"),
    ("lgpl-2.1", "gpl-2.0"), ("lgpl-2.1", "gpl-3.0"), ("mpl-2.0", "gpl-3.0"),
    ("mpl-2.0", "agpl-3.0"), ("mpl-2.0", "lgpl-3.0"), ("cc-by-sa-4.0", "gpl-3.0"),
    ("cc-by-sa-2.0", "cc-by-sa-3.0"), ("cc-by-sa-2.0", "cc-by-sa-4.0"),
    ("cc-by-sa-2.5", "cc-by-sa-3.0"), ("cc-by-sa-2.5", "cc-by-sa-4.0"),
    ("cc-by-sa-3.0", "cc-by-sa-4.0"), ("cc-by-nc-sa-2.0", "cc-by-nc-sa-4.0"),
    ("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"), ("cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    ("apache-2.0", "gpl-3.0"),
}  # fmt: skip
#: Terms that ask for a name that begins with the family's.
_NAMED_LLAMA = re.compile(r"llama-?(3|4)", re.IGNORECASE)

#: Kinds of verdict, the gravest first.
KINDS = ("forbidden", "conflict", "noncommercial", "unknown", "several", "terms", "free")


@dataclass(frozen=True)
class Verdict:
    """What the licences of all models mean for their merge.

    Attributes:
        kind: one of `KINDS`.
        front: what the card's front matter says: ``license``, for "other" a ``license_name``.
        because: the models and licences that rule, as "name (licence)".
        silent: the models of which no licence is known.
        llama: whether the merge's name has to begin with "Llama".
    """

    kind: str
    front: Mapping[str, str]
    because: tuple[str, ...] = ()
    silent: tuple[str, ...] = field(default=())
    llama: bool = False

    @property
    def sentence(self) -> str:
        """For the card: English, whole sentences."""
        why, silent = ", ".join(self.because), ", ".join(self.silent)
        unknown = f"No licence is stated by {silent}: ask the authors before sharing the merge."
        parts = [
            {
                "forbidden": f"It may not be passed on: {why} allows no adaptations.",
                "conflict": f"It may not be passed on: the terms of {why} exclude each other.",
                "noncommercial": f"For research and non-commercial use only: it contains {why}.",
                "unknown": unknown,
                "several": f"Several licences apply at once: {why}.",
                "terms": f"The terms of {why} apply to the merge.",
                "free": "Free to use; keep the licence notices of all models above.",
            }[self.kind]
        ]
        if self.silent and self.kind != "unknown":
            parts.append(unknown)
        if self.llama:
            parts.append("Llama's terms ask for a name that begins with “Llama”.")
        return " ".join(parts)


def judge(licences: Mapping[str, str | None]) -> Verdict:
    """What licences make of a merge.

    Args:
        licences: of each model, by name, as its card says it; None where it says nothing.
    """
    stated = {name: licence.strip() for name, licence in licences.items() if licence}
    silent = tuple(name for name, licence in licences.items() if not licence)
    llama = any(_NAMED_LLAMA.search(licence) for licence in stated.values())

    def those(wanted) -> tuple[str, ...]:
        return tuple(f"{name} ({x})" for name, x in stated.items() if wanted(x))

    def verdict(kind: str, front: Mapping[str, str], because: tuple[str, ...]) -> Verdict:
        return Verdict(kind, front, because, silent, llama)

    if because := those(_NO_DERIVATIVES.search):
        return verdict("forbidden", _other("no-derivatives"), because)
    demanding = {x.lower(): x for x in stated.values() if x.lower() not in PERMISSIVE}
    whole = _one(set(demanding))
    if whole is None and any(_SHARE_ALIKE.fullmatch(x) for x in demanding):
        return verdict("conflict", _other("conflict"), those(lambda x: x.lower() in demanding))
    if because := those(_RESTRICTED.search):
        alone = whole is not None and not silent
        return verdict(
            "noncommercial",
            _front(demanding[whole]) if alone else _other("non-commercial"),
            because,
        )
    if silent:
        return verdict("unknown", _other("unknown"), ())
    if whole is not None:
        return verdict("terms", _front(demanding[whole]), those(lambda x: x.lower() in demanding))
    if demanding:
        return verdict("several", _other("several"), those(lambda x: x.lower() in demanding))
    distinct = sorted({x.lower() for x in stated.values()})
    licence = "apache-2.0" if "apache-2.0" in distinct or not distinct else distinct[0]
    return verdict("free", {"license": licence}, ())


def licence_of_merge(models: "Sequence[Model]") -> tuple[Mapping[str, str], str]:
    """Front matter and sentence of the verdict on models."""
    verdict = judge({model.name: model.licence for model in models})
    return verdict.front, verdict.sentence


def _one(demanding: set[str]) -> str | None:
    """The one licence that satisfies all, if there is one."""
    for licence in sorted(demanding):
        if all(x == licence or (x, licence) in _MAY_BECOME for x in demanding):
            return licence
    return None


def _front(licence: str) -> dict[str, str]:
    known = licence.lower() in PERMISSIVE or _KNOWN.fullmatch(licence.lower())
    return {"license": licence.lower()} if known else _other(licence)


def _other(name: str) -> dict[str, str]:
    return {"license": "other", "license_name": name}
