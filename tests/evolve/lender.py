"""A ZeroGPU to test against: its scheduler as a small server, and its forked worker.

The server speaks what the package ``spaces`` asks for (``/startup-report``, ``/schedule``,
``/allow``, ``/release``) and may refuse. The worker is a stand-in as strict as the real one, for
tests that want many of them: arguments and results are pickled, the process is a fork, any use of a
database in it is an error, and it is killed when its time is up.
"""

import json
import multiprocessing
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

_fork = multiprocessing.get_context("fork")


class Refused(Exception):
    """As gr.Error: the words are in its message."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message


class Lender:
    """Lends a worker to the calls of one generator function.

    Args:
        refuses: told the number of a call (0 for the first), says whether it gets no GPU.
    """

    def __init__(
        self,
        function: Callable,
        duration: Callable[..., float],
        refuses: Callable[[int], bool] = lambda call: False,
    ):
        self.function, self.duration, self.refuses = function, duration, refuses
        self.calls: list[float] = []  # seconds asked for
        self.lent: list[object] = []  # arguments, of calls that were granted

    def __call__(self, argument: object) -> Iterator[object]:
        seconds = self.duration(argument)
        self.calls.append(seconds)
        if self.refuses(len(self.calls) - 1):
            raise Refused(f"You have exceeded your quota ({seconds}s requested vs. 0s left).")
        self.lent.append(argument)
        mine, theirs = _fork.Pipe(duplex=False)
        sent = pickle.dumps(argument)
        worker = _fork.Process(target=self._work, args=(sent, theirs), daemon=True)
        worker.start()
        theirs.close()
        killer = threading.Timer(seconds, worker.kill)
        killer.start()
        try:
            while True:
                try:
                    kind, value = pickle.loads(mine.recv_bytes())
                except EOFError:
                    raise Refused("GPU task aborted") from None
                if kind == "end":
                    return
                if kind == "error":  # of which only the name comes back
                    raise Refused(value)
                yield value
        finally:
            killer.cancel()
            worker.kill()
            worker.join()
            mine.close()

    def _work(self, sent: bytes, out) -> None:
        def forbidden(*_, **__):
            raise AssertionError("a database in the worker")

        from studio.runs.store import Store

        sqlite3.connect = forbidden
        Store._rows = Store._transaction = forbidden
        try:
            for value in self.function(pickle.loads(sent)):
                out.send_bytes(pickle.dumps(("value", value)))
        except BaseException as error:
            out.send_bytes(pickle.dumps(("error", type(error).__name__)))
        else:
            out.send_bytes(pickle.dumps(("end", None)))


class Scheduler(ThreadingHTTPServer):
    """ZeroGPU's device API on a free port of this machine.

    Attributes:
        asked: (path, parameters) of every request, in order.
        granting: how many schedules are granted before the rest is refused.
    """

    daemon_threads = True

    def __init__(self, granting: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.granting = granting
        self.asked: list[tuple[str, dict[str, str]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host}:{port}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Scheduler

    def do_POST(self) -> None:
        address = urlparse(self.path)
        parameters = {key: values[0] for key, values in parse_qs(address.query).items()}
        self.server.asked.append((address.path, parameters))
        number = self.server.paths().count("/schedule")
        if address.path != "/schedule":
            return self._answer(200, {})
        if number > self.server.granting:
            return self._answer(429, {"left": 3, "wait": 3600})
        grant = {"idle": number > 1, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "t"}
        self._answer(200, grant)

    def _answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass
