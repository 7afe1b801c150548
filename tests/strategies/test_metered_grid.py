"""MeteredGrid counts bytes, keeps one reply in memory, and drops unreadable or large replies."""

import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fgl_app.messages.sizes import message_bytes
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies import CheckedStrategy
from fgl_app.strategies.metered_grid import MeteredGrid
from tests.fake_grid import FakeGrid
from tests.strategies.clients import ARRAYS, ONE_CLIENT, FGLCallables, fgl_client, raising, silent
from tests.strategies.test_fgl import fgl


class WatchingGrid(FakeGrid):
    """Record which replies are still in memory when another is pulled."""

    def __init__(self, nodes):
        super().__init__(nodes)
        self.pulled, self.alive = [], []

    def pull_messages(self, message_ids):
        self.alive.extend(reply for reply in self.pulled if reply() is not None)
        replies = super().pull_messages(message_ids)
        self.pulled.extend(map(weakref.ref, replies))
        return replies


def huge(message):
    reply = fgl_client(2)(message)
    reply.content["arrays"] = ArrayRecord({"w": Array(np.zeros(50_000, np.float32))})
    return reply


def requests_for(*nodes):
    content = RecordDict({"arrays": ARRAYS})
    return [Message(content, message_type="train", dst_node_id=node) for node in nodes]


def checked():
    return CheckedStrategy(FedAvg(**ONE_CLIENT), min_replies=1)


def test_every_message_is_in_the_ledger():
    inner = FakeGrid({1: fgl_client(0), 2: fgl_client(1), 3: raising})
    ledger = TrafficLedger()
    grid = MeteredGrid(inner, ledger, phase_names={"query.embed": "setup"})
    fgl(FGLCallables()).start(grid, ARRAYS, num_rounds=2)
    phases = ledger.by_phase()
    assert list(phases) == ["setup", "train"]
    for name, message_type in {"setup": "query.embed", "train": "train"}.items():
        sent = [message for message in inner.sent if message.metadata.message_type == message_type]
        assert phases[name]["downlink"] == sum(message_bytes(message) for message in sent)
        assert phases[name]["downlink_messages"] == phases[name]["uplink_messages"] == 3
    # An upload is at least its tensors: 1 prompt of 3 x 2 half floats, a label and a count.
    assert phases["setup"]["uplink"] > 2 * (12 + 8 + 8)


def test_a_reply_that_is_too_large_is_dropped_and_the_others_count():
    inner = FakeGrid({1: fgl_client(0), 2: fgl_client(1), 3: huge})
    ledger = TrafficLedger()
    strategy = checked()
    result = strategy.start(MeteredGrid(inner, ledger, max_reply_bytes=100_000), ARRAYS, num_rounds=1)
    # The mean of +1 and +2.
    assert result.arrays["w"].numpy().tolist() == [1.5, 1.5]
    (failure,) = strategy.failures
    assert failure.node == "3"
    assert "bytes from site 2, at most 100,000 are accepted" in failure.reason
    assert ledger.totals()["uplink"] > 200_000, "it was sent, so it is counted"
    assert inner.most_pulled_at_once == 1


def test_no_upload_is_in_memory_while_the_next_is_pulled():
    grid = WatchingGrid({1: fgl_client(0), 2: fgl_client(1, value=np.nan), 3: raising, 4: fgl_client(2)})
    fgl(FGLCallables()).start(grid, ARRAYS, num_rounds=1)
    assert grid.most_pulled_at_once == 1
    assert len(grid.pulled) == 4
    assert not grid.alive


def test_no_dropped_reply_is_in_memory_while_the_next_is_pulled():
    inner = WatchingGrid(dict.fromkeys((1, 2, 3), huge))
    grid = MeteredGrid(inner, TrafficLedger(), max_reply_bytes=100_000)
    replies = list(grid.send_and_receive(requests_for(*inner.nodes)))
    assert [reply.has_error() for reply in replies] == [True] * 3
    assert len(inner.pulled) == 3
    assert not inner.alive


def test_the_request_to_a_silent_node_is_not_kept():
    inner = FakeGrid({1: fgl_client(0), 2: silent})
    grid = MeteredGrid(inner, TrafficLedger())
    requests = requests_for(1, 2)
    references = list(map(weakref.ref, requests))
    assert len(grid.send_and_receive(requests, timeout=0.1)) == 1
    del requests
    inner.sent.clear()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize(
    "error", [TypeError("dtype"), IndexError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")]
)
def test_a_reply_that_flower_cannot_read_is_a_failure_of_its_node(error):
    class FailingGrid(FakeGrid):
        def pull_messages(self, message_ids):
            replies = super().pull_messages(message_ids)
            if replies and replies[0].metadata.src_node_id == 2:
                raise error
            return replies

    nodes = {1: fgl_client(0), 2: fgl_client(1), 3: fgl_client(2)}
    strategy = checked()
    strategy.start(MeteredGrid(FailingGrid(nodes), TrafficLedger()), ARRAYS, num_rounds=1)
    assert [failure.node for failure in strategy.failures] == ["2"]
    assert "the reply cannot be read" in strategy.failures[0].reason


def test_a_lost_connection_is_no_failure_of_a_client():
    class DisconnectedGrid(FakeGrid):
        def pull_messages(self, message_ids):
            raise ConnectionError("the SuperLink is gone")

    grid = MeteredGrid(DisconnectedGrid({1: fgl_client(0), 2: fgl_client(1)}), TrafficLedger())
    with pytest.raises(ConnectionError):
        CheckedStrategy(FedAvg()).start(grid, ARRAYS, num_rounds=1)
