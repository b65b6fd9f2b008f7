import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.models.headers import INDEX, SINGLE, read_folder, read_header


def write(file, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    file.write_bytes(size.to_bytes(8, "little") + text + data)
    return file


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_sound_file(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "a": entry([2, 3], 0, 24), "b": entry([], 24, 28)}
    tensors = read_header(write(tmp_path / SINGLE, header, bytes(28)))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (2, 3), "b": ()}


@pytest.mark.parametrize("kept", [0, 5, 8, 100, 300, -1])
def test_a_truncated_file_is_caught_by_its_size(tiny_family, tmp_path, kept):
    whole = (tiny_family["ja"] / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:kept])
    with pytest.raises(StudioError, match="is truncated: .* download or copy it again"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"{not json", b"", None),
        (b"\xff\xfe\x00", b"", None),
        (b"[1, 2]", b"", None),
        (b"[" * 100_000, b"", None),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", None),
        (b'{"a": {}, "a": {}}', b"", None),
        ({"a": {}}, b"", None),
        ({"a": 3}, b"", None),
        ({"a": entry([-1], 0, 4)}, bytes(4), None),
        ({"a": entry([True], 0, 4)}, bytes(4), None),
        ({"a": entry([1e9], 0, 4)}, bytes(4), None),
        ({"a": entry([2], 0, 4)}, bytes(4), None),
        ({"a": entry([1], 4, 8)}, bytes(8), None),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(8), None),
        ({"a": entry([1], 0, 4)}, bytes(9), None),
        ({}, b"", 2**60),
    ],
)
def test_corrupt_headers(tmp_path, header, data, length):
    with pytest.raises(StudioError, match="is corrupt or not a safetensors file"):
        read_header(write(tmp_path / SINGLE, header, data, length))


def test_a_quantized_dtype_and_a_git_lfs_pointer(tmp_path):
    with pytest.raises(StudioError, match="cannot be merged"):
        read_header(write(tmp_path / "a", {"a": entry([2], 0, 1, "F4")}, b"x"))
    (tmp_path / "b").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(StudioError, match="git lfs pull"):
        read_header(tmp_path / "b")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_never_raise_anything_else(tmp_path_factory, data):
    """Random bytes, and a sound file with bytes flipped: a table or a StudioError."""
    file = tmp_path_factory.mktemp("fuzz") / SINGLE
    write(file, {"a": entry([2, 3], 0, 24), "b": entry([], 24, 28)}, bytes(28))
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(data.draw(st.one_of(st.just(bytes(whole)), st.binary(max_size=200))))
    try:
        read_header(file)
    except StudioError as error:
        assert str(error).endswith(".")


@pytest.fixture
def sharded(tmp_path):
    """Two sound shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    where = {}
    for number, name in enumerate("ab"):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        write(folder / shard, {name: entry([1], 0, 4)}, bytes(4))
        where[name] = shard
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_shards(sharded):
    tensors = read_folder(sharded)
    assert [tensors[name].file.name[:11] for name in "ab"] == ["model-00001", "model-00002"]


def test_shards_may_be_links_as_in_the_hub_cache(sharded, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in sharded.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert set(read_folder(snapshot)) == {"a", "b"}


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(StudioError, match="lacks the shard model-00002-of-00002.safetensors"):
        read_folder(sharded)


@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "..\\outside.safetensors",
        "sub/outside.safetensors",
        "C:outside.safetensors",
        "pytorch_model.bin",
        "",
    ],
)
def test_an_index_never_leads_out_of_its_folder(sharded, shard):
    write(sharded.parent / "outside.safetensors", {"a": entry([1], 0, 4)}, bytes(4))
    (sharded / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(StudioError, match="is refused"):
        read_folder(sharded)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'],
)
def test_a_malformed_index(sharded, index):
    (sharded / INDEX).write_text(index)
    with pytest.raises(StudioError, match="not a readable shard index"):
        read_folder(sharded)


def test_an_index_of_another_download(sharded):
    shard = "model-00001-of-00002.safetensors"
    (sharded / INDEX).write_text(json.dumps({"weight_map": {"a": shard, "c": shard}}))
    with pytest.raises(StudioError, match="'c' is in .*, and it is not"):
        read_folder(sharded)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds no weights"),
        (["pytorch_model.bin"], "only pickled weights .*convert them to safetensors"),
        (["model.ckpt", "optimizer.pt"], "only pickled weights"),
        (["training_args.bin"], "holds no weights"),
        (["model-00001-of-00002.safetensors"], "not their index"),
        (["weights.safetensors"], "rename the file"),
        (["model-q4.gguf"], "holds GGUF weights; name the file itself"),
    ],
)
def test_folders_without_usable_weights(tmp_path, files, words):
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(StudioError, match=words):
        read_folder(tmp_path)


def test_safetensors_win_over_pickles_beside_them(tiny_family, tmp_path):
    shutil.copy(tiny_family["ja"] / SINGLE, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert "lm_head.weight" in read_folder(tmp_path)
