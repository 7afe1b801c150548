"""FedDDPMStrategy on a grid in the test's process."""

import gc
import re
import weakref
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fgl_app.algorithms.plateau import is_plateau
from fgl_app.messages.sites import site_record
from fgl_app.strategies import CheckedStrategy, FedDDPMStrategy, NoExchangeStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from tests.fake_grid import FakeGrid
from tests.strategies.clients import ARRAYS, ONE_CLIENT, bits, raising, silent


def client(number, *, examples=10, upload=None, counts=None, losses=(1.0,)):
    """Return its number everywhere as its own model, and train by adding its number plus one."""
    rest = list(losses)

    def handle(message):
        metrics = {"num-examples": examples}
        arrays = message.content["arrays"]
        if message.metadata.message_type == "train.local_diffusion":
            new = upload or {n: np.full(a.shape, number, np.float32) for n, a in arrays.items()}
            if counts is not None:
                metrics["label-counts"] = counts
        else:
            new = {n: a.numpy() + np.float32(number + 1) for n, a in arrays.items()}
            metrics["train-loss"] = rest.pop(0) if len(rest) > 1 else rest[0]
        content = {
            "arrays": ArrayRecord({n: Array(a) for n, a in new.items()}),
            "metrics": MetricRecord(metrics),
            "site": site_record(str(number)),
        }
        return Message(RecordDict(content), reply_to=message)

    return handle


class FedDDPMCallables:
    """Record the calls of a FedDDPMStrategy: each client's share, and the corrections."""

    def __init__(self):
        self.clients = []
        self.corrected = []
        self.most_alive = 0

    def sample(self, clients):
        alive = weakref.WeakSet()
        for model in clients:
            self.clients.append((model.site, model.num_images, model.state["w"].tolist()))
            alive.add(model.state["w"])
            model = None  # noqa: PLW2901
            gc.collect()
            self.most_alive = max(self.most_alive, len(alive))
        return "auxiliary"

    def correct(self, state, data):
        self.corrected.append(data)
        return {"w": state["w"] * 2}


def fedddpm(callables, inner=None, **options):
    return FedDDPMStrategy(
        inner or CheckedStrategy(FedAvg(**ONE_CLIENT), min_replies=1),
        sample_fn=callables.sample,
        correct_fn=callables.correct,
        **{"setup_timeout": 0.2, "auxiliary_size": 10} | options,
    )


def run(strategy, nodes, rounds):
    grid = FakeGrid(nodes)
    return grid, strategy.start(grid, ARRAYS, num_rounds=rounds)


def test_shares_follow_the_number_of_examples():
    callables = FedDDPMCallables()
    grid, _ = run(fedddpm(callables), {9: client(0, examples=10), 3: client(1, examples=30)}, 1)
    # 10 and 30 examples of 40, 10 images: 2.5 and 7.5; the first site wins the tie.
    assert callables.clients == [("0", 3, [0.0, 0.0]), ("1", 7, [1.0, 1.0])]
    assert grid.most_pulled_at_once == 1


def test_one_model_is_in_memory_at_a_time():
    callables = FedDDPMCallables()
    run(fedddpm(callables), {i: client(i) for i in range(5)}, 1)
    assert len(callables.clients) == 5
    assert callables.most_alive <= 1


def test_aggregates_are_corrected_and_the_initial_model_is_not():
    callables = FedDDPMCallables()
    strategy = fedddpm(callables)
    _, result = run(strategy, {0: client(0), 1: client(1)}, 3)
    # Each round adds 1.5 and doubles: 0 -> 3 -> 9.
    assert result.arrays["w"].numpy().tolist() == [9.0, 9.0]
    assert callables.corrected == ["auxiliary"] * 2
    assert [(d.round, d.loss, d.corrected) for d in strategy.decisions] == [(2, 1.0, True), (3, 1.0, True)]


def test_a_correction_that_changes_nothing_is_the_inner_strategy():
    callables = FedDDPMCallables()
    callables.correct = lambda state, data: state
    nodes = {0: client(0, examples=7), 1: client(3, examples=5)}
    _, wrapped = run(fedddpm(callables), nodes, 4)
    _, bare = run(FedAvg(**ONE_CLIENT), nodes, 3)
    assert bits(wrapped.arrays) == bits(bare.arrays)


def test_a_detector_that_never_fires_is_the_inner_strategy():
    callables = FedDDPMCallables()
    nodes = {0: client(0, examples=7), 1: client(3, examples=5)}
    strategy = fedddpm(callables, should_correct_fn=lambda losses: False)
    _, wrapped = run(strategy, nodes, 4)
    _, bare = run(FedAvg(**ONE_CLIENT), nodes, 3)
    assert bits(wrapped.arrays) == bits(bare.arrays)
    assert not callables.corrected


def test_the_detector_corrects_when_learning_is_slow_up_to_the_limit():
    callables = FedDDPMCallables()
    losses = [1.0, 0.5, 0.49, 0.48, 0.47]
    detector = partial(is_plateau, window=1, smoothing=0.0, threshold=0.1)
    strategy = fedddpm(callables, should_correct_fn=detector)
    run(strategy, {0: client(0, losses=losses), 1: client(1, losses=losses)}, 6)
    # Rounds 2 to 6 have the five losses; the third is the first that fell by less than a tenth.
    assert [d.round for d in strategy.decisions if d.corrected] == [4]
    assert [d.loss for d in strategy.decisions] == pytest.approx(losses)
    twice = fedddpm(FedDDPMCallables(), should_correct_fn=detector, max_corrections=2)
    run(twice, {0: client(0, losses=losses), 1: client(1, losses=losses)}, 6)
    assert [d.round for d in twice.decisions if d.corrected] == [4, 5]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (client(5, upload={"w": np.array([1.0, np.nan], np.float32)}), "'w' holds NaN or infinity"),
        (client(5, upload={"w": np.zeros(3, np.float32)}), r"must be float32 of shape \(2,\)"),
        (client(5, upload={"v": np.zeros(2, np.float32)}), "array 'v' is unknown"),
        (client(5, upload={"w": np.zeros(2, np.float64)}), "must be float32"),
        (client(5, examples=0), "'num-examples' must be in"),
    ],
)
def test_a_bad_model_is_rejected_with_its_reason(bad, reason):
    callables = FedDDPMCallables()
    strategy = fedddpm(callables)
    run(strategy, {0: client(0), 1: client(1), 2: bad}, 1)
    assert [(site, images) for site, images, _ in callables.clients] == [("0", 5), ("1", 5)]
    assert [failure.node for failure in strategy.rejected] == ["2"]
    assert re.search(reason, strategy.rejected[0].reason)


def test_lost_clients_are_left_out_and_too_few_clients_fail():
    callables = FedDDPMCallables()
    strategy = fedddpm(callables)
    run(strategy, {0: client(0), 1: client(1), 2: raising, 3: silent}, 1)
    assert len(callables.clients) == 2
    assert sum(images for _, images, _ in callables.clients) == 10
    assert [failure.node for failure in strategy.failures] == ["2", "3"]
    with pytest.raises(TooFewRepliesError, match="1 good replies, at least 2 needed"):
        run(fedddpm(FedDDPMCallables()), {0: client(0), 2: raising}, 1)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (None, "must be a list of integers"),
        ([5, 4], "must be 2 counts that add up"),
        ([5, 5, 0], "must be 2 counts that add up"),
        ([11, -1], "must be 2 counts that add up"),
    ],
)
def test_bad_label_counts_are_rejected(counts, reason):
    callables = FedDDPMCallables()
    strategy = fedddpm(callables, num_classes=2)
    nodes = {0: client(0, counts=[10, 0]), 1: client(1, counts=[4, 6]), 2: client(2, counts=counts)}
    run(strategy, nodes, 1)
    assert len(callables.clients) == 2
    assert reason in strategy.rejected[0].reason


def test_uploads_are_deleted_from_disk(tmp_path):
    run(fedddpm(FedDDPMCallables(), upload_dir=tmp_path / "uploads"), {0: client(0), 1: client(1)}, 1)
    assert list(tmp_path.iterdir()) == []


def test_without_rounds_only_the_correction_runs():
    callables = FedDDPMCallables()
    callables.correct = lambda state, data: {"w": state["w"] + 1}
    grid, result = run(fedddpm(callables, NoExchangeStrategy()), {0: client(0), 1: client(1)}, 4)
    assert result.arrays["w"].numpy().tolist() == [3.0, 3.0]
    assert {message.metadata.message_type for message in grid.sent} == {"train.local_diffusion"}


def test_a_strategy_can_be_started_again():
    callables = FedDDPMCallables()
    strategy = fedddpm(callables, should_correct_fn=lambda losses: len(losses) == 1)
    run(strategy, {0: client(0), 1: client(1)}, 2)
    run(strategy, {2: client(2), 3: client(3), 4: client(4)}, 2)
    assert [site for site, _, _ in callables.clients] == ["0", "1", "2", "3", "4"]
    assert len(callables.corrected) == 2


def test_an_aggregate_with_nan_fails_the_run():
    bad = client(2, losses=(1.0,))

    def diverged(message):
        reply = bad(message)
        if message.metadata.message_type == "train":
            reply.content["arrays"] = ArrayRecord({"w": Array(np.full(2, np.nan, np.float32))})
        return reply

    with pytest.raises(ValueError, match="training round 1: the aggregate: array 'w' holds NaN or infinity"):
        run(fedddpm(FedDDPMCallables(), FedAvg(**ONE_CLIENT)), {0: client(0), 1: client(1), 2: diverged}, 2)
