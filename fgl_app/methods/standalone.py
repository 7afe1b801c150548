"""``method="classifier"`` and ``method="diffusion"``: the inner strategy alone."""

from __future__ import annotations

from torch import nn

from fgl_app.messages.records import arrays_to_state
from fgl_app.methods.baselines import run_centralized, run_local_only
from fgl_app.progress import log
from fgl_app.server.session import Session


def run_standalone(session: Session) -> nn.Module:
    """Run the inner strategy, or the reference point in its place, and return the last global model."""
    inner = session.config.inner_strategy
    if inner == "centralized":
        return run_centralized(session)
    session.plot_partition()
    if inner == "local-only":
        return run_local_only(session)
    log.info("%s over %d clients", inner, len(session.nodes))
    strategy = session.checked_strategy()
    try:
        arrays = session.run_rounds(strategy)
    finally:
        session.note_incidents(strategy.rejected, strategy.failures)
    return session.model_of(arrays_to_state(arrays))
