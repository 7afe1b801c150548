"""FedDDPM and FedDDPM+ as a Flower strategy (Peng et al., arXiv 2503.06426)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from safetensors.torch import load_file, save
from torch import Tensor

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.types import State
from fgl_app.files import write_atomically
from fgl_app.messages.records import (
    ARRAYS,
    CONFIG,
    arrays_to_state,
    metric_record,
    require_finite,
    require_weights,
    site_name,
    with_state,
)
from fgl_app.messages.uploads import check_trained, label_counts, num_examples
from fgl_app.progress import log
from fgl_app.strategies.setup_round import SetupRoundStrategy

LOCAL_DIFFUSION = "train.local_diffusion"
"""Type of the message that asks a client to train the initial model alone and upload it."""

Data = TypeVar("Data")


@dataclass(frozen=True)
class LocalModel:
    """A client's own diffusion model, and what the server is to sample from it.

    Parameters
    ----------
    node : int
        The client's node id.
    site : str
        The site that the upload names.
    file : Path
        The model's weights, as safetensors.
    num_images : int
        The client's share of the auxiliary set: ``auxiliary_size * n_k / sum(n)``, rounded to whole images
        so that the shares add up.
    label_counts : Tensor
        int64, shape (classes,): the client's examples of each class; empty when the model knows no classes.
    """

    node: int
    site: str
    file: Path
    num_images: int
    label_counts: Tensor

    @property
    def state(self) -> State:
        """The model's weights, read anew at each access, so that nothing is held."""
        state: State = load_file(self.file)
        return state


@dataclass(frozen=True)
class Decision:
    """Whether a round's aggregate was corrected.

    Parameters
    ----------
    round : int
        The run's round; 1 is the set-up.
    loss : float or None
        The clients' mean training loss; None when the round reported none.
    corrected : bool
        What was decided.
    """

    round: int
    loss: float | None
    corrected: bool

    def to_json(self) -> dict[str, int | float | bool | None]:
        """Return the fields by name."""
        return asdict(self)


class FedDDPMStrategy(SetupRoundStrategy, Generic[Data]):
    """Federated diffusion with a correction on an auxiliary set sampled from the clients' own models.

    Round 1 asks every node to train the initial model on its data alone and to upload it. The server samples
    a share of the auxiliary set from each, one model in memory at a time, and drops the models. Further
    rounds are those of the wrapped strategy; each aggregate is then optimized on the auxiliary set by
    ``correct_fn`` (FedDDPM), or only when ``should_correct_fn`` finds that learning has become slow, and at
    most ``max_corrections`` times (FedDDPM+).

    Parameters
    ----------
    strategy : Strategy
        Runs the rounds after the first.
    sample_fn : Callable[[Iterator[LocalModel]], Data]
        Samples the auxiliary set, whatever type that has; a model is read from disk when asked for. In a run
        that was restored it is asked again, and should then take what it sampled from where it kept it: the
        models are gone by the end of the set-up.
    correct_fn : Callable[[State, Data], State]
        Optimizes the aggregate, given as a state dict, on the auxiliary set.
    should_correct_fn : Callable[[Sequence[float]], bool] or None, default None
        FedDDPM+: told the clients' mean training losses of all rounds so far, says whether to correct now.
        None corrects after every aggregate.
    max_corrections : int, default 1
        Corrections at most, when ``should_correct_fn`` is given.
    auxiliary_size : int, default 2000
        Images in the auxiliary set.
    num_classes : int, default 0
        Above 0 uploads must tell their examples of each class, as the metric "label-counts".
    loss_key : str, default "train-loss"
        Metric of the aggregate that holds the clients' mean training loss.
    upload_dir : Path or None, default None
        Where uploads wait, as safetensors, until all are there: shares are known only then. None uses a
        temporary folder.
    num_nodes : int, default 0
        Nodes to wait for before asking; 0 takes those that are connected.
    min_uploads : int, default 2
        Good uploads the set-up needs; with fewer the run fails.
    setup_timeout : float, default 3600.0
        Seconds to wait for nodes, and again for their uploads.

    Attributes
    ----------
    examples : dict[tuple[str, int], int]
        Examples behind each accepted upload, by site name and node id.
    decisions : list[Decision]
        What was decided after each aggregate.

    Raises
    ------
    ValueError
        When ``sample_fn`` has an attribute ``num_classes`` and it is another number.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        sample_fn: Callable[[Iterator[LocalModel]], Data],
        correct_fn: Callable[[State, Data], State],
        should_correct_fn: Callable[[Sequence[float]], bool] | None = None,
        max_corrections: int = 1,
        auxiliary_size: int = 2000,
        num_classes: int = 0,
        loss_key: str = "train-loss",
        upload_dir: Path | None = None,
        num_nodes: int = 0,
        min_uploads: int = 2,
        setup_timeout: float = 3600.0,
    ) -> None:
        super().__init__(strategy, num_nodes=num_nodes, min_uploads=min_uploads, setup_timeout=setup_timeout)
        # Met here, before every client has trained a model; `sample_with` tells its U-Net's.
        known = getattr(sample_fn, "num_classes", num_classes)
        if known != num_classes:
            raise ValueError(f"num_classes must be that of the sampled U-Net, {known}, got {num_classes}")
        self.sample_fn = sample_fn
        self.correct_fn = correct_fn
        self.should_correct_fn = should_correct_fn
        self.max_corrections = max_corrections
        self.auxiliary_size = auxiliary_size
        self.num_classes = num_classes
        self.loss_key = loss_key
        self.examples: dict[tuple[str, int], int] = {}
        self.decisions: list[Decision] = []
        self._temporary = TemporaryDirectory(prefix="fedddpm-") if upload_dir is None else None
        self._folder = Path(self._temporary.name) if self._temporary else Path(str(upload_dir))
        self._label_counts: dict[tuple[str, int], Tensor] = {}
        self._sent = ArrayRecord()
        self._auxiliary: Data | None = None

    def configure_setup(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Sequence[Message]:
        """Ask every node for a model of its own."""
        require_weights(arrays)
        self._sent = arrays
        self.examples.clear()
        self.decisions.clear()
        self._label_counts.clear()
        # Of a run that died before all were in; who is asked again uploads again.
        for file in self._folder.glob("*.safetensors"):
            if file.stem.isdigit():
                file.unlink()
        return self.ask_every_node(grid, RecordDict({ARRAYS: arrays, CONFIG: config}), LOCAL_DIFFUSION)

    def accept_upload(self, reply: Message) -> None:
        """Validate one client's model and lay it on disk."""
        check_trained(reply.content, {ARRAYS: self._sent})
        key = site_name(reply), reply.metadata.src_node_id
        counts = torch.zeros(0, dtype=torch.int64)
        if self.num_classes:
            counts = label_counts(reply.content, self.num_classes)
        arrays = next(iter(reply.content.array_records.values()))
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(key), save(arrays_to_state(arrays)))
        self.examples[key] = int(num_examples(reply.content))
        self._label_counts[key] = counts

    def finish_setup(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        """Sample the auxiliary set and drop the uploads; the global model is still the initial one."""
        self._auxiliary = self.sample_fn(self._local_models())
        for key in self.examples:
            self._file(key).unlink(missing_ok=True)
        # A folder that was given may hold other things, and then stays.
        with suppress(OSError):
            self._folder.rmdir()
        metrics = {"num-uploads": len(self.examples), "num-examples": sum(self.examples.values())}
        return arrays, metric_record(metrics)

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Optimize the aggregate on the auxiliary set, if that is to be done now."""
        loss = metrics.get(self.loss_key) if metrics is not None else None
        loss = float(loss) if isinstance(loss, int | float) else None
        corrected = self._is_due(loss)
        self.decisions.append(Decision(server_round, loss, corrected))
        if not corrected:
            return arrays
        if self._auxiliary is None:
            self._auxiliary = self.sample_fn(self._local_models())
        state = self.correct_fn(arrays_to_state(arrays), self._auxiliary)
        return require_finite(with_state(arrays, state), f"correction of round {server_round}")

    def state_dict(self) -> dict[str, Any]:
        """Return who uploaded and what was decided, and what the wrapped strategy has learnt.

        The uploaded models themselves lie in ``upload_dir``.
        """
        return {
            **super().state_dict(),
            "examples": self.examples,
            "label-counts": self._label_counts,
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        super().load_state_dict(state_dict)
        self.examples = state_dict["examples"]
        self._label_counts = state_dict["label-counts"]
        self.decisions = [Decision(**decision) for decision in state_dict["decisions"]]
        self._auxiliary = None

    def _is_due(self, loss: float | None) -> bool:
        if self.should_correct_fn is None:
            return True
        if sum(decision.corrected for decision in self.decisions) >= self.max_corrections:
            return False
        known = [decision.loss for decision in self.decisions] + [loss]
        due = self.should_correct_fn(tuple(each for each in known if each is not None))
        if due:
            log.info("learning has become slow: correcting on the auxiliary set")
        return due

    def _local_models(self) -> Iterator[LocalModel]:
        # Sites in a fixed order: the auxiliary set must not depend on who replied first.
        keys = sorted(self.examples)
        shares = apportion([self.examples[key] for key in keys], self.auxiliary_size)
        for key, share in zip(keys, shares, strict=True):
            yield LocalModel(key[1], key[0], self._file(key), share, self._label_counts[key])

    def _file(self, key: tuple[str, int]) -> Path:
        # Named by the node: the site's name is what a client claims, and no safe file name.
        return self._folder / f"{key[1]}.safetensors"
