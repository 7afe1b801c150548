"""What the ServerApp can run: a module for each method, by its entry in :mod:`fgl_app.config.methods`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from fgl_app.server.session import Session


def run_method(session: Session) -> nn.Module:
    """Run the method of a session's config and return the last global model."""
    module, _, function = session.config.spec.run.partition(":")
    model: nn.Module = getattr(import_module(module), function)(session)
    return model
