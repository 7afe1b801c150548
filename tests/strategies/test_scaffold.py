"""ScaffoldStrategy on a grid in the test's process."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fgl_app.algorithms.scaffold import GradientControl
from fgl_app.messages.control import last_accepted_round
from fgl_app.messages.sites import site_record
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.strategies import CheckedStrategy, ScaffoldStrategy
from tests.fake_grid import FakeGrid
from tests.strategies.clients import ARRAYS, ONE_CLIENT


def quadratic(number, target, curvature=1.0, *, scaffold=True, bad_rounds=()):
    """Descend ``curvature * (w - target)^2 / 2``, by default with variates.

    In a bad round the client trains and keeps its new variate, and its reply holds NaN.
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
    """To the last bit in the first round, from zero variates; except for rounding over five rounds."""
    for rounds, close in ((1, 0.0), (5, 1e-6)):
        strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**ONE_CLIENT)), min_replies=1)
        controlled = strategy.start(FakeGrid({0: quadratic(0, 3.0)}), ARRAYS, num_rounds=rounds)
        plain = FedAvg(**ONE_CLIENT).start(
            FakeGrid({0: quadratic(0, 3.0, scaffold=False)}), ARRAYS, num_rounds=rounds
        )
        difference = controlled.arrays["w"].numpy() - plain.arrays["w"].numpy()
        assert np.abs(difference).max() <= close


def test_scaffold_finds_the_optimum_that_fedavg_misses():
    """Two quadratics of curvature 1 and 4 around 0 and 1: the mean loss is least at 4 / 5."""
    ends = {}
    for scaffold in (True, False):
        nodes = {i: quadratic(i, float(i), 1.0 + 3 * i, scaffold=scaffold) for i in range(2)}
        inner = FedAvg(**ONE_CLIENT)
        strategy = CheckedStrategy(ScaffoldStrategy(inner) if scaffold else inner)
        result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=60)
        ends[scaffold] = result.arrays["w"].numpy()[0]
    assert ends[True] == pytest.approx(0.8, abs=1e-3)
    assert abs(ends[False] - 0.8) > 0.05


@pytest.mark.parametrize("bad_round", [1, 3])
def test_scaffold_converges_after_a_lost_reply(bad_round):
    nodes = {0: quadratic(0, 0.0, 1.0, bad_rounds=[bad_round]), 1: quadratic(1, 1.0, 4.0)}
    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**ONE_CLIENT)), min_replies=1)
    result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=80)
    assert len(strategy.rejected) == 1
    assert result.arrays["w"].numpy()[0] == pytest.approx(0.8, abs=1e-3)


def test_a_variate_with_infinity_is_rejected():
    def diverged(message):
        reply = quadratic(2, 3.0)(message)
        reply.content["control"] = ArrayRecord({"w": Array(np.full(2, np.inf, np.float32))})
        return reply

    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**ONE_CLIENT)))
    nodes = {0: quadratic(0, 3.0), 1: quadratic(1, 3.0), 2: diverged}
    result = strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=1)
    assert "NaN or infinity" in strategy.rejected[0].reason
    assert np.isfinite(result.arrays["w"].numpy()).all()


def test_a_reply_without_a_variate_is_rejected():
    nodes = {0: quadratic(0, 3.0), 1: quadratic(1, 3.0), 2: quadratic(2, 3.0, scaffold=False)}
    strategy = CheckedStrategy(ScaffoldStrategy(FedAvg(**ONE_CLIENT)))
    strategy.start(FakeGrid(nodes), ARRAYS, num_rounds=1)
    assert [failure.node for failure in strategy.rejected] == ["2"]
    assert "needs 2 ArrayRecord" in strategy.rejected[0].reason
