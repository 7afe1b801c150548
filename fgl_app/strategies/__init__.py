"""Flower strategies that wrap another one: set-up rounds, validation, control variates. Light to import."""

from fgl_app.strategies.buffers import PlainBuffersStrategy
from fgl_app.strategies.checked import CheckedStrategy
from fgl_app.strategies.checkpointed import CheckpointedStrategy
from fgl_app.strategies.fedddpm import FedDDPMStrategy, LocalModel
from fgl_app.strategies.fgl import FGLStrategy
from fgl_app.strategies.no_exchange import NoExchangeStrategy
from fgl_app.strategies.scaffold import ScaffoldStrategy
from fgl_app.strategies.setup_round import SetupRoundStrategy
from fgl_app.strategies.wrapper import WrapperStrategy

__all__ = [
    "CheckedStrategy",
    "CheckpointedStrategy",
    "FGLStrategy",
    "FedDDPMStrategy",
    "LocalModel",
    "NoExchangeStrategy",
    "PlainBuffersStrategy",
    "ScaffoldStrategy",
    "SetupRoundStrategy",
    "WrapperStrategy",
]
