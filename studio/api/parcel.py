"""What taking a candidate home would bring, before anything is written."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.runs import Store

if TYPE_CHECKING:
    from studio.models.licences import Verdict


@dataclass(frozen=True)
class Parcel:
    """An export that was not made yet.

    Attributes:
        run, candidate: whose.
        card: README.md, with its front matter.
        verdict: what the sources' licences mean for it.
        mergekit: the same merge as a mergekit configuration, None where there is none.
        obstacle: why there is none, in a sentence.
        size: bytes of its weights.
    """

    run: str
    candidate: int
    card: str
    verdict: "Verdict"
    mergekit: str | None
    obstacle: str
    size: int


def parcel(run: str, candidate: int | str | None = None, store: Store | None = None) -> Parcel:
    """What `export` would write of a candidate, the best if none is named.

    Raises:
        StudioError: no such run or candidate, or one of its models changed since.
    """
    from studio.api import making
    from studio.evolve.spaces import unquantized
    from studio.merge.card import verdict_of
    from studio.merge.mergekit_config import mergekit_obstacle
    from studio.recipe import Recipe

    store = store or Store()
    record, chosen, space = making._rebuilt(run, candidate, store)
    precision = unquantized(Recipe.from_yaml(record.recipe), space.sources)
    merged = space.checkpoint(chosen.genome, precision, f"{record.id}:{chosen.id}")
    mergekit = merged.documents().get("mergekit.yaml")
    whole = merged.frame.whole(merged) if merged.frame is not None else merged
    return Parcel(
        record.id,
        chosen.id,
        making._card(record, chosen, space, store),
        verdict_of(space.models),
        mergekit,
        "" if mergekit else mergekit_obstacle(space) or "",
        whole.size,
    )
