"""FGLStrategy on a grid in the test's process."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies import CheckedStrategy, FGLStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from fgl_app.strategies.metered_grid import MeteredGrid
from tests.fake_grid import FakeGrid
from tests.strategies.clients import (
    ARRAYS,
    ONE_CLIENT,
    FGLCallables,
    fgl_client,
    raising,
    silent,
)


def fgl(callables, *, correct=False, **options):
    return FGLStrategy(
        CheckedStrategy(FedAvg(**ONE_CLIENT), min_replies=1),
        synthesize_fn=callables.synthesize,
        train_fn=callables.train,
        correct_fn=callables.correct if correct else None,
        num_classes=2,
        **{"setup_timeout": 0.2} | options,
    )


def start(strategy, nodes, rounds=1):
    return strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=rounds)


def test_one_shot_fgl_trains_on_the_descriptions_of_the_clients():
    callables = FGLCallables()
    strategy = fgl(callables)
    nodes = {1: fgl_client(0), 2: fgl_client(1, label=1, value=2.0), 3: fgl_client(2, label=1, value=2.0)}
    result = start(strategy, nodes)
    assert result.arrays["w"].numpy().tolist() == [100, 100]
    assert callables.calls == ["synthesize", ("train", [0, 1])]
    # Sites 1 and 2 sent the same prompt: it is kept once, with the sum of both counts.
    assert callables.embeddings.counts.tolist() == [5, 10]
    metrics = result.train_metrics_clientapp[1]
    assert (metrics["num-uploads"], metrics["num-prompts"], metrics["num-examples"]) == (3, 2, 15)


def test_further_rounds_are_rounds_of_the_inner_strategy():
    callables = FGLCallables()
    result = start(fgl(callables), {1: fgl_client(0), 2: fgl_client(1)}, rounds=3)
    # 100 after the set-up, then twice the mean of +1 and +2.
    assert result.arrays["w"].numpy().tolist() == [103, 103]
    assert len(callables.calls) == 2


def test_each_aggregate_is_corrected():
    callables = FGLCallables()
    result = start(fgl(callables, correct=True), {1: fgl_client(0), 2: fgl_client(1)}, rounds=3)
    # (100 + 1.5) * 2 = 203, (203 + 1.5) * 2 = 409.
    assert result.arrays["w"].numpy().tolist() == [409, 409]
    assert callables.calls[2:] == [("correct", [0])] * 2


def test_a_correction_that_changes_nothing_is_the_inner_strategy():
    plain, identity = FGLCallables(), FGLCallables()
    identity.correct = lambda state, data: state
    nodes = {1: fgl_client(0), 2: fgl_client(1)}
    without = start(fgl(plain), nodes, rounds=3).arrays["w"].numpy()
    assert np.array_equal(start(fgl(identity, correct=True), nodes, rounds=3).arrays["w"].numpy(), without)


def test_given_embeddings_need_no_request():
    callables = FGLCallables()
    given = TextEmbeddings({"prompt_embeds": torch.ones(1, 3, 2)}, torch.tensor([1]), torch.tensor([1]))
    grid = FakeGrid({1: raising})
    result = fgl(callables, embeddings=given).start(grid, ARRAYS, num_rounds=1)
    assert grid.sent == []
    assert callables.embeddings is given
    assert result.train_metrics_clientapp[1]["num-uploads"] == 0


def test_the_synthetic_set_does_not_depend_on_node_ids():
    first, second = FGLCallables(), FGLCallables()
    start(fgl(first), {1: fgl_client(0, value=1.0), 2: fgl_client(1, value=2.0)})
    start(fgl(second), {2: fgl_client(0, value=1.0), 1: fgl_client(1, value=2.0)})
    assert torch.equal(first.embeddings.tensors["prompt_embeds"], second.embeddings.tensors["prompt_embeds"])


def test_bad_uploads_are_rejected_and_lost_nodes_are_failures():
    callables = FGLCallables()
    strategy = fgl(callables, embedding_shapes={"prompt_embeds": (3, 2)})
    start(
        strategy,
        {
            11: fgl_client(0),
            12: fgl_client(1, value=float("nan")),
            13: fgl_client(2, label=7),
            14: raising,
            15: silent,
            16: fgl_client(5, upload=ArrayRecord({"labels": Array(np.array([0]))})),
            17: fgl_client(6, label=1),
        },
    )
    assert callables.embeddings.labels.tolist() == [0, 1]
    assert {(i.node, i.site, i.reason) for i in strategy.rejected} == {
        ("12", "1", "'prompt_embeds' holds NaN or infinity"),
        ("13", "2", "'labels' must be between 0 and 1, got 7"),
        ("16", "5", "missing key 'counts'"),
    }
    assert [(i.node, i.reason) for i in strategy.failures] == [
        ("14", "RuntimeError: disk on fire"),
        ("15", "no reply within 0.2 s"),
    ]


def test_an_upload_that_is_too_large_is_rejected():
    strategy = fgl(FGLCallables(), max_upload_bytes=100, min_uploads=1)
    with pytest.raises(TooFewRepliesError, match=r"upload of \d+ bytes, at most 100 are accepted"):
        start(strategy, {1: fgl_client(0)})


def test_too_few_uploads_fail_the_run_and_the_error_names_the_nodes():
    nodes = {1: fgl_client(0), 2: raising, 3: fgl_client(2, label=9)}
    with pytest.raises(TooFewRepliesError) as raised:
        start(fgl(FGLCallables(), min_uploads=3), nodes)
    assert str(raised.value) == (
        "set-up: 1 good replies, at least 3 needed (node 2: RuntimeError: disk on fire; "
        "node 3, site 2: 'labels' must be between 0 and 1, got 9)"
    )


def test_too_few_nodes_fail_the_run():
    with pytest.raises(TooFewRepliesError, match=r"1 of at least 2 nodes connected within 0.1 s"):
        start(fgl(FGLCallables(), setup_timeout=0.1), {1: fgl_client(0)})


def test_weights_with_nan_after_the_training_fail_the_run():
    callables = FGLCallables()
    callables.train = lambda state, data: {"w": state["w"] / 0}
    with pytest.raises(ValueError, match="training on the synthetic set: array 'w' holds NaN or infinity"):
        start(fgl(callables), {1: fgl_client(0), 2: fgl_client(1)})


def test_a_strategy_can_be_started_again():
    callables = FGLCallables()
    strategy = fgl(callables)
    start(strategy, {1: fgl_client(0, label=0), 2: fgl_client(1, label=0)})
    start(strategy, {3: fgl_client(0, label=1), 4: fgl_client(1, label=1)})
    assert callables.embeddings.labels.tolist() == [1]
    assert callables.embeddings.counts.tolist() == [10]


def test_the_uploads_have_the_node_that_received_the_request():
    def forger(message):
        reply = fgl_client(1)(message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    class CredulousGrid(FakeGrid):
        def push_messages(self, messages):
            ids = super().push_messages(messages)
            for reply in self._replies.values():
                reply.metadata.__dict__["_src_node_id"] = 1
            return ids

    strategy = fgl(FGLCallables())
    grid = MeteredGrid(CredulousGrid({1: fgl_client(0), 2: forger}), TrafficLedger())
    strategy.start(grid, ARRAYS, num_rounds=1)
    assert sorted(strategy.uploads) == [("0", 1), ("1", 2)]


def test_the_import_is_light():
    heavy = "{'diffusers', 'transformers', 'datasets', 'ray', 'matplotlib'}"
    code = f"import sys, fgl_app.strategies; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
