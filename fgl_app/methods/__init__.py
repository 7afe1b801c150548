"""What the ServerApp can run, a module for each kind of method."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from fgl_app.server.session import Session


def run_method(session: Session) -> nn.Module:
    """Run what a session's config asks for and return the last global model."""
    if session.config.method == "fgl":
        from fgl_app.methods.fgl import run_fgl

        return run_fgl(session)
    if session.config.method in ("fedddpm", "fedddpm-plus"):
        from fgl_app.methods.fedddpm import run_fedddpm

        return run_fedddpm(session)
    from fgl_app.methods.standalone import run_standalone

    return run_standalone(session)
