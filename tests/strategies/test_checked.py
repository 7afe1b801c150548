"""CheckedStrategy: bad replies and lost nodes are left out, and a run with too few good replies fails."""

import numpy as np
import pytest
from flwr.app import Array, Error, Message
from flwr.serverapp.strategy import FedAvg

from fgl_app.strategies import CheckedStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from tests.fake_grid import FakeGrid
from tests.strategies.clients import ARRAYS, ONE_CLIENT, fgl_client, raising, silent

TWO_CLIENTS = {"min_train_nodes": 2, "min_available_nodes": 2}


def start(strategy, nodes, rounds=1):
    return strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=rounds)


def bad_client(**changes):
    """Train and reply with something that must not be averaged."""

    def handle(message):
        reply = fgl_client(9)(message)
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
        bad_client(arrays={"w": np.full(2, np.nan, np.float32)}),
        bad_client(arrays={"w": np.zeros(1, np.float32)}),
        bad_client(arrays={"x": np.zeros(2, np.float32)}),
        bad_client(weight=-5),
        bad_client(metric="extra"),
        bad_client(rename="other"),
        bad_client(metric="loss", value=[1.0, 2.0]),
        raising,
        silent,
    ],
)
def test_a_bad_reply_does_not_change_the_aggregate_of_the_others(bad):
    strategy = CheckedStrategy(FedAvg(**TWO_CLIENTS, fraction_evaluate=0.0))
    result = start(strategy, {1: fgl_client(0), 2: fgl_client(1), 3: bad}, rounds=2)
    assert result.arrays["w"].numpy().tolist() == [3, 3]
    assert len(strategy.rejected) + len(strategy.failures) == 2
    assert {i.phase for i in [*strategy.rejected, *strategy.failures]} == {
        "training round 1",
        "training round 2",
    }


def test_flower_alone_would_average_nan():
    """The reason for the checks: when this fails, Flower rejects NaN itself."""
    strategy = FedAvg(min_train_nodes=2, fraction_evaluate=0.0)
    nan = bad_client(arrays={"w": np.full(2, np.nan, np.float32)})
    result = start(strategy, {1: fgl_client(0), 2: fgl_client(1), 3: nan})
    assert np.isnan(result.arrays["w"].numpy()).all()


def lost(message):
    """Return the error for a node that Flower declares lost: its source is the SuperLink, with id 1."""
    reply = Message(Error(code=5, reason="Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply


def test_the_failure_of_a_lost_node_has_the_id_of_the_node():
    strategy = CheckedStrategy(FedAvg(min_train_nodes=2, fraction_evaluate=0.0))
    start(strategy, {7: fgl_client(0), 8: fgl_client(1), 77: lost, 78: silent})
    assert [(i.node, i.reason) for i in strategy.failures] == [
        ("77", "Node Unavailable"),
        ("78", "no reply in time"),
    ]


def test_a_round_without_enough_good_replies_fails_the_run():
    strategy = CheckedStrategy(FedAvg(min_train_nodes=2, fraction_evaluate=0.0), min_replies=2)
    with pytest.raises(
        TooFewRepliesError, match=r"training round 1: 1 good replies, at least 2 needed \(node"
    ):
        start(strategy, {1: fgl_client(0), 2: raising})


def test_a_very_long_reason_is_cut():
    def talkative(message):
        return Message(Error(2, "\x01" * 20_000_000), reply_to=message)

    strategy = CheckedStrategy(FedAvg(**ONE_CLIENT), min_replies=1)
    start(strategy, {1: fgl_client(0), 2: talkative})
    (failure,) = strategy.failures
    assert failure.reason == " " * 500


def test_too_few_nodes_for_an_evaluation_fail_the_run_in_time():
    grid = FakeGrid({1: fgl_client(0), 2: fgl_client(1)})

    def leaves(message):
        reply = fgl_client(1)(message)
        del grid.nodes[2]
        return reply

    grid.nodes[2] = leaves
    strategy = CheckedStrategy(FedAvg(), timeout=0.1)
    with pytest.raises(TooFewRepliesError, match="1 of at least 2 nodes connected"):
        strategy.start(grid, ARRAYS, num_rounds=1)


def test_a_node_that_never_connects_fails_the_round_in_time():
    strategy = CheckedStrategy(FedAvg(**TWO_CLIENTS), timeout=0.1)
    with pytest.raises(TooFewRepliesError, match="1 of at least 2 nodes connected within"):
        start(strategy, {1: fgl_client(0)})


def test_requests_live_as_long_as_the_server_waits():
    grid = FakeGrid({1: fgl_client(0), 2: fgl_client(1)})
    CheckedStrategy(FedAvg(), timeout=77.0).start(grid, ARRAYS, num_rounds=1)
    assert {message.metadata.ttl for message in grid.sent} == {77.0}
