"""Flower's differential privacy goes inside a strategy with a set-up, not around it."""

from __future__ import annotations

import inspect

from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.dp_adaptive_clipping import DifferentialPrivacyAdaptiveBase
from flwr.serverapp.strategy.dp_fixed_clipping import DifferentialPrivacyFixedClippingBase

PRIVATE = (DifferentialPrivacyFixedClippingBase, DifferentialPrivacyAdaptiveBase)


def refuse_privacy_around(strategy: Strategy) -> None:
    """Raise when one of Flower's differential privacy strategies runs the one that calls this.

    Around a set-up it would clip no upload, and its noise would come after the training on the server's own
    set. How far that moves the weights has no bound, so noise that fits clipped updates hides nothing.

    Parameters
    ----------
    strategy : Strategy
        The caller.

    Raises
    ------
    ValueError
        Names both strategies and the order that works.
    """
    # A strategy is told nothing of what is around it; but who is, is on the stack when it calls.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, PRIVATE):
            outer, inner = type(caller).__name__, type(strategy).__name__
            raise ValueError(
                f"{outer} must be inside {inner}, as {inner}({outer}(FedAvg(...), ...), ...): around it, its "
                "noise would come after the training on the server's own set and protect nothing"
            )
        frame = frame.f_back
