"""Runs that several tests compare with or inspect."""

from __future__ import annotations

import json

import pytest

from tests.app_runs import run


@pytest.fixture(autouse=True, scope="module")
def _few_digits(few_digits):
    """Use every tenth digit in all runs of this folder."""


@pytest.fixture(scope="session")
def completed(tmp_path_factory):
    """Return the folder of a completed run with given settings; equal settings share a run."""
    folders = {}

    def folder_of(**settings):
        key = json.dumps(settings, sort_keys=True)
        if key not in folders:
            output_dir = tmp_path_factory.mktemp("completed")
            run(output_dir, **settings)
            folders[key] = output_dir / "run"
        return folders[key]

    return folder_of
