"""A worker on another machine: what it looks after before it carries an order out.

Knows that the machine may lack files, or have other ones, or other versions of what computes: the
first it says, the others it refuses, for a candidate would be something else there. Refuses to know
who placed it, and what becomes of it (`studio.evolve.cluster`).
"""

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.evolve import inputs, shipping, spaces
from studio.evolve.shipping import Bundle, File
from studio.evolve.workers import Cut, Message, Order, carry_out
from studio.models import sources
from studio.recipe import Recipe

if TYPE_CHECKING:
    import ray

#: Whose versions must agree for a candidate to answer alike on every machine.
PACKAGES = ("evollm-studio", "torch", "transformers")


@dataclass(frozen=True, eq=False)
class Errand(Order):
    """An order that leaves the machine.

    Attributes:
        bundles: files that it takes.
        fingerprints: of the models, see `studio.evolve.inputs`; versions: of `PACKAGES`.
    """

    bundles: tuple[Bundle, ...]
    fingerprints: dict[str, str]
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """What is installed here, but for what tells builds of one version apart."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:  # run from a folder, not installed
            continue
    return found


class Remote:
    """A worker: an actor, one method of which may be called while another is at work."""

    def __init__(self, sharers: int):
        self._sharers = sharers
        self._cut = False
        self._heard = time.monotonic()
        self._checked: str | None = None  # the run whose models and versions are as they should

    def silence(self) -> float:
        """Seconds since it last got anything done."""
        return time.monotonic() - self._heard

    def cut(self) -> None:
        """Leave what is being carried out before the next token."""
        self._cut = True

    def carry_out(self, errand: Errand) -> list[Message]:
        """What came of an errand; ``[("missing", bundles)]`` where files have to be sent first."""
        self._cut, self._heard = False, time.monotonic()
        try:
            places = {bundle.name: shipping.find(bundle) for bundle in errand.bundles}
            if missing := [bundle for bundle in errand.bundles if places[bundle.name] is None]:
                return [("missing", missing)]
            sources.elsewhere.clear()
            sources.elsewhere.update(places)
            if self._checked != errand.run:
                _check(errand)
                self._checked = errand.run
            own = {item.name: getattr(errand, item.name) for item in fields(Order)}
            order = Order(**own | {"recipe": shipping.at_home(errand.recipe, places)})
            return list(carry_out(order, self._glance, self._sharers))
        except StudioError as error:
            return [("failed", str(_there(error)), "")]

    def take_in(self, bundle: Bundle, pieces: "dict[File, list[ray.ObjectRef]]") -> str:
        """Keep a bundle's files on this machine; says why that cannot be, or nothing."""
        import ray

        def read(file: File) -> Iterator[bytes]:
            for piece in pieces[file]:
                self._heard = time.monotonic()
                yield ray.get(piece)

        try:
            shipping.take_in(bundle, read)
        except StudioError as error:
            return str(_there(error))
        return ""

    def _glance(self) -> None:
        self._heard = time.monotonic()
        if self._cut:
            raise Cut


def _there(error: StudioError) -> StudioError:
    """The same, with the machine that it happened on."""
    return StudioError(f"On the machine {platform.node()}: {error}")


def _check(errand: Errand) -> None:
    """Raises StudioError if candidates would not be here what they are on the driver's machine."""
    for package, here in versions().items():
        if (there := errand.versions.get(package, here)) != here:
            raise StudioError(
                f"{package} is {here} on this machine and {there} where the run is recorded; "
                "install the same versions on all of them."
            )
    models = spaces.reopen_models(Recipe.from_yaml(errand.recipe), errand.ancestors)
    for what, fingerprint in inputs.of_models(models).items():
        if errand.fingerprints[what] != fingerprint:
            raise StudioError(
                f"{what[0].upper()}{what[1:]} is another on this machine than where the run is "
                "recorded; bring the same files there, or pin a model of the hub (NAME@REVISION)."
            )
