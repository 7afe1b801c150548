"""The base of strategies that wrap another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.algorithms.robustness import cap_weights
from fgl_app.progress import log
from fgl_app.strategies.exchange import ClientFailure
from fgl_app.strategies.state import load_strategy_state, strategy_state


class WrapperStrategy(Strategy):
    """Delegate the four hooks, the summary and the state to the wrapped strategy.

    A hook with a default that a newer Flower adds to ``Strategy`` is delegated too, with unchanged arguments,
    unless a subclass defines it. ``start`` is Flower's own, with all its arguments.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy.

    Attributes
    ----------
    rejected : list[ClientFailure]
        Replies that broke a rule.
    failures : list[ClientFailure]
        Replies that were errors, and nodes that did not reply.
    capped : dict[str, int]
        Sites whose number of examples was limited, and the number that they sent.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.rejected: list[ClientFailure] = []
        self.failures: list[ClientFailure] = []
        self.capped: dict[str, int] = {}
        for name, hook in vars(Strategy).items():
            is_inherited = getattr(type(self), name) is hook
            if is_inherited and callable(hook) and name != "start" and not name.startswith("_"):
                setattr(self, name, getattr(strategy, name))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's training requests."""
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's aggregate."""
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's evaluation requests."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the wrapped strategy's evaluation metrics."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the settings of the wrapped strategy."""
        self.strategy.summary()

    def client_failures(self) -> tuple[list[ClientFailure], list[ClientFailure]]:
        """Return the rejected replies and the failures of this strategy and of those inside it."""
        wrappers = [each for each in nested_strategies(self) if isinstance(each, WrapperStrategy)]
        rejected = [failure for wrapper in wrappers for failure in wrapper.rejected]
        return rejected, [failure for wrapper in wrappers for failure in wrapper.failures]

    def cap_examples(self, sites: Iterable[str], examples: Sequence[float], ratio: float) -> list[float]:
        """Return the sites' numbers of examples, limited to a multiple of the median site's.

        A site whose number was limited is recorded, and logged the first time.
        """
        capped = cap_weights(examples, ratio)
        for site, total, counted in zip(sites, examples, capped, strict=True):
            if counted != total:
                if site not in self.capped:
                    log.warning("site %s counts %d of %d examples", site, counted, total)
                self.capped[site] = int(total)
        return capped

    def capped_sites(self) -> dict[str, int]:
        """Return the capped sites of this strategy and of those inside it."""
        wrappers = (each for each in nested_strategies(self) if isinstance(each, WrapperStrategy))
        return {site: count for wrapper in wrappers for site, count in wrapper.capped.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the client failures, and the wrapped strategy's state."""
        return {
            "rejected": [failure.to_json() for failure in self.rejected],
            "failures": [failure.to_json() for failure in self.failures],
            "capped": self.capped,
            "strategy": strategy_state(self.strategy),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        self.rejected = [ClientFailure(**failure) for failure in state_dict["rejected"]]
        self.failures = [ClientFailure(**failure) for failure in state_dict["failures"]]
        self.capped = state_dict.get("capped", {})
        load_strategy_state(self.strategy, state_dict["strategy"])


def nested_strategies(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and those inside it, the outermost first."""
    inner: object = strategy
    while isinstance(inner, Strategy):
        yield inner
        inner = getattr(inner, "strategy", None)
