"""With an identity set-up, N wrapped rounds are N bare rounds, to the last bit."""

import random

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from fgl_app import strategies
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies import (
    CheckedStrategy,
    CheckpointedStrategy,
    ScaffoldStrategy,
    SetupRoundStrategy,
    WrapperStrategy,
)
from fgl_app.strategies.metered_grid import MeteredGrid
from fgl_app.strategies.state import read_state, write_state
from tests.fake_grid import FakeGrid

ROUNDS = 3
SAMPLING = {"min_train_nodes": 6, "min_evaluate_nodes": 6, "min_available_nodes": 6}
STRATEGIES = {
    "FedAvg": {},
    "FedAdam": {},
    "FedYogi": {},
    "FedAdagrad": {},
    "FedMedian": {},
    "FedAvgM": {"server_momentum": 0.9},
    "FedTrimmedAvg": {},
    "FedProx": {"proximal_mu": 0.1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1},
}


class IdentitySetup(SetupRoundStrategy):
    def configure_setup(self, arrays, config, grid):
        return []

    def accept_upload(self, reply):
        raise NotImplementedError

    def finish_setup(self, arrays):
        return arrays, MetricRecord({"identity": 1})


def node(node_id):
    """A client whose reply depends on everything it is sent."""

    def handle(message):
        config = message.content["config"]
        rng = np.random.default_rng([node_id, config["server-round"]])
        mu = config.get("proximal-mu", 0.0)
        metrics = MetricRecord({"num-examples": node_id + 3, "loss": float(rng.random())})
        if message.metadata.message_type == "evaluate":
            return Message(RecordDict({"metrics": metrics}), reply_to=message)
        arrays = {
            name: Array((1 - mu) * array.numpy() + rng.standard_normal(array.shape).astype(np.float32))
            for name, array in message.content["arrays"].items()
        }
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    return handle


def run(strategy, rounds):
    random.seed(0)
    grid = FakeGrid({i: node(i) for i in range(6)})
    initial = ArrayRecord({"w": Array(np.ones((3, 2), np.float32)), "b": Array(np.zeros(4, np.float32))})
    return strategy.start(grid, initial, num_rounds=rounds, train_config=ConfigRecord({"lr": 0.1}))


def bits(arrays):
    return {name: (array.dtype, array.numpy().tobytes()) for name, array in arrays.items()}


def build(name):
    return getattr(flower, name)(**SAMPLING, **STRATEGIES[name])


@pytest.mark.parametrize("name", STRATEGIES)
def test_wrapped_rounds_are_bare_rounds(name):
    bare = run(build(name), ROUNDS)
    wrapped = run(IdentitySetup(build(name)), ROUNDS + 1)
    assert bits(wrapped.arrays) == bits(bare.arrays)
    for number in range(1, ROUNDS + 1):
        assert wrapped.train_metrics_clientapp[number + 1] == bare.train_metrics_clientapp[number]
        assert wrapped.evaluate_metrics_clientapp[number + 1] == bare.evaluate_metrics_clientapp[number]


@pytest.mark.parametrize("name", STRATEGIES)
def test_checks_change_nothing_when_all_is_well(name):
    """The dtype apart: adaptive strategies return float64, and the check restores what was sent."""
    bare = run(build(name), 1)
    checked = run(CheckedStrategy(build(name)), 1)
    expected = {n: a.numpy().astype(np.float32).tobytes() for n, a in bare.arrays.items()}
    assert {n: a.numpy().tobytes() for n, a in checked.arrays.items()} == expected
    assert all(array.dtype == "float32" for array in checked.arrays.values())


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: IdentitySetup(CheckedStrategy(inner))])
def test_a_restored_strategy_goes_on_as_if_it_had_never_stopped(name, wrap, tmp_path):
    whole = run(wrap(build(name)), 5)
    file = tmp_path / "checkpoint.safetensors"
    assert not CheckpointedStrategy(wrap(build(name)), file).restore()
    run(CheckpointedStrategy(wrap(build(name)), file), 3)
    again = CheckpointedStrategy(wrap(build(name)), file)
    assert again.restore()
    rest = run(again, 5)
    assert bits(rest.arrays) == bits(whole.arrays)
    # Finished rounds send nothing: what they reported is not reported again.
    assert rest.train_metrics_clientapp == {n: whole.train_metrics_clientapp[n] for n in (4, 5)}


def test_a_strategys_moments_are_part_of_its_state(tmp_path):
    """Without them FedAdam would go elsewhere: the test above would not notice a state of arrays alone."""
    file = tmp_path / "checkpoint.safetensors"
    run(CheckpointedStrategy(build("FedAdam"), file), 2)
    forgetful = CheckpointedStrategy(build("FedAdam"), file)
    forgetful.restore()
    forgetful.strategy.m_t = None
    assert bits(run(forgetful, 4).arrays) != bits(run(build("FedAdam"), 4).arrays)


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    state = {
        "none": None,
        "plain": [True, 7, 0.1 + 0.2, "text", float("inf")],
        "by": {(1, "a"): (2.5, [None]), 3: {}},
        "bytes": b"\x00\xff",
        "array": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::2],
        "scalar": np.array(3, dtype=np.int64),
        "tensor": torch.arange(4, dtype=torch.float16),
        "record": ArrayRecord({"w": Array(np.ones(2, np.float32))}),
    }
    file = tmp_path / "state.safetensors"
    write_state(state, file)
    back = read_state(file)
    assert back.keys() == state.keys()
    for name in ("none", "plain", "by", "bytes"):
        assert back[name] == state[name]
    for name in ("array", "scalar"):
        assert (back[name].dtype, back[name].tolist()) == (state[name].dtype, state[name].tolist())
    assert back["tensor"].dtype == torch.float16
    assert torch.equal(back["tensor"], state["tensor"])
    assert bits(back["record"]) == bits(state["record"])
    with pytest.raises(TypeError, match="a state holds plain values and arrays, got function"):
        write_state({"f": run}, file)
    assert read_state(file).keys() == state.keys(), "a state that cannot be written leaves the old one"


def test_the_callers_config_is_left_alone():
    config = ConfigRecord({"lr": 0.1})
    grid = FakeGrid({i: node(i) for i in range(6)})
    arrays = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    IdentitySetup(build("FedAvg")).start(
        grid, arrays, num_rounds=2, train_config=config, evaluate_config=config
    )
    assert dict(config) == {"lr": 0.1}


def test_a_hook_of_a_newer_flower_is_the_wrapped_strategys(monkeypatch, tmp_path):
    monkeypatch.setattr(flower.Strategy, "on_round_end", lambda self, number: "default", raising=False)

    class Newer(flower.FedAvg):
        def on_round_end(self, number):
            return f"round {number} of {type(self).__name__}"

    class Own(WrapperStrategy):
        def on_round_end(self, number):
            return f"around {self.strategy.on_round_end(number)}"

    wrapped = CheckpointedStrategy(
        IdentitySetup(CheckedStrategy(ScaffoldStrategy(Newer()))), tmp_path / "state"
    )
    assert wrapped.on_round_end(3) == "round 3 of Newer"
    assert Own(wrapped).on_round_end(number=3) == "around round 3 of Newer"
    assert WrapperStrategy(flower.FedAvg()).on_round_end(3) == "default"


def test_start_is_flowers_own_so_that_it_takes_every_argument_of_a_newer_flower(monkeypatch):
    """Flower 1.43 has `start(..., should_stop=...)`, a callback that ends a run after a round."""
    for name in strategies.__all__:
        kind = getattr(strategies, name)
        assert not issubclass(kind, flower.Strategy) or kind.start is flower.Strategy.start

    def start(self, grid, initial_arrays, num_rounds=3, should_stop=None):
        for number in range(1, num_rounds + 1):
            replies = grid.send_and_receive(
                self.configure_train(number, initial_arrays, ConfigRecord(), grid)
            )
            initial_arrays, _ = self.aggregate_train(number, replies)
            if should_stop(number, initial_arrays):
                return number
        return None

    monkeypatch.setattr(flower.Strategy, "start", start)
    grid = MeteredGrid(FakeGrid({i: node(i) for i in range(6)}), TrafficLedger())
    arrays = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    stopped = IdentitySetup(CheckedStrategy(build("FedAvg"))).start(
        grid, arrays, num_rounds=5, should_stop=lambda number, result: number == 2
    )
    assert stopped == 2


def test_the_metered_grid_delegates_every_method_of_flowers_grid():
    """A grid without a method that a newer Flower makes abstract cannot be instantiated."""
    methods = {name for name in vars(Grid) if not name.startswith("_")}
    assert methods <= vars(MeteredGrid).keys()
    grid = MeteredGrid(FakeGrid({3: node(3), 1: node(1)}), TrafficLedger())
    assert sorted(each.node_id for each in grid.get_nodes()) == [1, 3]
