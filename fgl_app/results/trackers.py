"""A run's numbers for trackers such as TensorBoard, through those of accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgl_app.progress import log

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

# What each tracker is told of a run's folder; accelerate takes the rest from it.
_OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tensorboard": lambda run: {"run_name": "tensorboard", "logging_dir": run},
    "wandb": lambda run: {"run_name": "fgl", "name": run.name, "dir": run},
}


def check_trackers(names: Sequence[str]) -> str:
    """Say which trackers are there.

    Raises
    ------
    ValueError
        If the package of one is not installed; says which and how to have it.
    """
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ValueError(
                f"config key 'trackers' names '{name}', and the package '{name}' is not installed here; "
                f"`pip install {name}`, or leave it out"
            ) from None
    return ", ".join(names)


class Trackers:
    """The trackers of a run; without names it does nothing.

    A tracker that fails is left out with a warning: it is a view of the run, not the run.

    Parameters
    ----------
    names : Sequence[str]
        "tensorboard" or "wandb"; their packages are installed.
    run : Path
        The run's folder: TensorBoard's files go to ``run/tensorboard``, those of wandb to ``run/wandb``.
    config : Mapping[str, str | int | float | bool]
        The run config, which trackers show beside the numbers.
    after : int, default 0
        The last round of an earlier part of the run: what TensorBoard has of later ones counts no more.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        config: Mapping[str, str | int | float | bool],
        *,
        after: int = 0,
    ) -> None:
        self._trackers: dict[str, GeneralTracker] = {}
        if not names:
            return
        from accelerate import PartialState

        PartialState()  # Its loggers want one, though nothing is distributed.
        for name in names:
            with self._left_out_when_it_fails(name):
                self._trackers[name] = _start(name, run, after)
                if not after:
                    self._trackers[name].store_init_configuration(dict(config))

    def log(
        self,
        server_round: int,
        metrics: Mapping[str, float],
        traffic: Mapping[str, Mapping[str, int]],
        seconds: Mapping[str, float],
    ) -> None:
        """Tell a round's metrics, and the bytes and seconds of each phase so far.

        Parameters
        ----------
        server_round : int
            The step.
        metrics : Mapping[str, float]
            By name.
        traffic : Mapping[str, Mapping[str, int]]
            As ``TrafficLedger.by_phase`` gives it.
        seconds : Mapping[str, float]
            By phase, and in ``total``.
        """
        values: dict[str, float] = dict(metrics)
        for way in ("uplink", "downlink"):
            values |= {f"{way} bytes/{phase}": counts[way] for phase, counts in traffic.items()}
        values |= {f"seconds/{phase}": time for phase, time in seconds.items()}
        self._each(lambda tracker: tracker.log(values, step=server_round))

    def finish(self) -> None:
        """Write out what is not yet written."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, tell: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._left_out_when_it_fails(name):
                tell(tracker)

    @contextmanager
    def _left_out_when_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        # Whatever a tracker raises, the run goes on: its own files hold the same numbers.
        except Exception as error:
            self._trackers.pop(name, None)
            log.warning("tracker %s is left out: %s: %s", name, type(error).__name__, error)


def _start(name: str, run: Path, after: int) -> GeneralTracker:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    options = _OPTIONS[name](run)
    if name == "tensorboard" and after:
        options["purge_step"] = after + 1
    tracker: GeneralTracker = LOGGER_TYPE_TO_CLASS[name](**options)
    tracker.start()
    return tracker
