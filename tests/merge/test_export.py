"""What is written is what was measured, whole or not at all."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from studio.errors import StudioError
from studio.merge.export import export as write
from studio.merge.live import LiveModel
from studio.merge.methods import METHODS

TEXT = {"card": "---\nlicense: mit\n---\n# card\n", "recipe_yaml": "name: test\n"}
TOKENS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 46]])


def export(space, genome, out, precision="fp32", **options):
    merged = space.checkpoint(genome, precision, "merged")
    return write(merged, out, **TEXT, **options)


def loaded(folder):
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def leftovers(folder) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith(".partial")]


@pytest.mark.parametrize("method", METHODS)
def test_loading_the_export_gives_the_live_models_logits(
    make_space, random_genome, tmp_path, method
):
    sources = ("ja", "math") if method == "slerp" else ("ja", "math", "abel")
    space = make_space(sources=sources, method=method, filters=["mlp"])
    live = LiveModel(space, device="cpu")
    live.apply(random_genome(space))
    model = loaded(export(space, random_genome(space), tmp_path / "out"))
    assert model.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, live.model(TOKENS).logits)


@pytest.mark.parametrize("family", [{"tied": True}, {"tied": True, "mixed": ("math",)}])
def test_tied_and_mixed_families(make_space, random_genome, tmp_path, family):
    space = make_space(**family)
    live = LiveModel(space, device="cpu")
    live.apply(random_genome(space))
    model = loaded(export(space, random_genome(space), tmp_path / "out"))
    assert model.config.tie_word_embeddings == space.tied == ("mixed" not in family)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, live.model(TOKENS).logits)


def test_bf16_from_bf16_sources(make_space, random_genome, tmp_path):
    space = make_space(dtype="bfloat16")
    live = LiveModel(space, precision="bf16", device="cpu")
    live.apply(random_genome(space))
    out = export(space, random_genome(space), tmp_path / "out", precision="bf16")
    model = loaded(out)
    assert model.dtype == torch.bfloat16
    parameters = dict(model.named_parameters())
    for name, tensor in live.state_dict().items():
        assert torch.equal(parameters[name], tensor)
    assert "out_dtype: bfloat16" in (out / "mergekit.yaml").read_text()


def test_the_folder_is_complete_and_generates_the_same(make_space, random_genome, tmp_path):
    from transformers import AutoTokenizer

    space = make_space()
    live = LiveModel(space, device="cpu")
    live.apply(random_genome(space))
    out = export(space, random_genome(space), tmp_path / "new" / "out")
    assert {path.name for path in out.iterdir()} == {
        "README.md", "recipe.yaml", "genome.json", "mergekit.yaml", "config.json",
        "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }  # fmt: skip
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    assert (out / "README.md").read_text() == TEXT["card"]
    assert (out / "recipe.yaml").read_text() == TEXT["recipe_yaml"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "りんごは12個ですか。"}]
    assert tokenizer.apply_chat_template(
        chat, tokenize=False
    ) == live.tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.get_vocab() == live.tokenizer.get_vocab()
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(TOKENS)}
    assert torch.equal(
        loaded(out).generate(TOKENS, **options), live.model.generate(TOKENS, **options)
    )


def test_nothing_of_this_machine_is_exported(make_space, random_genome, tmp_path):
    space = make_space()
    out = export(space, random_genome(space), tmp_path / "out")
    for path in out.glob("*.json"):
        assert str(space.sources[0].path.parent) not in path.read_text(), path.name
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert not {"local_files_only", "name_or_path", "is_local"} & set(settings)


def test_large_models_are_sharded(make_space, random_genome, tmp_path):
    space = make_space()
    whole = loaded(export(space, random_genome(space), tmp_path / "whole"))
    out = export(space, random_genome(space), tmp_path / "out", max_shard_size=200_000)
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(shards) > 2 and "model.safetensors" not in shards
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(space.tensors)
    assert sorted(set(index["weight_map"].values())) == shards
    with torch.no_grad():
        assert torch.equal(loaded(out)(TOKENS).logits, whole(TOKENS).logits)


def test_an_export_can_be_a_source_again(make_space, random_genome, tmp_path):
    from studio.merge.parameter_space import ParameterSpace
    from studio.models import Checkpoint, check_compatible

    space = make_space()
    out = export(space, random_genome(space), tmp_path / "out")
    sources = [Checkpoint.open(out), space.sources[0]]
    check_compatible(space.base, sources)
    again = ParameterSpace(space.base, sources)
    assert sources[0].licence == "mit"
    LiveModel(again, device="cpu").apply(again.initial)


def test_an_empty_folder_may_be_filled(make_space, tmp_path):
    space = make_space()
    (tmp_path / "out").mkdir()
    assert (export(space, space.initial, tmp_path / "out") / "config.json").is_file()


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def forbidden(*arguments, **options):
    raise PermissionError(errno.EACCES, "Permission denied")


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "failure", "error", "message"),
    [
        ("studio.merge.export.write_model", no_space, StudioError, "disk is full"),
        ("studio.merge.export.write_model", interrupted, KeyboardInterrupt, None),
        ("os.fsync", no_space, StudioError, "disk is full"),
        ("pathlib.Path.write_text", no_space, StudioError, "disk is full"),
        ("pathlib.Path.mkdir", forbidden, StudioError, "may not write"),
        ("os.replace", forbidden, StudioError, "may not write"),
        ("studio.merge.virtual.speaker", no_space, StudioError, "disk is full"),
    ],
)
def test_a_failure_leaves_nothing_behind(
    make_space, tmp_path, monkeypatch, where, failure, error, message
):
    space = make_space()
    with monkeypatch.context() as patch:
        patch.setattr(where, failure)
        with pytest.raises(error, match=message):
            export(space, space.initial, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert export(space, space.initial, tmp_path / "out").is_dir()


def test_a_source_that_breaks_off_leaves_nothing_behind(make_space, tmp_path, monkeypatch):
    space = make_space()
    merged = space.checkpoint(space.initial, "fp32", "merged")
    last = merged.names()[-1]

    def pieces(name, whole=merged.pieces):
        if name == last:
            raise StudioError("It became shorter while it was read; copy it again.")
        return whole(name)

    monkeypatch.setattr(merged, "pieces", pieces)
    with pytest.raises(StudioError, match="became shorter"):
        write(merged, tmp_path / "out", **TEXT)
    assert list(tmp_path.iterdir()) == []


def test_it_tells_how_far_it_is(make_space, tmp_path):
    space = make_space()
    told = []
    export(space, space.initial, tmp_path / "out", on_bytes=lambda *news: told.append(news))
    size = space.checkpoint(space.initial, "fp32", "m").size
    written = [done for done, _ in told]
    assert written == sorted(written) and told[-1] == (size, size)
    assert len(told) >= len(space.tensors)


#: An export to argv[1] that says so once bytes are on their way, and then takes its time.
SLOW = """
import signal, sys, time
import torch
from studio.merge.export import export

# a shell that starts something in the background has it ignore Ctrl-C, and so its children
signal.signal(signal.SIGINT, signal.default_int_handler)

class Slow:
    dtype, size, frame = torch.float32, 40_000_000, None
    def dtype_of(self, name): return self.dtype
    def names(self): return ["one"]
    def shape(self, name): return (10_000_000,)
    def pieces(self, name):
        for number in range(10):
            yield torch.zeros(1_000_000)
            print("writing", flush=True)
            time.sleep(60 if number == 3 else 0)

export(Slow(), sys.argv[1], card="")
"""


@pytest.fixture
def slow_export():
    """`slow_export(out)` → a process in the midst of an export, ended after the test."""
    running = []

    def start(out) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(out)],
            cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        assert [process.stdout.readline() for _ in range(4)] == ["writing\n"] * 4
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_stopped_tidies_up(slow_export, tmp_path, number):
    process = slow_export(tmp_path / "out")
    assert leftovers(tmp_path) and not (tmp_path / "out").exists()
    process.send_signal(number)
    assert process.wait(30) != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_export_leaves_nothing_that_looks_finished(slow_export, make_space, tmp_path):
    """And the next one to the same place clears it away, but not what another is writing."""
    killed, other = slow_export(tmp_path / "out"), slow_export(tmp_path / "out")
    bystander = slow_export(tmp_path / "out2")
    assert len(leftovers(tmp_path)) == 3
    killed.kill()
    killed.wait()
    assert len(leftovers(tmp_path)) == 3 and not (tmp_path / "out").exists()
    export(make_space(), make_space().initial, tmp_path / "out")
    assert len(leftovers(tmp_path)) == 2 and (tmp_path / "out" / "config.json").is_file()
    assert other.poll() is None and bystander.poll() is None


def test_two_threads_export_to_different_places(make_space, random_genome, tmp_path):
    """Also outside the main thread, which alone may listen for signals."""
    space, failed = make_space(), []

    def work(number):
        try:
            export(space, random_genome(space, number), tmp_path / f"out{number}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(list(tmp_path.iterdir())) == 3


def test_whoever_handles_sigterm_goes_on_doing_so(make_space, tmp_path):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        export(
            make_space(), make_space().initial, tmp_path / "out",
            on_bytes=lambda *_: heard or os.kill(os.getpid(), signal.SIGTERM),
        )  # fmt: skip
        time.sleep(0)
        assert heard and (tmp_path / "out").is_dir()
    finally:
        signal.signal(signal.SIGTERM, before)
    export(make_space(), make_space().initial, tmp_path / "again")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_is_noticed_before_writing(make_space, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StudioError, match="GB free, and the export needs"):
        export(make_space(), make_space().initial, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_existing_targets_are_never_touched(make_space, tmp_path):
    space = make_space()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    (tmp_path / "file").write_text("mine too")
    for target, message in (
        (tmp_path / "full", "not empty"),
        (tmp_path / "file", "not a folder"),
        (tmp_path / "file" / "inside", "is not a folder"),
    ):
        with pytest.raises(StudioError, match=message):
            export(space, space.initial, target)
    assert (tmp_path / "full" / "precious.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine too"
    assert leftovers(tmp_path) == []


def test_a_wrong_genome_writes_nothing(make_space, tmp_path):
    space = make_space()
    with pytest.raises(StudioError, match="must lie between"):
        export(space, np.full(len(space.genes), np.nan), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_mergekit_yaml_is_plain_yaml(make_space, tmp_path):
    space = make_space()
    out = export(space, space.initial, tmp_path / "out")
    text = (out / "mergekit.yaml").read_text()
    document = yaml.safe_load(text)
    assert document["merge_method"] == "dare_ties" and document["dtype"] == "float32"
    assert "mergekit draws other masks" in text
