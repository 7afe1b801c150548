"""What a newer Flower adds to its strategies reaches a wrapped strategy."""

from flwr.app import ConfigRecord
from flwr.serverapp import strategy as flower

from fgl_app import strategies
from fgl_app.strategies import CheckedStrategy, CheckpointedStrategy, ScaffoldStrategy, WrapperStrategy
from tests.fake_grid import FakeGrid
from tests.strategies.clients import ARRAYS, ONE_CLIENT, IdentitySetup, random_client


def test_a_new_hook_is_delegated(monkeypatch, tmp_path):
    monkeypatch.setattr(flower.Strategy, "on_round_end", lambda self, number: "default", raising=False)

    class Newer(flower.FedAvg):
        def on_round_end(self, number):
            return f"round {number} of {type(self).__name__}"

    class Own(WrapperStrategy):
        def on_round_end(self, number):
            return f"around {self.strategy.on_round_end(number)}"

    checked = CheckedStrategy(ScaffoldStrategy(Newer()))
    wrapped = CheckpointedStrategy(IdentitySetup(checked), tmp_path / "state")
    assert wrapped.on_round_end(3) == "round 3 of Newer"
    assert Own(wrapped).on_round_end(number=3) == "around round 3 of Newer"
    assert WrapperStrategy(flower.FedAvg()).on_round_end(3) == "default"


def test_start_takes_every_argument_of_a_newer_flower(monkeypatch):
    """Flower 1.43 has `start(..., should_stop=...)`, a callback that ends a run after a round."""
    kinds = [getattr(strategies, name) for name in strategies.__all__]
    assert all(kind.start is flower.Strategy.start for kind in kinds if issubclass(kind, flower.Strategy))

    def start(self, grid, initial_arrays, num_rounds=3, should_stop=None):
        for number in range(1, num_rounds + 1):
            requests = self.configure_train(number, initial_arrays, ConfigRecord(), grid)
            result = self.aggregate_train(number, grid.send_and_receive(requests))
            if should_stop(number, result):
                return number
        return None

    monkeypatch.setattr(flower.Strategy, "start", start)
    strategy = IdentitySetup(CheckedStrategy(flower.FedAvg(**ONE_CLIENT), min_replies=1))
    grid = FakeGrid({1: random_client(1)})
    assert strategy.start(grid, ARRAYS, num_rounds=5, should_stop=lambda number, result: number == 2) == 2
