"""Bundle one finished run as the sample run that a first visit to the Studio shows.

python assets/build/sample_run.py RUN
"""

import sys
import tempfile
from pathlib import Path

from studio import api
from studio.runs import Store

store = Store()
run = store.run(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    alone = Store(Path(folder) / "runs.sqlite")
    alone.import_runs(store.path)
    for other in alone.runs():
        if other.id != run.id:
            alone.delete_run(other.id)
    api.SAMPLE_RUN.unlink(missing_ok=True)
    alone.save_copy(api.SAMPLE_RUN)
    alone.close()
print(f"{api.SAMPLE_RUN.name}: {api.SAMPLE_RUN.stat().st_size / 1e6:.1f} MB")
