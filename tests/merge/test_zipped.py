"""Exports as a zip file: whole, with weights as they are, or not at all."""

import zipfile

import pytest

from studio.errors import StudioError
from studio.merge.zipped import zip_folder


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mine"
    made.mkdir()
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 40_000)
    (made / "README.md").write_text("words " * 1000)
    return made


def test_a_zip_holds_the_folder(folder, tmp_path):
    told = []
    file = zip_folder(folder, tmp_path / "mine.zip", lambda *at: told.append(at))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        entries = {entry.filename: entry for entry in archive.infolist()}
        assert set(entries) == {"mine/model.safetensors", "mine/README.md"}
        for path in folder.iterdir():
            assert archive.read(f"mine/{path.name}") == path.read_bytes()
    assert entries["mine/model.safetensors"].compress_type == zipfile.ZIP_STORED
    readme = entries["mine/README.md"]
    assert readme.compress_size < readme.file_size / 10
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert told[-1] == (total, total) and len(told) >= 3


def test_nothing_is_left_of_a_zip_that_was_given_up(folder, tmp_path):
    def enough(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zip_folder(folder, tmp_path / "mine.zip", enough)
    with pytest.raises(StudioError, match="could not be written"):
        zip_folder(folder, tmp_path / "no" / "such" / "mine.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
