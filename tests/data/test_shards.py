"""Folders of synthetic sets: each belongs to one manifest."""

import json

import pytest

from fgl_app.data.shards import open_or_create_set


def test_each_set_has_a_folder_of_its_own(tmp_path):
    first = open_or_create_set(tmp_path / "set", {"format": 1})
    assert json.loads((first / ".manifest.json").read_text()) == {"format": 1}
    assert open_or_create_set(tmp_path / "set", {"format": 2}).name == "set-2"
    assert open_or_create_set(tmp_path / "set", {"format": 3}).name == "set-3"
    assert open_or_create_set(tmp_path / "set", {"format": 2}).name == "set-2"


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="must be new, empty or a synthetic set"):
        open_or_create_set(tmp_path, {"format": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"folder .*/file/set cannot be created: Not a directory"):
        open_or_create_set(tmp_path / "file" / "set", {"format": 1})
