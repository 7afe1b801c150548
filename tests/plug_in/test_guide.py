"""The code of the guide is part of an example project, which other tests run, or runs here."""

import re
import textwrap
from functools import partial
from pathlib import Path

import flwr.clientapp
import flwr.clientapp.mod
import flwr.serverapp.strategy
import pytest
import torch
from flwr.clientapp import ClientApp

import fgl_app.plug_in
import fgl_app.strategies
from fgl_app.algorithms.plateau import is_plateau
from fgl_app.models.unets import build_unet
from tests.plug_in.projects import cnn

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "plug-in.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
PROJECTS = [file.read_text(encoding="utf-8") for file in (ROOT / "examples").rglob("*.py")]


make_unet = partial(build_unet, "small", channels=1, side=8, num_classes=10, seed=0)


def is_of_an_example(block):
    return any(textwrap.indent(block, " " * depth) in text for text in PROJECTS for depth in (0, 4))


def test_the_main_blocks_are_in_the_examples():
    assert sum(map(is_of_an_example, BLOCKS)) == 9


@pytest.mark.parametrize("block", [block for block in BLOCKS if not is_of_an_example(block)])
def test_the_other_blocks_run(block, tmp_path, monkeypatch, tiny_generator):
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(room, name) for room in (fgl_app.plug_in, fgl_app.strategies,
             flwr.serverapp.strategy, flwr.clientapp.mod) for name in room.__all__}  # fmt: skip
    names |= {"Net": cnn, "make_unet": make_unet, "Path": Path, "partial": partial, "is_plateau": is_plateau}
    names["config"] = {"run-folder": str(tmp_path), "image-folder": str(tmp_path / "set"), "resume": True}
    names["MODEL"] = str(tiny_generator)
    names |= {"labels": torch.tensor([0, 1]), "app": ClientApp(), "my_sample": list, "local_images": None}
    exec(block, names)
