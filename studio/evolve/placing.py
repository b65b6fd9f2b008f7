"""Where a run's jobs are done: here, by a process per device, or by the workers of a Ray cluster.

That is no part of a recipe, for it changes nothing of what is found: a run may be begun in one
place and gone on with in another. Knows the places by name and what each needs said. Refuses to
know how one works: their modules are imported when they are used.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.visitors import is_public

if TYPE_CHECKING:
    from studio.evolve.executors import Bench, Executor
    from studio.runs.store import Store

#: name → "module:Class" of a crew; "here" is this process itself.
EXECUTORS = {
    "here": "",
    "devices": "studio.evolve.devices:Devices",
    "ray": "studio.evolve.cluster:Cluster",
}


@dataclass(frozen=True)
class Place:
    """Where jobs are done.

    Example:
        >>> Place("devices", workers=2)
        Place(executor='devices', workers=2, address='', timeout=900.0)

    Attributes:
        executor: one of `EXECUTORS`.
        workers: how many; as many as there are devices, or as a cluster has room for, if None.
        address: of a Ray cluster: HOST:PORT, ray://HOST:PORT or "auto"; where it is empty, the one
            that runs on this machine, else a new one of this machine alone.
        timeout: seconds after which a worker that got nothing done is replaced.

    Raises:
        StudioError: there is no such executor, or it takes no such setting, or needs a library that
            is not installed.
    """

    executor: str = "here"
    workers: int | None = None
    address: str = ""
    timeout: float = 900.0

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise StudioError(
                f"There is no executor {self.executor!r}; choose one of {', '.join(EXECUTORS)}."
            )
        if self.workers is not None and (self.workers < 1 or self.executor == "here"):
            raise StudioError(
                "The executor devices or ray takes a number of workers, from 1 on; leave it out "
                "otherwise."
            )
        if self.address and self.executor != "ray":
            raise StudioError("Only the executor ray has an address; leave it out otherwise.")
        if not self.timeout > 0:
            raise StudioError(f"A timeout has to be above 0 seconds, not {self.timeout:g}.")
        if self.executor == "ray" and importlib.util.find_spec("ray") is None:
            raise StudioError(
                "Working on a Ray cluster needs the library ray, which is not installed; run "
                '`pip install "evollm-studio[cluster]"`.'
            )

    @classmethod
    def recorded(cls, store: "Store", run: str) -> "Place":
        """Where a run was last worked on; here, where nothing is noted of that, and in public.

        Raises:
            StudioError: that place is no more.
        """
        noted = store.place(run)
        return cls(**json.loads(noted)) if noted and not is_public() else cls()

    def record(self, store: "Store", run: str) -> None:
        """Note that a run is worked on in this place."""
        store.set_place(run, "" if self == Place() else json.dumps(asdict(self)))

    @contextmanager
    def opened(self) -> "Iterator[Callable[[Bench], Executor]]":
        """Within: what makes, of a bench, who does the jobs; workers are let go at the end."""
        where = EXECUTORS[self.executor]
        if not where:
            from studio.evolve.executors import InProcess

            yield InProcess
            return
        module, _, name = where.partition(":")
        crew = getattr(import_module(module), name)
        with ExitStack() as stack:
            yield lambda bench: stack.enter_context(closing(crew(bench, self)))
