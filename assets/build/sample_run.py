"""Bundle finished runs, one file each for the sample run and for rows 5 and 6 of the paper's table.

    python -m studio paper && python assets/build/sample_run.py

Takes them from the workspace; `python -m studio paper` runs what is not there yet, and the
ablations with it. The sample run, which a first visit shows, is row 4.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path

from studio import api, paper
from studio.runs import Store


def bundle(store: Store, runs: Collection[str], target: Path) -> None:
    """Write some runs of a store as a compact store of their own."""
    with tempfile.TemporaryDirectory() as folder:
        alone = Store(Path(folder) / "runs.sqlite")
        alone.import_runs(store.path)
        for other in alone.runs():
            if other.id not in runs:
                alone.delete_run(other.id)
        target.unlink(missing_ok=True)
        alone.save_copy(target)
        alone.close()
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    store = api.open_store()
    rows = {row: paper.run_of(row, store).id for row in (paper.PS, paper.DFS, paper.BOTH)}
    bundle(store, [rows[paper.PS]], api.SAMPLE_RUN)
    bundle(store, [rows[paper.DFS], rows[paper.BOTH]], api.PAPER_RUNS)


if __name__ == "__main__":
    main()
