"""The finished runs that come with the Studio, and a workspace's store with those in it."""

from studio.runs import Store, snapshots
from studio.workspace import ASSETS

SAMPLE_RUN = ASSETS / "sample-run.sqlite"
#: Rows 5 and 6 of the paper's table in miniature; row 4 is the sample run (`studio.paper`).
PAPER_RUNS = ASSETS / "paper-runs.sqlite"


def open_store() -> Store:
    """The workspace's store, with the bundled finished runs in it.

    Where ``STUDIO_VOLUME`` holds a snapshot and the workspace no store yet, it begins with that.
    """
    if folder := snapshots.volume():
        snapshots.restore(folder)
    store = Store()
    for bundle in (SAMPLE_RUN, PAPER_RUNS):
        if bundle.is_file():
            store.import_runs(bundle)
    return store


def bundled_runs() -> list[str]:
    """The ids of the runs that come with the Studio, the sample run first."""
    store = Store(":memory:")
    return [
        run
        for bundle in (SAMPLE_RUN, PAPER_RUNS)
        if bundle.is_file()
        for run in store.import_runs(bundle)
    ]
