"""Experiment trackers such as TensorBoard, through the trackers of accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgl_app.progress import log

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

# Arguments of accelerate's trackers for a run directory.
_OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tensorboard": lambda run: {"run_name": "tensorboard", "logging_dir": run},
    "wandb": lambda run: {"run_name": "fgl", "name": run.name, "dir": run},
}


def check_trackers(names: Sequence[str]) -> str:
    """Return the names of the trackers, separated by commas, if their packages are installed.

    Raises ValueError with the command that installs a missing package.
    """
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise ValueError(
                f"config key 'trackers' needs the package '{name}', which is not installed; "
                f"run `pip install {name}` or remove '{name}' from the key"
            ) from None
    return ", ".join(names)


class Trackers:
    """Send the metrics of a run to trackers; does nothing without names.

    A tracker that raises is disabled with a warning, and the run continues.

    Parameters
    ----------
    names : Sequence[str]
        "tensorboard", "wandb" or both; their packages must be installed.
    run : Path
        The run directory. TensorBoard writes to ``run/tensorboard``, wandb to ``run/wandb``.
    config : Mapping[str, str | int | float | bool]
        The run config, which trackers show with the metrics.
    after : int, default 0
        Last round of an earlier part of the run; TensorBoard discards later rounds.
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

        PartialState()  # accelerate's loggers require it, also without distributed training.
        for name in names:
            with self._disabled_on_error(name):
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
        """Log a round's metrics, and the bytes and seconds of each phase so far.

        Bytes are by phase and direction, as from ``TrafficLedger.by_phase``; seconds include ``total``.
        """
        values: dict[str, float] = dict(metrics)
        for way in ("uplink", "downlink"):
            values |= {f"{way} bytes/{phase}": counts[way] for phase, counts in traffic.items()}
        values |= {f"seconds/{phase}": time for phase, time in seconds.items()}
        self._for_each(lambda tracker: tracker.log(values, step=server_round))

    def finish(self) -> None:
        """Flush and close the trackers."""
        self._for_each(lambda tracker: tracker.finish())

    def _for_each(self, action: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._disabled_on_error(name):
                action(tracker)

    @contextmanager
    def _disabled_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        # The run does not depend on trackers: its own files have the same numbers.
        except Exception as error:
            self._trackers.pop(name, None)
            log.warning("tracker %s is disabled after an error: %s: %s", name, type(error).__name__, error)


def _start(name: str, run: Path, after: int) -> GeneralTracker:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    options = _OPTIONS[name](run)
    if name == "tensorboard" and after:
        options["purge_step"] = after + 1
    tracker: GeneralTracker = LOGGER_TYPE_TO_CLASS[name](**options)
    tracker.start()
    return tracker
