"""Wrappers pass on what a newer Flower adds."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from fgl_app import strategies
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies import CheckedStrategy, CheckpointedStrategy, ScaffoldStrategy, WrapperStrategy
from fgl_app.strategies.metered_grid import MeteredGrid
from tests.fake_grid import FakeGrid
from tests.strategies.clients import SIX_CLIENTS, IdentitySetup, random_client


def test_a_new_hook_of_flower_is_delegated(monkeypatch, tmp_path):
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


def test_start_takes_every_argument_of_a_newer_flower(monkeypatch):
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
    grid = MeteredGrid(FakeGrid({i: random_client(i) for i in range(6)}), TrafficLedger())
    arrays = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    stopped = IdentitySetup(CheckedStrategy(flower.FedAvg(**SIX_CLIENTS))).start(
        grid, arrays, num_rounds=5, should_stop=lambda number, result: number == 2
    )
    assert stopped == 2


def test_the_metered_grid_delegates_every_method_of_flowers_grid():
    """A grid without a method that a newer Flower makes abstract cannot be instantiated."""
    methods = {name for name in vars(Grid) if not name.startswith("_")}
    assert methods <= vars(MeteredGrid).keys()
    grid = MeteredGrid(FakeGrid({3: random_client(3), 1: random_client(1)}), TrafficLedger())
    assert sorted(each.node_id for each in grid.get_nodes()) == [1, 3]
