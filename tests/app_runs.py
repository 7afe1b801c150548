"""Runs of ServerApp and ClientApps on a grid in the test's process, at tiny size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict
from safetensors.torch import load_file

from fgl_app.client_app import app as client_app
from fgl_app.config import config_keys
from fgl_app.server_app import app as server_app
from tests.fake_grid import FakeGrid, app_node

TINY = {
    "dirichlet-alpha": 1.0,
    "images-per-class": 4,
    "num-inference-steps": 2,
    "synthetic-epochs": 2,
    "local-epochs": 1,
    "batch-size": 128,
    "augmentation": "none",
    "device": "cpu",
}
"""Config of every run."""
COLOURS = {"partitioning": "iid", "image_size": 8, "batch_size": 10}
DIFFUSION = {
    **COLOURS,
    "method": "diffusion",
    "num_server_rounds": 2,
    "diffusion_space": "pixel",
    "local_pretrain_epochs": 1,
    "local_pretrain_min_steps": 2,
    "auxiliary_size": 30,
    "server_epochs": 1,
    "sampling_steps": 2,
    "metric_samples": 40,
    "evaluate_every": 100,
}


@dataclass(frozen=True)
class ColourSettings:
    """Settings of runs on 60 images of three colours.

    Attributes
    ----------
    folder : Path
        The dataset.
    generator : Path
        A pipeline for FGL: the embedded generator cannot draw colours.
    extractor : Path
        A feature extractor for the metrics of generated images.
    """

    folder: Path
    generator: Path
    extractor: Path

    @property
    def classifier(self) -> dict:
        """Three rounds of a classifier."""
        return {**COLOURS, "method": "classifier", "num_server_rounds": 3, "dataset": str(self.folder)}

    @property
    def fgl(self) -> dict:
        """FGL's set-up and two rounds with correction."""
        more = {"generator": str(self.generator), "images_per_class": 4, "server_epochs": 1}
        return {**self.classifier, "method": "fgl", **more}

    @property
    def diffusion(self) -> dict:
        """Two rounds of a diffusion model in pixels."""
        return {**DIFFUSION, "dataset": str(self.folder), "feature_extractor": str(self.extractor)}

    @property
    def fedddpm(self) -> dict:
        """FedDDPM's set-up and one round with correction."""
        return {**self.diffusion, "method": "fedddpm"}


def run(
    tmp_path,
    name="run",
    nodes=2,
    of=None,
    broken=(),
    spoil=None,
    second=None,
    first_node=100,
    sites=(),
    **changes,
):
    """Run the app and return its summary.

    Parameters
    ----------
    tmp_path : Path
        The output directory; the state of the clients is in its folder ``NAME-clients``.
    name : str, default "run"
        Name of the run.
    nodes : int, default 2
        Number of connected clients.
    of : int or None, default as many as ``nodes``
        Number of clients that the data are split over.
    broken : Sequence[int], default ()
        Ids of nodes that raise.
    spoil : Callable or None, default None
        Returns the reply of the second client from the message and its honest reply.
    second : dict or None, default None
        Changes to the config of the second client.
    first_node : int, default 100
        Id of the first node; the next ones have smaller ids.
    sites : Sequence[dict], default ()
        Node config of each client that owns its data.
    **changes
        Config values, with underscores in their keys.
    """
    values = {key.replace("_", "-"): value for key, value in changes.items()}
    state = {} if sites else {"client-state-dir": str(tmp_path / f"{name}-clients")}
    config = config_keys() | TINY | state | {"output-dir": str(tmp_path), "run-name": name} | values
    grid = FakeGrid(
        {
            first_node - i: app_node(client_app, i, of or nodes, config, **(sites[i] if sites else {}))
            for i in range(nodes)
        }
        | {node: lambda message: 1 / 0 for node in broken}
    )
    if second:
        grid.nodes[first_node - 1] = app_node(client_app, 1, nodes, config | second)
    if spoil:
        honest = grid.nodes[first_node - 1]
        grid.nodes[first_node - 1] = lambda message: spoil(message, honest(message))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    server_app(grid, context)
    return read_summary(tmp_path / name)


def read_summary(folder):
    """Return the summary of a run."""
    return json.loads((folder / "summary.json").read_text())


def same(summary):
    """Return what must be equal in equal runs."""
    return {key: value for key, value in summary.items() if key not in {"seconds", "versions"}}


def weights(folder):
    """Return the weights of a run's model."""
    (file,) = [*folder.glob("classifier/model.safetensors"), *folder.glob("diffusion/unet/*.safetensors")]
    return load_file(file)


def equal_weights(first, second):
    """Return whether the models of two runs are equal to the last bit."""
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def as_overrides(settings):
    """Return config values as arguments of ``fgl run``."""
    values = TINY | {key.replace("_", "-"): value for key, value in settings.items()}
    return [f"{key}={json.dumps(value).strip(chr(34))}" for key, value in values.items()]
