"""Planning over models of real size: opened, compared and laid out without reading their weights.

The models are four of Mistral 7B's form, in two shards each as on the hub. Their files are sparse:
a header and a length, so that 58 GB take a few hundred kB of the disk. What is measured is a
process of its own, from after its imports.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.sparse import MISTRAL_7B, sparse_model

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is read from /proc"
)

PLAN = """
import json, pathlib, re, sys, time
import torch, transformers, psutil
import transformers.models.mistral.modeling_mistral
from studio.merge.parameter_space import ParameterSpace
from studio.models import check_compatible, open_source

def most():
    # not getrusage's: that begins with what the process that started this one had
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024

imported = psutil.Process().memory_info().rss
begin = time.process_time()
models = [open_source(name) for name in sys.argv[1:]]
check_compatible(models[0], models[1:])
space = ParameterSpace(models[0], models[1:], method="dare_ties")
needed = space.memory("bf16")
prints = [model.fingerprint() for model in models]
seconds = time.process_time() - begin
print(json.dumps({
    "seconds": seconds,
    "imported": imported,
    "most": most(),
    "genes": len(space.names),
    "parameters": models[0].parameters,
    "needed": needed,
    "distinct": len(set(prints)),
}))
"""


@pytest.fixture(scope="module")
def mistrals(tmp_path_factory):
    """Five folders; the last one's config ties head and embedding, and its files hold both."""
    folders = []
    for number in range(5):
        folder = sparse_model(tmp_path_factory.mktemp("hub") / f"mistral-{number}", MISTRAL_7B)
        if number == 4:
            settings = json.loads((folder / "config.json").read_text())
            settings["tie_word_embeddings"] = True
            (folder / "config.json").write_text(json.dumps(settings))
        else:
            with (folder / "model-00001-of-00002.safetensors").open("r+b") as stream:
                stream.seek(60_000 + number)  # behind the header: they are not all one model
                stream.write(b"x")
        folders.append(folder)
    return folders


def measure(code, folders):
    taken = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        check=True, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    print(taken.stdout)  # `pytest -s` shows it
    return json.loads(taken.stdout.splitlines()[-1])


def test_planning_a_merge_of_four_7b_models_reads_no_weights(mistrals):
    measured = measure(PLAN, mistrals[:4])
    assert measured["parameters"] == 7_241_732_096
    assert measured["genes"] == 3 * 2 * 34 and measured["distinct"] == 4
    assert measured["seconds"] < 2
    assert measured["most"] < 1e9 and measured["most"] - measured["imported"] < 100e6


def test_a_head_that_may_be_the_embedding_is_compared_piece_by_piece(mistrals):
    """262 MB of each are read to find out; none of it stays."""
    code = PLAN.replace("models = ", "assert open_source(sys.argv[1]).tied\nmodels = ")
    measured = measure(code, [mistrals[4], mistrals[0]])
    assert measured["most"] - measured["imported"] < 100e6
