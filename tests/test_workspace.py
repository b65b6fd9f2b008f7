"""Folders that cannot be made or written to are one sentence, never a traceback."""

import errno
import os
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.workspace import subfolder, workspace


def test_a_subfolder_is_made_and_made_again_without_harm(tmp_path):
    made = subfolder(tmp_path / "new", "locks")
    (made / "kept").touch()
    assert made == tmp_path / "new" / "locks"
    assert subfolder(tmp_path / "new", "locks") == made
    assert (made / "kept").exists()


@pytest.mark.parametrize("in_the_way", ["locks", "."])
def test_a_file_in_the_way_is_named(tmp_path, in_the_way):
    parent = tmp_path / "parent"
    if in_the_way == ".":
        parent.touch()
    else:
        parent.mkdir()
        (parent / in_the_way).touch()
    with pytest.raises(StudioError, match="a file is in the way; move that file") as caught:
        subfolder(parent, "locks")
    assert str(parent / "locks") in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_the_system_says_is_passed_on(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    # Refused by hand: the tests may run as root, whom no permission stops.
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StudioError) as caught:
        subfolder(tmp_path, "locks")
    assert os.strerror(number) in str(caught.value)
    assert "STUDIO_WORKSPACE" in str(caught.value)


def test_a_folder_nobody_may_write_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StudioError, match="not writable"):
        subfolder(tmp_path, "locks")


def test_the_workspace_is_made_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path / "mine"))
    assert workspace() == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()


def test_a_workspace_that_is_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine").touch()
    monkeypatch.setenv("STUDIO_WORKSPACE", str(tmp_path / "mine"))
    with pytest.raises(StudioError, match="set STUDIO_WORKSPACE"):
        workspace()
