"""FGLStrategy and CheckedStrategy on a grid inside the process."""

import weakref

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.messages.embeddings import embeddings_to_record
from fgl_app.messages.sites import site_record
from fgl_app.messages.sizes import message_bytes
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies import CheckedStrategy, FGLStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from fgl_app.strategies.metered_grid import MeteredGrid
from tests.fake_grid import FakeGrid

ARRAYS = ArrayRecord({"w": Array(np.zeros(2, np.float32))})


def site(number, *, value=1.0, label=0, count=5, upload=None):
    """A client that embeds one prompt and trains by adding its number plus one."""

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


def raising(message):
    raise RuntimeError("disk on fire")


def silent(message):
    return None


class Recorder:
    """The callables of an FGLStrategy: the synthetic set is the embeddings' labels and counts."""

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


def fgl(recorder, *, correct=False, inner=None, **options):
    sampling = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
    return FGLStrategy(
        inner or CheckedStrategy(FedAvg(**sampling), min_replies=1),
        synthesize_fn=recorder.synthesize,
        train_fn=recorder.train,
        correct_fn=recorder.correct if correct else None,
        num_classes=2,
        **{"setup_timeout": 1.5} | options,
    )


def start(strategy, nodes, rounds=1):
    return strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=rounds)


def test_one_shot_fgl_trains_on_what_the_clients_described():
    recorder = Recorder()
    strategy = fgl(recorder)
    result = start(
        strategy, {1: site(0, label=0), 2: site(1, label=1, value=2.0), 3: site(2, label=1, value=2.0)}
    )
    assert result.arrays["w"].numpy().tolist() == [100, 100]
    assert recorder.calls == ["synthesize", ("train", [0, 1])]
    # Sites 1 and 2 sent the same prompt: kept once, with both counts.
    assert recorder.embeddings.counts.tolist() == [5, 10]
    metrics = result.train_metrics_clientapp[1]
    assert (metrics["num-uploads"], metrics["num-prompts"], metrics["num-examples"]) == (3, 2, 15)


def test_further_rounds_are_the_inner_strategys_from_there():
    recorder = Recorder()
    result = start(fgl(recorder), {1: site(0), 2: site(1)}, rounds=3)
    # 100 after the set-up, then twice the mean of +1 and +2.
    assert result.arrays["w"].numpy().tolist() == [103, 103]
    assert len(recorder.calls) == 2


def test_correction_follows_each_aggregate():
    recorder = Recorder()
    result = start(fgl(recorder, correct=True), {1: site(0), 2: site(1)}, rounds=3)
    # (100 + 1.5) * 2 = 203, (203 + 1.5) * 2 = 409.
    assert result.arrays["w"].numpy().tolist() == [409, 409]
    assert recorder.calls[2:] == [("correct", [0])] * 2


def test_a_correction_that_does_nothing_is_the_inner_strategy():
    plain, identity = Recorder(), Recorder()
    identity.correct = lambda state, data: state
    nodes = {1: site(0), 2: site(1)}
    without = start(fgl(plain), nodes, rounds=3).arrays["w"].numpy()
    assert np.array_equal(start(fgl(identity, correct=True), nodes, rounds=3).arrays["w"].numpy(), without)


def test_given_embeddings_ask_nobody():
    recorder = Recorder()
    given = TextEmbeddings({"prompt_embeds": torch.ones(1, 3, 2)}, torch.tensor([1]), torch.tensor([1]))
    grid = FakeGrid({1: raising})
    result = fgl(recorder, embeddings=given).start(grid, ARRAYS, num_rounds=1)
    assert grid.sent == []
    assert recorder.embeddings is given
    assert result.train_metrics_clientapp[1]["num-uploads"] == 0


def test_the_synthetic_set_does_not_depend_on_who_has_which_node_id():
    first, second = Recorder(), Recorder()
    start(fgl(first), {1: site(0, value=1.0), 2: site(1, value=2.0)})
    start(fgl(second), {2: site(0, value=1.0), 1: site(1, value=2.0)})
    assert torch.equal(first.embeddings.tensors["prompt_embeds"], second.embeddings.tensors["prompt_embeds"])


def test_bad_uploads_and_lost_nodes_are_left_out_and_told_apart():
    recorder = Recorder()
    strategy = fgl(recorder, embedding_shapes={"prompt_embeds": (3, 2)})
    start(
        strategy,
        {
            11: site(0),
            12: site(1, value=float("nan")),
            13: site(2, label=7),
            14: raising,
            15: silent,
            16: site(5, upload=ArrayRecord({"labels": Array(np.array([0]))})),
            17: site(6, label=1),
        },
    )
    assert recorder.embeddings.labels.tolist() == [0, 1]
    assert {(i.node, i.site, i.reason) for i in strategy.rejected} == {
        ("12", "1", "'prompt_embeds' holds NaN or infinity"),
        ("13", "2", "'labels' must be between 0 and 1, got 7"),
        ("16", "5", "missing key 'counts'"),
    }
    assert [(i.node, i.reason) for i in strategy.failures] == [
        ("14", "RuntimeError: disk on fire"),
        ("15", "no reply within 1.5 s"),
    ]


def test_an_upload_that_is_too_large_is_rejected():
    strategy = fgl(Recorder(), max_upload_bytes=100, min_uploads=1)
    with pytest.raises(TooFewRepliesError, match=r"upload of \d+ bytes, at most 100 are accepted"):
        start(strategy, {1: site(0)})


def test_too_few_uploads_fail_the_run_and_name_the_nodes():
    with pytest.raises(TooFewRepliesError) as raised:
        start(fgl(Recorder(), min_uploads=3), {1: site(0), 2: raising, 3: site(2, label=9)})
    assert str(raised.value) == (
        "set-up: 1 good replies, at least 3 needed (node 2: RuntimeError: disk on fire; "
        "node 3, site 2: 'labels' must be between 0 and 1, got 9)"
    )


def test_too_few_nodes_fail_the_run():
    with pytest.raises(TooFewRepliesError, match=r"1 of at least 2 nodes connected within 0.1 s"):
        start(fgl(Recorder(), setup_timeout=0.1), {1: site(0)})


def test_uploads_are_pulled_one_by_one():
    grid = FakeGrid({i: site(i) for i in range(1, 6)})
    fgl(Recorder()).start(grid, ARRAYS, num_rounds=1)
    assert grid.most_pulled_at_once == 1


def bad_trainer(**changes):
    """A client that trains and returns something that must not be averaged."""

    def handle(message):
        reply = site(9)(message)
        for name, array in changes.get("arrays", {}).items():
            reply.content["arrays"][name] = Array(array)
        if "metric" in changes:
            reply.content["metrics"][changes["metric"]] = changes.get("value", 1.0)
        if "rename" in changes:
            reply.content[changes["rename"]] = reply.content.pop("arrays")
        if "weight" in changes:
            reply.content["metrics"]["num-examples"] = changes["weight"]
        return reply

    return handle


@pytest.mark.parametrize(
    "bad",
    [
        bad_trainer(arrays={"w": np.full(2, np.nan, np.float32)}),
        bad_trainer(arrays={"w": np.zeros(1, np.float32)}),
        bad_trainer(arrays={"x": np.zeros(2, np.float32)}),
        bad_trainer(weight=-5),
        bad_trainer(metric="extra"),
        bad_trainer(rename="other"),
        bad_trainer(metric="loss", value=[1.0, 2.0]),
        raising,
        silent,
    ],
)
def test_a_bad_training_reply_changes_nothing_for_the_others(bad):
    sampling = {"min_train_nodes": 2, "min_available_nodes": 2, "fraction_evaluate": 0.0}
    strategy = CheckedStrategy(FedAvg(**sampling))
    result = start(strategy, {1: site(0), 2: site(1), 3: bad}, rounds=2)
    assert result.arrays["w"].numpy().tolist() == [3, 3]
    assert len(strategy.rejected) + len(strategy.failures) == 2
    assert {i.phase for i in [*strategy.rejected, *strategy.failures]} == {
        "training round 1",
        "training round 2",
    }


def lost(message):
    """A node that Flower declares lost: the error comes from the SuperLink, whose id is 1."""
    reply = Message(Error(code=5, reason="Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply


def test_a_lost_node_is_named_by_its_own_id():
    strategy = CheckedStrategy(FedAvg(min_train_nodes=2, fraction_evaluate=0.0))
    start(strategy, {7: site(0), 8: site(1), 77: lost, 78: silent})
    assert [(i.node, i.reason) for i in strategy.failures] == [
        ("77", "Node Unavailable"),
        ("78", "no reply in time"),
    ]


def test_weights_that_became_nan_fail_the_run():
    recorder = Recorder()
    recorder.train = lambda state, data: {"w": state["w"] / 0}
    with pytest.raises(ValueError, match="training on the synthetic set: array 'w' holds NaN or infinity"):
        start(fgl(recorder), {1: site(0), 2: site(1)})


def test_a_strategy_can_be_started_again():
    recorder = Recorder()
    strategy = fgl(recorder)
    start(strategy, {1: site(0, label=0), 2: site(1, label=0)})
    start(strategy, {3: site(0, label=1), 4: site(1, label=1)})
    assert recorder.embeddings.labels.tolist() == [1]
    assert recorder.embeddings.counts.tolist() == [10]


def test_flower_alone_would_average_nan():
    """Why the checks are there: should this ever fail, Flower has learnt to refuse it."""
    strategy = FedAvg(min_train_nodes=2, fraction_evaluate=0.0)
    nodes = {1: site(0), 2: site(1), 3: bad_trainer(arrays={"w": np.full(2, np.nan, np.float32)})}
    assert np.isnan(start(strategy, nodes).arrays["w"].numpy()).all()


def test_a_round_without_enough_good_replies_fails_the_run():
    strategy = CheckedStrategy(FedAvg(min_train_nodes=2, fraction_evaluate=0.0), min_replies=2)
    with pytest.raises(
        TooFewRepliesError, match=r"training round 1: 1 good replies, at least 2 needed \(node"
    ):
        start(strategy, {1: site(0), 2: raising})


def test_every_message_is_in_the_ledger():
    inner = FakeGrid({1: site(0), 2: site(1), 3: raising})
    ledger = TrafficLedger()
    grid = MeteredGrid(inner, ledger, phase_names={"query.embed": "setup"})
    fgl(Recorder()).start(grid, ARRAYS, num_rounds=2)
    phases = ledger.by_phase()
    assert list(phases) == ["setup", "train"]
    for name, message_type in {"setup": "query.embed", "train": "train"}.items():
        sent = [message for message in inner.sent if message.metadata.message_type == message_type]
        assert phases[name]["downlink"] == sum(message_bytes(message) for message in sent)
        assert phases[name]["downlink_messages"] == phases[name]["uplink_messages"] == 3
    # An upload is at least its tensors: 1 prompt of 3 x 2 half floats, a label and a count.
    assert phases["setup"]["uplink"] > 2 * (12 + 8 + 8)


def test_a_reply_that_is_far_too_large_is_dropped_and_the_others_count():
    def huge(message):
        reply = site(2)(message)
        reply.content["arrays"] = ArrayRecord({"w": Array(np.zeros(50_000, np.float32))})
        return reply

    inner = FakeGrid({1: site(0), 2: site(1), 3: huge})
    ledger = TrafficLedger()
    strategy = CheckedStrategy(
        FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0), min_replies=1
    )
    result = strategy.start(MeteredGrid(inner, ledger, max_reply_bytes=100_000), ARRAYS, num_rounds=1)
    # The mean of +1 and +2.
    assert result.arrays["w"].numpy().tolist() == [1.5, 1.5]
    (incident,) = strategy.failures
    assert incident.node == "3"
    assert "bytes from site 2, at most 100,000 are accepted" in incident.reason
    assert ledger.totals()["uplink"] > 200_000, "it was sent, and so it is counted"
    assert inner.most_pulled_at_once == 1


class WatchingGrid(FakeGrid):
    """Notes which replies are still in memory when another is pulled."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.pulled, self.alive = [], []

    def pull_messages(self, message_ids):
        self.alive.extend(reply for reply in self.pulled if reply() is not None)
        replies = super().pull_messages(message_ids)
        self.pulled.extend(map(weakref.ref, replies))
        return replies


def test_no_upload_is_in_memory_while_the_next_is_pulled():
    grid = WatchingGrid({1: site(0), 2: site(1, value=np.nan), 3: raising, 4: site(2)})
    fgl(Recorder()).start(grid, ARRAYS, num_rounds=1)
    assert len(grid.pulled) == 4
    assert not grid.alive


def test_the_request_to_a_silent_node_is_forgotten():
    inner = FakeGrid({1: site(0), 2: silent})
    grid = MeteredGrid(inner, TrafficLedger())
    content = RecordDict({"arrays": ARRAYS})
    requests = [Message(content, message_type="train", dst_node_id=node) for node in (1, 2)]
    references = list(map(weakref.ref, requests))
    assert len(grid.send_and_receive(requests, timeout=0.1)) == 1
    del requests
    inner.sent.clear()
    assert [reference() for reference in references] == [None, None]


def test_no_dropped_reply_is_in_memory_while_the_next_is_pulled():
    def huge(message):
        reply = site(2)(message)
        reply.content["arrays"] = ArrayRecord({"w": Array(np.zeros(50_000, np.float32))})
        return reply

    inner = WatchingGrid(dict.fromkeys((1, 2, 3), huge))
    content = RecordDict({"arrays": ARRAYS})
    requests = [Message(content, message_type="train", dst_node_id=node) for node in inner.nodes]
    grid = MeteredGrid(inner, TrafficLedger(), max_reply_bytes=100_000)
    replies = list(grid.send_and_receive(requests))
    assert [reply.has_error() for reply in replies] == [True] * 3
    assert len(inner.pulled) == 3
    assert not inner.alive


def test_an_endless_reason_is_cut_and_ends_no_run():
    def talkative(message):
        return Message(Error(2, "\x01" * 20_000_000), reply_to=message)

    strategy = CheckedStrategy(
        FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0), min_replies=1
    )
    start(strategy, {1: site(0), 2: talkative})
    (incident,) = strategy.failures
    assert incident.reason == " " * 500


@pytest.mark.parametrize(
    "error", [TypeError("dtype"), IndexError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")]
)
def test_a_reply_that_flower_cannot_read_is_that_nodes_failure(error):
    class Breaking(FakeGrid):
        def pull_messages(self, message_ids):
            replies = super().pull_messages(message_ids)
            if replies and replies[0].metadata.src_node_id == 2:
                raise error
            return replies

    grid = MeteredGrid(Breaking({1: site(0), 2: site(1), 3: site(2)}), TrafficLedger())
    strategy = CheckedStrategy(
        FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0), min_replies=1
    )
    strategy.start(grid, ARRAYS, num_rounds=1)
    assert [incident.node for incident in strategy.failures] == ["2"]
    assert "the reply cannot be read" in strategy.failures[0].reason


def test_a_lost_connection_is_nobodys_failure():
    class Lost(FakeGrid):
        def pull_messages(self, message_ids):
            raise ConnectionError("the SuperLink is gone")

    grid = MeteredGrid(Lost({1: site(0), 2: site(1)}), TrafficLedger())
    with pytest.raises(ConnectionError):
        CheckedStrategy(FedAvg()).start(grid, ARRAYS, num_rounds=1)


def test_a_reply_is_from_the_node_that_was_asked_whatever_it_says():
    def forger(message):
        reply = site(1)(message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    class Believing(FakeGrid):
        def push_messages(self, messages):
            ids = super().push_messages(messages)
            for reply in self._replies.values():
                reply.metadata.__dict__["_src_node_id"] = 1
            return ids

    strategy = fgl(Recorder())
    strategy.start(MeteredGrid(Believing({1: site(0), 2: forger}), TrafficLedger()), ARRAYS, num_rounds=1)
    assert sorted(strategy.uploads) == [("0", 1), ("1", 2)]


def test_too_few_nodes_for_an_evaluation_end_the_run_in_time():
    grid = FakeGrid({1: site(0), 2: site(1)})

    def leaves(message):
        reply = site(1)(message)
        del grid.nodes[2]
        return reply

    grid.nodes[2] = leaves
    strategy = CheckedStrategy(FedAvg(), timeout=0.3)
    with pytest.raises(TooFewRepliesError, match="1 of at least 2 nodes connected"):
        strategy.start(grid, ARRAYS, num_rounds=1)


def test_a_node_that_never_comes_ends_a_round_in_time():
    sampling = {"min_train_nodes": 2, "min_available_nodes": 2}
    strategy = CheckedStrategy(FedAvg(**sampling), timeout=0.3)
    with pytest.raises(TooFewRepliesError, match="1 of at least 2 nodes connected within"):
        start(strategy, {1: site(0)})


def test_requests_live_no_longer_than_the_server_waits():
    grid = FakeGrid({1: site(0), 2: site(1)})
    CheckedStrategy(FedAvg(), timeout=77.0).start(grid, ARRAYS, num_rounds=1)
    assert {message.metadata.ttl for message in grid.sent} == {77.0}


def test_the_import_is_light():
    import subprocess
    import sys

    heavy = "{'diffusers', 'transformers', 'datasets', 'ray', 'matplotlib'}"
    code = f"import sys, fgl_app.strategies; print(sorted({heavy} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
