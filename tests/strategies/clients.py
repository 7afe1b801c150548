"""Clients of a grid in the test's process, and the callables of FGL's strategy."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.messages.embeddings import embeddings_to_record
from fgl_app.messages.sites import site_record
from fgl_app.strategies import SetupRoundStrategy

ARRAYS = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
ONE_CLIENT = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
"""Options of a strategy that needs one client."""
SIX_CLIENTS = {"min_train_nodes": 6, "min_evaluate_nodes": 6, "min_available_nodes": 6}


def fgl_client(number, *, value=1.0, label=0, count=5, upload=None):
    """Embed one prompt, and train by adding the client's number plus one."""

    def handle(message):
        if message.metadata.message_type == "query.embed":
            tensor = torch.full((1, 3, 2), value, dtype=torch.float16)
            embeddings = TextEmbeddings(
                {"prompt_embeds": tensor}, torch.tensor([label]), torch.tensor([count])
            )
            content = {"embeddings": upload or embeddings_to_record(embeddings)}
        else:
            arrays = {name: Array(a.numpy() + number + 1) for name, a in message.content["arrays"].items()}
            content = {"arrays": ArrayRecord(arrays)}
        metrics = MetricRecord({"num-examples": count, "loss": 1.0})
        return Message(
            RecordDict(content | {"metrics": metrics, "site": site_record(str(number))}), reply_to=message
        )

    return handle


def random_client(number):
    """Reply with random weights and metrics that depend on everything in the request."""

    def handle(message):
        config = message.content["config"]
        rng = np.random.default_rng([number, config["server-round"]])
        mu = config.get("proximal-mu", 0.0)
        metrics = MetricRecord({"num-examples": number + 3, "loss": float(rng.random())})
        if message.metadata.message_type == "evaluate":
            return Message(RecordDict({"metrics": metrics}), reply_to=message)
        # Whether the client clipped, as Flower's mod would report it.
        metrics["norm_bit"] = int(config.get("clipping_norm", 0.0) < 0.11 + number / 1000)
        arrays = {
            name: Array((1 - mu) * array.numpy() + rng.standard_normal(array.shape).astype(np.float32))
            for name, array in message.content["arrays"].items()
        }
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    return handle


def raising(message):
    raise RuntimeError("disk on fire")


def silent(message):
    return None


def bits(arrays):
    return {name: (array.dtype, array.numpy().tobytes()) for name, array in arrays.items()}


class FGLCallables:
    """Record the calls of an FGLStrategy; the synthetic set is the labels of the embeddings."""

    def __init__(self):
        self.embeddings = None
        self.calls = []

    def synthesize(self, embeddings):
        self.embeddings = embeddings
        self.calls.append("synthesize")
        return embeddings.labels.tolist()

    def train(self, state, data):
        self.calls.append(("train", data))
        return {"w": state["w"] + 100}

    def correct(self, state, data):
        self.calls.append(("correct", data))
        return {"w": state["w"] * 2}


class IdentitySetup(SetupRoundStrategy):
    """A set-up round without a message that changes nothing."""

    def configure_setup(self, arrays, config, grid):
        return []

    def accept_upload(self, reply):
        raise NotImplementedError

    def finish_setup(self, arrays):
        return arrays, MetricRecord({"identity": 1})
