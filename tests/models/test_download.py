"""Downloads from a hub that runs here: cut off and resumed, pinned, gated, missing, unreachable."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import make_model, save_model

COMMIT = "a" * 40

#: What opening a model does first; without torch, which takes longest to load.
RESOLVE = """
import sys
from studio.errors import StudioError
from studio.models import resolve
try:
    print(resolve(sys.argv[1]))
except StudioError as error:
    sys.exit(str(error))
"""


class Hub(http.server.ThreadingHTTPServer):
    """The little of the hub's interface that a download needs.

    Attributes:
        files: content by name, of owner/name.
        cut: bytes of the weights to send before the connection breaks, or None.
        sent: (name, first byte) of every request for content.
        token: what must be presented, or None.
    """

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Requests)
        self.files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.cut = self.token = None
        self.sent = []


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if not path.removeprefix("/api/models").startswith("/owner/name"):
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if self.server.token and self.server.token not in self.headers.get("Authorization", ""):
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "/revision/" in path and path.rpartition("/")[2] not in ("main", "v1", COMMIT):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if "/resolve/" in path:
            return self.content(path.rpartition("/")[2])
        siblings = [{"rfilename": n, "size": len(c)} for n, c in self.server.files.items()]
        if "/tree/" in path:
            siblings = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                        for n, c in self.server.files.items()]  # fmt: skip
            return self.answer(200, json.dumps(siblings).encode())
        info = {"id": "owner/name", "_id": "1", "sha": COMMIT, "siblings": siblings}
        self.answer(200, json.dumps(info).encode())

    def content(self, name):
        data = self.server.files[name]
        first = 0
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT,
                   "Accept-Ranges": "bytes"}  # fmt: skip
        status = 200
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if self.command == "GET":
            self.server.sent.append((name, first))
        cut = self.server.cut if name.endswith(".safetensors") else None
        self.answer(status, data[first:], headers, cut)

    def answer(self, status, body, headers=None, cut=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
            if cut is not None:
                self.server.cut = 0  # and it stays broken, however often it is tried
                self.close_connection = True


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """35 MB, large enough to be worth resuming."""
    large = make_model(layers=4, hidden_size=512, intermediate_size=1024)
    return save_model(large, tmp_path_factory.mktemp("served") / "name")


@pytest.fixture
def hub(model):
    served = Hub(model)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def fetch(hub, tmp_path):
    """`fetch("owner/name@v1")` → (exit status, what was said), by a process of its own."""

    def call(name, **environment):
        place = f"http://127.0.0.1:{hub.server_port}"
        environment = os.environ | {
            "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": place, "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "NO_PROXY": "127.0.0.1",
        } | environment  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", RESOLVE, name],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return call


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub, fetch):
    hub.cut = 22_000_000
    status, said = fetch("owner/name@v1")
    assert status == 1 and "could not be downloaded" in said and "goes on where" in said
    assert "Traceback" not in said
    begun = len(hub.sent)
    hub.cut = None
    status, said = fetch("owner/name@v1")
    assert status == 0, said
    folder = Path(said.strip())
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == hub.files
    resumed = dict(hub.sent[begun:])
    assert resumed["model.safetensors"] >= 20_000_000  # not from the beginning
    fetched = len(hub.sent)
    assert fetch("owner/name@v1")[0] == 0 and len(hub.sent) == fetched  # all is there
    status, said = fetch("owner/name@v1", HF_HUB_OFFLINE="1")  # without a network: from the cache
    assert status == 0, said


def test_what_is_gated_missing_or_of_another_revision(hub, fetch):
    assert "has no revision 'v9'" in fetch("owner/name@v9")[1]
    assert "There is no public repository" in fetch("owner/other")[1]
    hub.token = "secret"
    status, said = fetch("owner/name")
    assert status == 1 and "is gated: accept its terms" in said and "HF_TOKEN" in said
    assert fetch("owner/name", HF_TOKEN="hf_secret")[0] == 0


def test_without_a_network(fetch):
    status, said = fetch("owner/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1 and "hub cannot be reached" in said and "Traceback" not in said
