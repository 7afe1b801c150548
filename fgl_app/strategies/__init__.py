"""Flower strategies that wrap another strategy: set-up round, checks. Light to import."""

from fgl_app.strategies.checked import CheckedStrategy
from fgl_app.strategies.fgl import FGLStrategy
from fgl_app.strategies.setup_round import SetupRoundStrategy

__all__ = ["CheckedStrategy", "FGLStrategy", "SetupRoundStrategy"]
