"""FedDDPMStrategy and ScaffoldStrategy on a grid inside the process."""

import gc
import re
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fgl_app.algorithms.plateau import is_plateau
from fgl_app.algorithms.scaffold import GradientControl
from fgl_app.messages.control import last_accepted_round
from fgl_app.messages.sites import site_record
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.strategies import CheckedStrategy, FedDDPMStrategy, NoExchangeStrategy, ScaffoldStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from tests.fake_grid import FakeGrid

ARRAYS = ArrayRecord({"w": Array(np.zeros(2, np.float32))})
SAMPLING = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}


def site(number, *, examples=10, upload=None, counts=None, losses=(1.0,)):
    """A client whose own model is its number everywhere, and that trains by adding its number plus one."""
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


def raising(message):
    raise RuntimeError("disk on fire")


class Recorder:
    """The callables of a FedDDPMStrategy: the auxiliary set is who gave how many images."""

    def __init__(self):
        self.clients = []
        self.corrected = []
        self.most_alive = 0

    def sample(self, clients):
        alive = weakref.WeakSet()
        for client in clients:
            self.clients.append((client.site, client.num_images, client.state["w"].tolist()))
            alive.add(client.state["w"])
            client = None  # noqa: PLW2901
            gc.collect()
            self.most_alive = max(self.most_alive, len(alive))
        return "auxiliary"

    def correct(self, state, data):
        self.corrected.append(data)
        return {"w": state["w"] * 2}


def fedddpm(recorder, inner=None, **options):
    return FedDDPMStrategy(
        inner or CheckedStrategy(FedAvg(**SAMPLING), min_replies=1),
        sample_fn=recorder.sample,
        correct_fn=recorder.correct,
        **{"setup_timeout": 1.5, "auxiliary_size": 10} | options,
    )


def run(strategy, nodes, rounds):
    grid = FakeGrid(nodes)
    return grid, strategy.start(grid, ARRAYS, num_rounds=rounds)


def test_shares_follow_the_examples_whoever_replies_first():
    recorder = Recorder()
    grid, _ = run(fedddpm(recorder), {9: site(0, examples=10), 3: site(1, examples=30)}, 1)
    # 10 and 30 examples of 40, 10 images: 2.5 and 7.5; the earlier site wins the tie.
    assert recorder.clients == [("0", 3, [0.0, 0.0]), ("1", 7, [1.0, 1.0])]
    assert grid.most_pulled_at_once == 1


def test_one_model_is_in_memory_at_a_time():
    recorder = Recorder()
    run(fedddpm(recorder), {i: site(i) for i in range(5)}, 1)
    assert len(recorder.clients) == 5
    assert recorder.most_alive <= 1


def test_every_aggregate_is_corrected_and_the_initial_model_is_not():
    recorder = Recorder()
    strategy = fedddpm(recorder)
    _, result = run(strategy, {0: site(0), 1: site(1)}, 3)
    # Each round adds 1.5 and doubles: 0 -> 3 -> 9.
    assert result.arrays["w"].numpy().tolist() == [9.0, 9.0]
    assert recorder.corrected == ["auxiliary"] * 2
    assert [(d.round, d.loss, d.corrected) for d in strategy.decisions] == [(2, 1.0, True), (3, 1.0, True)]


def bits(result):
    return {name: array.numpy().tobytes() for name, array in result.arrays.items()}


def test_a_correction_that_does_nothing_leaves_the_inner_strategy():
    recorder = Recorder()
    recorder.correct = lambda state, data: state
    nodes = {0: site(0, examples=7), 1: site(3, examples=5)}
    _, wrapped = run(fedddpm(recorder), nodes, 4)
    _, bare = run(FedAvg(**SAMPLING), nodes, 3)
    assert bits(wrapped) == bits(bare)


def test_a_detector_that_never_fires_leaves_the_inner_strategy():
    recorder = Recorder()
    nodes = {0: site(0, examples=7), 1: site(3, examples=5)}
    strategy = fedddpm(recorder, should_correct_fn=lambda losses: False)
    _, wrapped = run(strategy, nodes, 4)
    _, bare = run(FedAvg(**SAMPLING), nodes, 3)
    assert bits(wrapped) == bits(bare)
    assert not recorder.corrected


def test_the_detector_corrects_once_when_learning_is_slow():
    recorder = Recorder()
    losses = [1.0, 0.5, 0.49, 0.48, 0.47]
    detector = partial(is_plateau, window=1, smoothing=0.0, threshold=0.1)
    strategy = fedddpm(recorder, should_correct_fn=detector)
    run(strategy, {0: site(0, losses=losses), 1: site(1, losses=losses)}, 6)
    # Rounds 2 to 6 are the five losses; the third is the first that fell by less than a tenth.
    assert [d.round for d in strategy.decisions if d.corrected] == [4]
    assert [d.loss for d in strategy.decisions] == pytest.approx(losses)
    twice = fedddpm(Recorder(), should_correct_fn=detector, max_corrections=2)
    run(twice, {0: site(0, losses=losses), 1: site(1, losses=losses)}, 6)
    assert [d.round for d in twice.decisions if d.corrected] == [4, 5]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (site(5, upload={"w": np.array([1.0, np.nan], np.float32)}), "'w' holds NaN or infinity"),
        (site(5, upload={"w": np.zeros(3, np.float32)}), r"must be float32 of shape \(2,\)"),
        (site(5, upload={"v": np.zeros(2, np.float32)}), "array 'v' is unknown"),
        (site(5, upload={"w": np.zeros(2, np.float64)}), "must be float32"),
        (site(5, examples=0), "'num-examples' must be in"),
    ],
)
def test_a_bad_model_is_left_out_with_its_reason(bad, reason):
    recorder = Recorder()
    strategy = fedddpm(recorder)
    run(strategy, {0: site(0), 1: site(1), 2: bad}, 1)
    assert [(site_, images) for site_, images, _ in recorder.clients] == [("0", 5), ("1", 5)]
    assert [incident.node for incident in strategy.rejected] == ["2"]
    assert re.search(reason, strategy.rejected[0].reason)


def test_a_lost_client_is_left_out_and_too_few_fail():
    recorder = Recorder()
    strategy = fedddpm(recorder)
    run(strategy, {0: site(0), 1: site(1), 2: raising, 3: lambda message: None}, 1)
    assert len(recorder.clients) == 2
    assert sum(images for _, images, _ in recorder.clients) == 10
    assert [incident.node for incident in strategy.failures] == ["2", "3"]
    with pytest.raises(TooFewRepliesError, match="1 good replies, at least 2 needed"):
        run(fedddpm(Recorder()), {0: site(0), 2: raising}, 1)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (None, "must be a list of integers"),
        ([5, 4], "must be 2 counts that add up"),
        ([5, 5, 0], "must be 2 counts that add up"),
        ([11, -1], "must be 2 counts that add up"),
    ],
)
def test_bad_label_counts_are_refused(counts, reason):
    recorder = Recorder()
    strategy = fedddpm(recorder, num_classes=2)
    nodes = {0: site(0, counts=[10, 0]), 1: site(1, counts=[4, 6]), 2: site(2, counts=counts)}
    run(strategy, nodes, 1)
    assert len(recorder.clients) == 2
    assert reason in strategy.rejected[0].reason


def test_uploads_leave_nothing_on_disk(tmp_path):
    run(fedddpm(Recorder(), upload_dir=tmp_path / "uploads"), {0: site(0), 1: site(1)}, 1)
    assert list(tmp_path.iterdir()) == []


def test_without_rounds_only_the_correction_works():
    recorder = Recorder()
    recorder.correct = lambda state, data: {"w": state["w"] + 1}
    grid, result = run(fedddpm(recorder, NoExchangeStrategy()), {0: site(0), 1: site(1)}, 4)
    assert result.arrays["w"].numpy().tolist() == [3.0, 3.0]
    assert {message.metadata.message_type for message in grid.sent} == {"train.local_diffusion"}


def test_a_strategy_can_be_started_again():
    recorder = Recorder()
    strategy = fedddpm(recorder, should_correct_fn=lambda losses: len(losses) == 1)
    run(strategy, {0: site(0), 1: site(1)}, 2)
    run(strategy, {2: site(2), 3: site(3), 4: site(4)}, 2)
    assert [site_ for site_, _, _ in recorder.clients] == ["0", "1", "2", "3", "4"]
    assert len(recorder.corrected) == 2


def test_a_bare_strategy_that_averages_nan_fails_the_run():
    bad = site(2, losses=(1.0,))

    def diverged(message):
        reply = bad(message)
        if message.metadata.message_type == "train":
            reply.content["arrays"] = ArrayRecord({"w": Array(np.full(2, np.nan, np.float32))})
        return reply

    with pytest.raises(ValueError, match="training round 1: the aggregate: array 'w' holds NaN or infinity"):
        run(fedddpm(Recorder(), FedAvg(**SAMPLING)), {0: site(0), 1: site(1), 2: diverged}, 2)


# --- SCAFFOLD


def quadratic(number, target, curvature=1.0, *, scaffold=True, bad_rounds=()):
    """A client that descends ``curvature * (w - target)^2 / 2``, with variates if that is asked for.

    In the bad rounds it trains, keeps its new variate, and its reply holds NaN.
    """
    kept = {0: None}

    def handle(message):
        model = torch.nn.Module()
        model.w = torch.nn.Parameter(arrays_to_state(message.content["arrays"])["w"])
        config = message.content["config"]
        control = None
        if scaffold:
            own = kept[last_accepted_round(config, str(number))]
            control = GradientControl(arrays_to_state(message.content["control"]), own)
        for _ in range(5):
            model.w.grad = (curvature * (model.w - target)).detach()
            if control:
                control.on_gradients(model)
            with torch.no_grad():
                model.w -= 0.1 * model.w.grad
        content = {
            "arrays": state_to_arrays(model.state_dict()),
            "metrics": MetricRecord({"num-examples": 1}),
            "site": site_record(str(number)),
        }
        if control:
            kept[config["server-round"]], change = control.finish()
            content["control"] = state_to_arrays(change)
        if config["server-round"] in bad_rounds:
            content["arrays"] = ArrayRecord({"w": Array(np.full(2, np.nan, np.float32))})
        return Message(RecordDict(content), reply_to=message)

    return handle


def test_scaffold_with_one_client_is_local_descent():
    """One round from zero variates, to the last bit; the same over five rounds but for rounding."""
    for rounds, close in ((1, 0.0), (5, 1e-6)):
        strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**SAMPLING)), min_replies=1)
        controlled = strategy.start(FakeGrid({0: quadratic(0, 3.0)}), ARRAYS, num_rounds=rounds)
        plain = FedAvg(**SAMPLING).start(
            FakeGrid({0: quadratic(0, 3.0, scaffold=False)}), ARRAYS, num_rounds=rounds
        )
        difference = controlled.arrays["w"].numpy() - plain.arrays["w"].numpy()
        assert np.abs(difference).max() <= close


def test_scaffold_finds_the_optimum_that_fedavg_misses():
    """Two quadratics of curvature 1 and 4 around 0 and 1: the mean loss is least at 4 / 5."""
    ends = {}
    for scaffold in (True, False):
        nodes = {i: quadratic(i, float(i), 1.0 + 3 * i, scaffold=scaffold) for i in range(2)}
        inner = FedAvg(**SAMPLING)
        strategy = CheckedStrategy(ScaffoldStrategy(inner) if scaffold else inner)
        result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=60)
        ends[scaffold] = result.arrays["w"].numpy()[0]
    assert ends[True] == pytest.approx(0.8, abs=1e-3)
    assert abs(ends[False] - 0.8) > 0.05


@pytest.mark.parametrize("bad_round", [1, 3])
def test_scaffold_outlives_a_lost_reply(bad_round):
    nodes = {0: quadratic(0, 0.0, 1.0, bad_rounds=[bad_round]), 1: quadratic(1, 1.0, 4.0)}
    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**SAMPLING)), min_replies=1)
    result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=150)
    assert len(strategy.rejected) == 1
    assert result.arrays["w"].numpy()[0] == pytest.approx(0.8, abs=1e-3)


def test_a_variate_that_is_not_finite_is_left_out():
    def diverged(message):
        reply = quadratic(2, 3.0)(message)
        reply.content["control"] = ArrayRecord({"w": Array(np.full(2, np.inf, np.float32))})
        return reply

    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**SAMPLING)))
    nodes = {0: quadratic(0, 3.0), 1: quadratic(1, 3.0), 2: diverged}
    result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=1)
    assert "NaN or infinity" in strategy.rejected[0].reason
    assert np.isfinite(result.arrays["w"].numpy()).all()


def test_a_reply_without_its_variate_is_left_out():
    nodes = {0: quadratic(0, 3.0), 1: quadratic(1, 3.0), 2: quadratic(2, 3.0, scaffold=False)}
    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**SAMPLING)))
    strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=1)
    assert [incident.node for incident in strategy.rejected] == ["2"]
    assert "needs 2 ArrayRecord" in strategy.rejected[0].reason
