"""FGL as a Flower strategy (Zhang, Qi, Zhao, arXiv 2306.16064)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.algorithms.embedding import merge_embeddings
from fgl_app.algorithms.types import State, TextEmbeddings
from fgl_app.messages.records import (
    CONFIG,
    ENCODER,
    arrays_to_state,
    metric_record,
    require_finite,
    require_weights,
    site_name,
    with_state,
)
from fgl_app.messages.uploads import record_to_embeddings
from fgl_app.strategies.setup_round import SetupRoundStrategy

EMBED = "query.embed"
"""Type of the message that asks a client for its text embeddings."""

Data = TypeVar("Data")


class FGLStrategy(SetupRoundStrategy, Generic[Data]):
    """Generative federated learning: embeddings once, a synthetic set, then any strategy's rounds.

    Round 1 asks every node for the text embeddings of prompts about its data, synthesizes a training set
    from them and trains the global model on it: with ``num_rounds=1`` that is one-shot FGL. Further rounds
    are those of the wrapped strategy, each followed by ``correct_fn`` on the synthetic set when given.

    Parameters
    ----------
    strategy : Strategy
        Runs the rounds after the first.
    synthesize_fn : Callable[[TextEmbeddings], Data]
        Turns the merged embeddings into the synthetic training set, whatever type that has. In a run that
        was restored it is asked again, and should then take what it made before from where it kept it.
    train_fn : Callable[[State, Data], State]
        Trains the global model, given as a state dict, on the synthetic set alone.
    num_classes : int
        Labels in uploads must be below it.
    correct_fn : Callable[[State, Data], State] or None, default None
        Fine-tunes each aggregate on the synthetic set (paper: 5 epochs); None does not. A wrapped strategy
        with momentum over its own aggregates (FedAvgM) does not see the correction.
    embeddings : TextEmbeddings or None, default None
        Use these and ask no client.
    embedding_shapes : Mapping[str, tuple[int, ...]] or None, default None
        Names and shapes of one prompt's tensors, as the server's own encoder gives them. None takes those
        of the first upload that is good otherwise; give them where clients are not trusted.
    encoder : str, default ""
        Names the server's text encoder; the request tells it, as "encoder" in its config, so that a client
        that has another one can refuse. Empty says nothing.
    max_upload_bytes : int, default 64,000,000
        Larger uploads are rejected.
    num_nodes : int, default 0
        Nodes to wait for before asking; 0 takes those that are connected.
    min_uploads : int, default 2
        Good uploads the set-up needs; with fewer the run fails.
    setup_timeout : float, default 3600.0
        Seconds to wait for nodes, and again for their uploads.

    Attributes
    ----------
    uploads : dict[tuple[str, int], TextEmbeddings]
        What was accepted, by site name and node id.
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
        self.uploads: dict[tuple[str, int], TextEmbeddings] = {}
        self._shapes = embedding_shapes
        self._synthetic: Data | None = None

    def configure_setup(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Sequence[Message]:
        """Ask every node for its text embeddings, unless they were given."""
        require_weights(arrays)
        self.uploads.clear()
        self._shapes = self.embedding_shapes
        if self.given_embeddings is not None:
            return []
        content = RecordDict({CONFIG: ConfigRecord({**config, ENCODER: self.encoder})})
        return self.ask_every_node(grid, content, EMBED)

    def accept_upload(self, reply: Message) -> None:
        """Validate one client's embeddings and keep them."""
        upload = record_to_embeddings(
            reply.content,
            num_classes=self.num_classes,
            max_bytes=self.max_upload_bytes,
            shapes=self._shapes,
        )
        self._shapes = upload.shapes
        self.uploads[site_name(reply), reply.metadata.src_node_id] = upload

    def finish_setup(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        """Synthesize, train, and return the trained model."""
        embeddings = self._merged()
        self._synthetic = self.synthesize_fn(embeddings)
        state = self.train_fn(arrays_to_state(arrays), self._synthetic)
        metrics = {
            "num-uploads": len(self.uploads),
            "num-prompts": len(embeddings),
            "num-examples": int(embeddings.counts.sum()),
        }
        trained = require_finite(with_state(arrays, state), "training on the synthetic set")
        return trained, metric_record(metrics)

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Fine-tune the aggregate on the synthetic set, when asked to."""
        if self.correct_fn is None:
            return arrays
        if self._synthetic is None:
            self._synthetic = self.synthesize_fn(self._merged())
        state = self.correct_fn(arrays_to_state(arrays), self._synthetic)
        return require_finite(with_state(arrays, state), f"correction of round {server_round}")

    def state_dict(self) -> dict[str, Any]:
        """Return the uploads, and what the wrapped strategy has learnt."""
        uploads = {key: asdict(upload) for key, upload in self.uploads.items()}
        return {**super().state_dict(), "uploads": uploads}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        super().load_state_dict(state_dict)
        self.uploads = {key: TextEmbeddings(**upload) for key, upload in state_dict["uploads"].items()}
        self._synthetic = None

    def _merged(self) -> TextEmbeddings:
        if self.given_embeddings is not None:
            return self.given_embeddings
        # Sites in a fixed order: the synthetic set must not depend on who replied first.
        return merge_embeddings([self.uploads[site] for site in sorted(self.uploads)])
