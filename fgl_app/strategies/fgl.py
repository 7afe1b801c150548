"""FGL as a Flower strategy (Zhang, Qi, Zhao, arXiv 2306.16064)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.algorithms.embedding import limit_counts, merge_embeddings
from fgl_app.algorithms.types import State, TextEmbeddings
from fgl_app.messages.embeddings import record_to_embeddings
from fgl_app.messages.keys import CONFIG, ENCODER
from fgl_app.messages.replies import metric_record
from fgl_app.messages.sites import site_name
from fgl_app.messages.weights import require_weights, transform_weights
from fgl_app.strategies.setup_round import SetupRoundStrategy

EMBED = "query.embed"
"""Type of the message that requests a client's text embeddings."""

Data = TypeVar("Data")


class FGLStrategy(SetupRoundStrategy, Generic[Data]):
    """Generative federated learning: one upload of embeddings, a synthetic set, then any strategy's rounds.

    Round 1 requests from every node the text embeddings of prompts about its data, synthesizes a training
    set from them and trains the global model on it: with ``num_rounds=1`` that is one-shot FGL. Further
    rounds are those of the wrapped strategy, each followed by ``correct_fn`` on the synthetic set if given.

    Parameters
    ----------
    strategy : Strategy
        Runs the rounds after the first.
    synthesize_fn : Callable[[TextEmbeddings], Data]
        Makes the synthetic training set, of any type, from the merged embeddings. A restored run calls it
        again; it should then load what it made before.
    train_fn : Callable[[State, Data], State]
        Trains the global model, given as a state dict, on the synthetic set alone.
    num_classes : int
        Upper bound of the labels in uploads, exclusive.
    correct_fn : Callable[[State, Data], State] or None, default None
        Fine-tunes each aggregate on the synthetic set (paper: 5 epochs); None skips it. A wrapped strategy
        with momentum over its own aggregates (FedAvgM) does not include the correction in it.
    embeddings : TextEmbeddings or None, default None
        Use these embeddings and send no request to clients.
    embedding_shapes : Mapping[str, tuple[int, ...]] or None, default None
        Names and shapes of one prompt's tensors, as the server's own encoder returns them. None takes those
        of the first valid upload; set them when clients are not trusted.
    encoder : str, default ""
        Fingerprint of the server's text encoder, sent as "encoder" in the request's config, so that a client
        with another encoder can refuse. Empty: not sent.
    max_upload_bytes : int, default 64,000,000
        Larger uploads are rejected.
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
    uploads : dict[tuple[str, int], TextEmbeddings]
        The accepted uploads, by site name and node id.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        synthesize_fn: Callable[[TextEmbeddings], Data],
        train_fn: Callable[[State, Data], State],
        num_classes: int,
        correct_fn: Callable[[State, Data], State] | None = None,
        embeddings: TextEmbeddings | None = None,
        embedding_shapes: Mapping[str, tuple[int, ...]] | None = None,
        encoder: str = "",
        max_upload_bytes: int = 64_000_000,
        max_weight_ratio: float = 10.0,
        num_nodes: int = 0,
        min_uploads: int = 2,
        setup_timeout: float = 3600.0,
    ) -> None:
        super().__init__(strategy, num_nodes=num_nodes, min_uploads=min_uploads, setup_timeout=setup_timeout)
        self.synthesize_fn = synthesize_fn
        self.train_fn = train_fn
        self.correct_fn = correct_fn
        self.num_classes = num_classes
        self.given_embeddings = embeddings
        self.embedding_shapes = embedding_shapes
        self.encoder = encoder
        self.max_upload_bytes = max_upload_bytes
        self.max_weight_ratio = max_weight_ratio
        self.uploads: dict[tuple[str, int], TextEmbeddings] = {}
        self._shapes = embedding_shapes
        self._synthetic: Data | None = None

    def configure_setup(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Sequence[Message]:
        """Return a request for text embeddings to every node; none when they were given."""
        require_weights(arrays)
        self.uploads.clear()
        self._shapes = self.embedding_shapes
        if self.given_embeddings is not None:
            return []
        content = RecordDict({CONFIG: ConfigRecord({**config, ENCODER: self.encoder})})
        return self.requests_to_all_nodes(grid, content, EMBED)

    def accept_upload(self, reply: Message) -> None:
        """Validate and keep one client's embeddings."""
        upload = record_to_embeddings(
            reply.content,
            num_classes=self.num_classes,
            max_bytes=self.max_upload_bytes,
            shapes=self._shapes,
        )
        self._shapes = upload.shapes
        self.uploads[site_name(reply), reply.metadata.src_node_id] = upload

    def finish_setup(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        """Synthesize the training set, train on it, and return the trained model."""
        embeddings = self._merged()
        synthetic = self._synthetic = self.synthesize_fn(embeddings)
        trained = transform_weights(
            arrays, lambda state: self.train_fn(state, synthetic), "training on the synthetic set"
        )
        metrics = {
            "num-uploads": len(self.uploads),
            "num-prompts": len(embeddings),
            "num-examples": int(embeddings.counts.sum()),
        }
        return trained, metric_record(metrics)

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Fine-tune the aggregate on the synthetic set, if there is a ``correct_fn``."""
        correct_fn = self.correct_fn
        if correct_fn is None:
            return arrays
        if self._synthetic is None:
            self._synthetic = self.synthesize_fn(self._merged())
        synthetic = self._synthetic
        return transform_weights(
            arrays, lambda state: correct_fn(state, synthetic), f"correction of round {server_round}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the uploads, and the state of the wrapped strategy."""
        uploads = {key: asdict(upload) for key, upload in self.uploads.items()}
        return {**super().state_dict(), "uploads": uploads}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        self.uploads = {key: TextEmbeddings(**upload) for key, upload in state_dict["uploads"].items()}
        self._synthetic = None

    def _merged(self) -> TextEmbeddings:
        if self.given_embeddings is not None:
            return self.given_embeddings
        # Sites in a fixed order: the synthetic set must not depend on the order of the replies.
        sites = sorted(self.uploads)
        totals = [int(self.uploads[site].counts.sum()) for site in sites]
        capped = self.cap_examples([name for name, _ in sites], totals, self.max_weight_ratio)
        return merge_embeddings(
            [
                self.uploads[site] if counted == total else limit_counts(self.uploads[site], int(counted))
                for site, total, counted in zip(sites, totals, capped, strict=True)
            ]
        )
