"""The table of methods: a new method is one entry here and one module in ``fgl_app/methods``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MethodSpec:
    """A value of the config key ``method``."""

    name: str
    task: Literal["classification", "diffusion"]  # Kind of model that it trains.
    run: str  # "module:function" that runs it on a server session.
    defaults: Mapping[str, float]  # Its defaults for the keys of METHOD_DEFAULT.
    # Message type that requests the uploads in its set-up round; empty: no set-up, only the inner strategy.
    setup_message: str = ""
    synthesizes: bool = False  # Whether it draws images with the text-to-image generator.
    baselines: tuple[str, ...] = ()  # Values of inner-strategy that are no strategy and that it takes.


METHOD_DEFAULT = {
    "num_server_rounds": 0,
    "local_epochs": 0,
    "batch_size": 0,
    "learning_rate": 0.0,
    "server_epochs": -1,
    "server_learning_rate": 0.0,
}
"""Keys whose default depends on the method, and the value that stands for this default."""


def _defaults(*values: float) -> dict[str, float]:
    return dict(zip(METHOD_DEFAULT, values, strict=True))


_STANDALONE = "fgl_app.methods.standalone:run_standalone"
METHODS = {
    spec.name: spec
    for spec in (
        MethodSpec(
            "fgl",
            "classification",
            "fgl_app.methods.fgl:run_fgl",
            _defaults(1, 5, 64, 0.02, 0, 0.01),
            setup_message="query.embed",
            synthesizes=True,
        ),
        MethodSpec(
            "classifier",
            "classification",
            _STANDALONE,
            _defaults(10, 5, 64, 0.02, 0, 0.01),
            baselines=("centralized", "local-only"),
        ),
        MethodSpec(
            "fedddpm",
            "diffusion",
            "fgl_app.methods.fedddpm:run_fedddpm",
            _defaults(9, 2, 32, 0.002, 3, 0.002),
            setup_message="train.local_diffusion",
            baselines=("auxiliary-only",),
        ),
        MethodSpec(
            "fedddpm-plus",
            "diffusion",
            "fgl_app.methods.fedddpm:run_fedddpm_plus",
            _defaults(9, 2, 32, 0.002, 20, 0.002),
            setup_message="train.local_diffusion",
        ),
        MethodSpec(
            "diffusion",
            "diffusion",
            _STANDALONE,
            _defaults(8, 2, 32, 0.002, 0, 0.002),
            baselines=("centralized", "local-only"),
        ),
    )
}
"""Every method by name."""

BASELINES = tuple(dict.fromkeys(name for spec in METHODS.values() for name in spec.baselines))
"""Values of ``inner-strategy`` that are no strategy."""


def describe_method_default(key: str) -> str:
    """Return a key's default for each method, for the key's description."""
    values = ", ".join(f"{name} {spec.defaults[key]:g}" for name, spec in METHODS.items())
    return f"{METHOD_DEFAULT[key]:g}: the default of the method ({values})"
