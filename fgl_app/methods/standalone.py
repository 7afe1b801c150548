"""``method="classifier"`` and ``method="diffusion"``: the inner strategy alone, or a baseline."""

from __future__ import annotations

from torch import nn

from fgl_app.methods.baselines import run_centralized, run_local_only
from fgl_app.progress import log
from fgl_app.server.session import Session


def run_standalone(session: Session) -> nn.Module:
    """Run the inner strategy, or the baseline in its place, and return the last global model."""
    inner = session.config.inner_strategy
    if inner == "centralized":
        return run_centralized(session)
    session.plot_partition()
    if inner == "local-only":
        return run_local_only(session)
    log.info("%s over %d clients", inner, len(session.nodes))
    return session.run(session.checked_strategy())
