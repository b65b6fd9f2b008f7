"""Files written piece by piece, as safetensors' own reader sees them."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from studio.merge.shards import CODES, write_file
from studio.models.headers import read_header

SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=5)


def cut(tensor: torch.Tensor, size: int) -> list[torch.Tensor]:
    """A tensor in pieces of at most ``size`` entries, and an empty one for good measure."""
    return [*tensor.flatten().split(size), tensor.flatten()[:0]]


@given(SHAPES, st.sampled_from(list(CODES)), st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, shapes, dtype, size, data):
    path = tmp_path_factory.mktemp("shard") / "model.safetensors"
    names = data.draw(
        st.lists(st.text(max_size=8), min_size=len(shapes), max_size=len(shapes), unique=True)
    )
    names = [f"{name}." for name in names]  # never the format's own "__metadata__"
    tensors = {
        name: torch.randn(shape).to(dtype) for name, shape in zip(names, shapes, strict=True)
    }
    told = []
    write_file(
        path, dtype, {name: tensor.shape for name, tensor in tensors.items()},
        lambda name: cut(tensors[name], size), told.append,
    )  # fmt: skip
    assert sum(told) == sum(tensor.nbytes for tensor in tensors.values())
    read = load_file(path)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype and torch.equal(read[name], tensor)
    assert {name: found.shape for name, found in read_header(path).items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }


def test_the_form_is_the_formats_own(tmp_path):
    path = tmp_path / "model.safetensors"
    write_file(path, torch.bfloat16, {"odd": (3,), "even": (2, 2)}, lambda name: [torch.ones(
        {"odd": 3, "even": 4}[name], dtype=torch.bfloat16)])  # fmt: skip
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0 and json.loads(raw[8 : 8 + length])["odd"]["data_offsets"] == [0, 6]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_pieces_are_asked_for_one_at_a_time(tmp_path):
    """The next one is made when the last is written, and nobody holds on to any."""
    alive = set()

    class Piece(torch.Tensor):
        def __del__(self):
            alive.discard(id(self))

    def pieces(name):
        for _ in range(5):
            assert len(alive) <= 1
            piece = torch.zeros(10).as_subclass(Piece)
            alive.add(id(piece))
            yield piece
            del piece

    write_file(tmp_path / "a.safetensors", torch.float32, {"one": (50,)}, pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [torch.zeros(5)],
        [torch.zeros(5), torch.zeros(2)],
        [],
        [torch.zeros(6, dtype=torch.float16)],
        [torch.zeros(3), torch.zeros(3, dtype=torch.float64)],
    ],
)
def test_pieces_that_are_not_what_was_promised(tmp_path, pieces):
    with pytest.raises(ValueError, match="the pieces of one are not the"):
        write_file(
            tmp_path / "a.safetensors", torch.float32, {"one": (2, 3), "two": (1,)},
            lambda name: pieces if name == "one" else [torch.zeros(1)],
        )  # fmt: skip


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_file(path, torch.float32, {"one": (math.prod((2, 3)),)}, lambda name: [])
    assert path.read_bytes() == b"precious"
