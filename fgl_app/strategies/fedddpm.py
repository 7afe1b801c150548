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
from fgl_app.messages.keys import ARRAYS, CONFIG
from fgl_app.messages.replies import check_trained, label_counts, metric_record, num_examples
from fgl_app.messages.sites import site_name
from fgl_app.messages.weights import arrays_to_state, require_weights, transform_weights
from fgl_app.progress import log
from fgl_app.strategies.setup_round import SetupRoundStrategy

LOCAL_DIFFUSION = "train.local_diffusion"
"""Type of the message that requests a client's own diffusion model."""

Data = TypeVar("Data")


@dataclass(frozen=True)
class LocalModel:
    """A client's own diffusion model, and the client's share of the auxiliary set.

    Parameters
    ----------
    node : int
        The client's node id.
    site : str
        The site's name in the upload.
    file : Path
        The model's weights, as safetensors.
    num_images : int
        The client's share of the auxiliary set: ``auxiliary_size * n_k / sum(n)``, rounded to integers that
        add up to ``auxiliary_size``. ``n_k`` is limited to ``max_weight_ratio`` times the median client's.
    label_counts : Tensor
        int64, shape (classes,): the client's examples of each class; empty for an unconditional model.
    """

    node: int
    site: str
    file: Path
    num_images: int
    label_counts: Tensor

    @property
    def state(self) -> State:
        """The model's weights, read from disk at each access, to save memory."""
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
        True when it was.
    """

    round: int
    loss: float | None
    corrected: bool

    def to_json(self) -> dict[str, int | float | bool | None]:
        """Return the fields by name."""
        return asdict(self)


class FedDDPMStrategy(SetupRoundStrategy, Generic[Data]):
    """Federated diffusion with a correction on an auxiliary set sampled from the clients' own models.

    In round 1 every node trains the initial model on its own data and uploads it. The server samples each
    client's share of the auxiliary set, with one model in memory at a time, and deletes the models. Further
    rounds are those of the wrapped strategy; each aggregate is then optimized on the auxiliary set by
    ``correct_fn`` (FedDDPM), or only when ``should_correct_fn`` returns True, at most ``max_corrections``
    times (FedDDPM+).

    Parameters
    ----------
    strategy : Strategy
        Runs the rounds after the first.
    sample_fn : Callable[[Iterator[LocalModel]], Data]
        Samples the auxiliary set, of any type; a model is read from disk when its weights are accessed. A
        restored run calls it again; it should then load what it sampled before, since the models are deleted
        at the end of the set-up.
    correct_fn : Callable[[State, Data], State]
        Optimizes the aggregate, given as a state dict, on the auxiliary set.
    should_correct_fn : Callable[[Sequence[float]], bool] or None, default None
        FedDDPM+: takes the clients' mean training losses of all rounds so far, returns whether to correct
        now. None corrects after every aggregate.
    max_corrections : int, default 1
        Largest number of corrections, with ``should_correct_fn``.
    auxiliary_size : int, default 2000
        Number of images in the auxiliary set.
    num_classes : int, default 0
        Above 0, uploads must report their examples of each class, as the metric "label-counts".
    loss_key : str, default "train-loss"
        Metric of the aggregate that holds the clients' mean training loss.
    upload_dir : Path or None, default None
        Folder of the uploads, as safetensors, until all are in: only then the shares are known. None uses a
        temporary folder.
    max_weight_ratio : float, default 10.0
        A site's number of examples counts at most this multiple of the median site's; 0 sets no limit.
    num_nodes : int, default 0
        Number of nodes to wait for before the set-up; 0 takes the connected ones.
    min_uploads : int, default 2
        Number of good uploads that the set-up needs; with fewer the run fails.
    setup_timeout : float, default 3600.0
        Seconds to wait for nodes, and again for their uploads.

    Attributes
    ----------
    examples : dict[tuple[str, int], int]
        Number of examples behind each accepted upload, by site name and node id.
    decisions : list[Decision]
        Whether each aggregate was corrected.

    Raises
    ------
    ValueError
        When ``sample_fn`` has an attribute ``num_classes`` with another number.
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
        max_weight_ratio: float = 10.0,
        num_nodes: int = 0,
        min_uploads: int = 2,
        setup_timeout: float = 3600.0,
    ) -> None:
        super().__init__(strategy, num_nodes=num_nodes, min_uploads=min_uploads, setup_timeout=setup_timeout)
        # Checked before every client trains a model; `sample_with` sets the attribute.
        known = getattr(sample_fn, "num_classes", num_classes)
        if known != num_classes:
            raise ValueError(f"num_classes must be that of the sampled U-Net, {known}, got {num_classes}")
        self.sample_fn = sample_fn
        self.correct_fn = correct_fn
        self.should_correct_fn = should_correct_fn
        self.max_corrections = max_corrections
        self.auxiliary_size = auxiliary_size
        self.max_weight_ratio = max_weight_ratio
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
        """Return a request for its own model to every node."""
        require_weights(arrays)
        self._sent = arrays
        self.examples.clear()
        self.decisions.clear()
        self._label_counts.clear()
        # Left over from a run that died before all were in; those clients upload again.
        for file in self._folder.glob("*.safetensors"):
            if file.stem.isdigit():
                file.unlink()
        return self.requests_to_all_nodes(grid, RecordDict({ARRAYS: arrays, CONFIG: config}), LOCAL_DIFFUSION)

    def accept_upload(self, reply: Message) -> None:
        """Validate one client's model and write it to disk."""
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
        """Sample the auxiliary set and delete the uploads; return the initial model."""
        self._auxiliary = self.sample_fn(self._local_models())
        for key in self.examples:
            self._file(key).unlink(missing_ok=True)
        # A given folder stays when it holds other files.
        with suppress(OSError):
            self._folder.rmdir()
        metrics = {"num-uploads": len(self.examples), "num-examples": sum(self.examples.values())}
        return arrays, metric_record(metrics)

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Optimize the aggregate on the auxiliary set, if a correction is due."""
        loss = metrics.get(self.loss_key) if metrics is not None else None
        loss = float(loss) if isinstance(loss, int | float) else None
        corrected = self._is_due(loss)
        self.decisions.append(Decision(server_round, loss, corrected))
        if not corrected:
            return arrays
        if self._auxiliary is None:
            self._auxiliary = self.sample_fn(self._local_models())
        auxiliary = self._auxiliary
        return transform_weights(
            arrays, lambda state: self.correct_fn(state, auxiliary), f"correction of round {server_round}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the uploads' metadata, the decisions and the state of the wrapped strategy.

        The uploaded models themselves are in ``upload_dir``.
        """
        return {
            **super().state_dict(),
            "examples": self.examples,
            "label-counts": self._label_counts,
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
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
            log.info("the loss has reached a plateau: correcting on the auxiliary set")
        return due

    def _local_models(self) -> Iterator[LocalModel]:
        # Sites in a fixed order: the auxiliary set must not depend on the order of the replies.
        keys = sorted(self.examples)
        examples = [self.examples[key] for key in keys]
        capped = self.cap_examples([site for site, _ in keys], examples, self.max_weight_ratio)
        shares = apportion([int(each) for each in capped], self.auxiliary_size)
        for key, share in zip(keys, shares, strict=True):
            yield LocalModel(key[1], key[0], self._file(key), share, self._label_counts[key])

    def _file(self, key: tuple[str, int]) -> Path:
        # Named by node id: a client can claim any site name, and it may not be a safe file name.
        return self._folder / f"{key[1]}.safetensors"
