"""Between Flower's records and torch: the only place where they are converted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.common.serde_utils import error_to_proto

from fgl_app.algorithms.types import State, TextEmbeddings

ARRAYS, METRICS, CONFIG, EMBEDDINGS, SITE = "arrays", "metrics", "config", "embeddings", "site"
ENCODER = "encoder"
RUN, CODE, CLASS_NAMES, CHANNELS = "run", "code", "class-names", "channels"
CONTROL, CONTROL_ROUND, CONTROL_SITES = "control", "control-round", "control-sites"
NUM_EXAMPLES, LABEL_COUNTS = "num-examples", "label-counts"
EMBEDDING_DTYPES = ("float16", "float32")
LONGEST_NAME = 64


def state_to_arrays(state: State) -> ArrayRecord:
    """Convert a model's state into an ArrayRecord.

    Integer buffers, such as BatchNorm's ``num_batches_tracked``, are left out: averaging would turn
    them into fractions. bfloat16, which NumPy lacks, travels as float32.

    Parameters
    ----------
    state : Mapping[str, Tensor]
        Any device.

    Returns
    -------
    ArrayRecord
        The floating tensors, by name.
    """
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    return ArrayRecord(
        {
            name: Array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy())
            for name, tensor in floating.items()
        }
    )


def arrays_to_state(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    """Convert an ArrayRecord into tensors on the CPU, by name, in the dtype received."""
    return {name: torch.from_numpy(np.array(array.numpy(), order="C")) for name, array in arrays.items()}


def with_state(arrays: ArrayRecord, state: State) -> ArrayRecord:
    """Return the arrays with a state's floating tensors in their place; integer arrays stay."""
    return ArrayRecord({**arrays, **state_to_arrays(state)})


def require_weights(arrays: ArrayRecord) -> None:
    """Raise ValueError when arrays hold no floating weights, which alone can be trained on the server."""
    if not any(np.issubdtype(np.dtype(array.dtype), np.floating) for array in arrays.values()):
        raise ValueError(
            "the initial arrays hold no floating weights (trees of XGBoost are bytes), so the server has "
            "nothing to train"
        )


def load_weights(model: torch.nn.Module, state: State) -> None:
    """Load a state that :func:`state_to_arrays` carried; the model keeps its own integer buffers.

    Raises
    ------
    ValueError
        When a floating tensor of the model is missing or has another shape.
    """
    own = model.state_dict()
    missing = [name for name, tensor in own.items() if tensor.is_floating_point() and name not in state]
    if missing:
        raise ValueError(f"the state lacks {len(missing)} tensors of the model, first '{missing[0]}'")
    model.load_state_dict(own | dict(state))


def embeddings_to_record(embeddings: TextEmbeddings) -> ArrayRecord:
    """Convert text embeddings into one ArrayRecord of fixed keys."""
    tensors = {**embeddings.tensors, "labels": embeddings.labels, "counts": embeddings.counts}
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


def last_accepted_round(request: ConfigRecord, site: str) -> int:
    """Return the last round whose change of a site's SCAFFOLD variate the server took; 0 is none.

    Parameters
    ----------
    request : ConfigRecord
        Of a training message: "control-round" is the node's own, or "control-sites" lists digests of all
        sites' names and "control-round" their rounds.
    site : str
        The site's name.
    """
    taken = request[CONTROL_ROUND]
    if isinstance(taken, int):
        return taken
    sites, rounds = cast("list[str]", request[CONTROL_SITES]), cast("list[int]", taken)
    # Of a site that has been under several node ids the last entry is the newest.
    return dict(zip(sites, rounds, strict=True)).get(site_digest(site), 0)


def restore_dtypes(arrays: ArrayRecord, reference: ArrayRecord) -> ArrayRecord:
    """Return the arrays in the reference's dtypes, integers rounded.

    Averages of integers are fractions, and Flower's adaptive strategies return float64.
    """

    def restored(values: np.ndarray, dtype: str) -> np.ndarray:
        whole = np.issubdtype(np.dtype(dtype), np.integer)
        # NumPy makes scalars of arrays without dimensions.
        return np.asarray(np.rint(values) if whole else values, dtype=dtype)

    return ArrayRecord(
        {name: Array(restored(array.numpy(), reference[name].dtype)) for name, array in arrays.items()}
    )


def site_record(name: str) -> ConfigRecord:
    """Return the record by which a client says which site it is (node ids are random)."""
    return ConfigRecord({"name": name})


def site_name(message: Message) -> str:
    """Return the site a reply says it comes from; its node id when it does not say."""
    record = message.content.config_records.get(SITE) if message.has_content() else None
    name = record.get("name") if record is not None else None
    # A claim, and no more of it than a line of the log can show.
    return name[:LONGEST_NAME] if isinstance(name, str) else str(message.metadata.src_node_id)


def site_digest(name: str) -> str:
    """Return what tells a site to itself without telling its name to others."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def metric_record(values: Mapping[str, float | int | list[int]]) -> MetricRecord:
    """Return a MetricRecord of plain numbers (NumPy scalars are refused by Flower)."""
    return MetricRecord({key: v if isinstance(v, int | list) else float(v) for key, v in values.items()})


def message_bytes(message: Message) -> int:
    """Return the size of what a message carries, as serialized, bytes.

    The envelope of some 200 bytes is left out: its random ids make its size differ from run to run.
    """
    if message.has_error():
        return int(error_to_proto(message.error).ByteSize())
    return content_bytes(message.content)


def content_bytes(content: RecordDict) -> int:
    """Return the size of a message's content, as serialized, bytes."""
    return int(recorddict_to_proto(content).ByteSize())


def require_finite(arrays: ArrayRecord, what: str) -> ArrayRecord:
    """Return the arrays, or raise when one holds NaN or infinity.

    Raises
    ------
    ValueError
        Names what came out and the array.
    """
    for name, array in arrays.items():
        if not np.isfinite(array.numpy()).all():
            raise ValueError(f"{what}: array '{name}' holds NaN or infinity; lower the learning rate")
    return arrays
