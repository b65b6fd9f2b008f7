"""Event files that TensorBoard shows, by the library ``tensorboardX``.

Knows the files and nothing of what is in them: a series is a folder, which TensorBoard takes for a
run of its own. Written in the caller's thread, so that a full disk is heard of.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from studio.runs.tracking import plain


class TensorBoard:
    """A folder of event files: ``tensorboard --logdir FOLDER``, or the folder around several.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> board = TensorBoard(Path(folder.name))
        >>> board.scalars("cma", 0, 1.79e9, {"score/jmath": 0.5})
        >>> board.close()
        >>> [file.parent.name for file in Path(folder.name).rglob("events.*")]
        ['cma']
        >>> folder.cleanup()
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writers: dict[str, EventsWriter] = {}

    def scalars(self, series: str, step: int, at: float, values: Mapping[str, float]) -> None:
        added = summary.Summary()
        for name, value in values.items():
            added.MergeFrom(summary.scalar(name, float(value)))
        self._writer(plain(series)).write_event(Event(wall_time=at, step=step, summary=added))

    def text(self, name: str, text: str, at: float) -> None:
        self._writer("").write_event(Event(wall_time=at, summary=summary.text(name, text)))

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, series: str) -> EventsWriter:
        if series not in self._writers:
            folder = self._folder / series
            folder.mkdir(parents=True, exist_ok=True)
            writer = self._writers[series] = EventsWriter(str(folder / "events"))
            # a TensorBoard that is open forgets what it read of files that were here before
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(wall_time=time.time(), session_log=start))
        return self._writers[series]
