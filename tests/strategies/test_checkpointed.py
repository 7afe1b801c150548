"""A restored strategy continues as if it had never stopped; checks do not change good rounds."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fgl_app.strategies import CheckedStrategy, CheckpointedStrategy
from fgl_app.strategies.state import read_state, write_state
from tests.strategies.clients import IdentitySetup, bits
from tests.strategies.test_flower_strategies import AVERAGING, run

NAMES = [name for name in AVERAGING if name not in ("Bulyan", "QFedAvg")]


@pytest.mark.parametrize("name", NAMES)
def test_checks_do_not_change_good_rounds(name):
    """Except the dtype: adaptive strategies return float64, and the check restores the request's dtype."""
    bare = run(AVERAGING[name](), 1)
    checked = run(CheckedStrategy(AVERAGING[name]()), 1)
    expected = {n: a.numpy().astype(np.float32).tobytes() for n, a in bare.arrays.items()}
    assert {n: a.numpy().tobytes() for n, a in checked.arrays.items()} == expected
    assert all(array.dtype == "float32" for array in checked.arrays.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: IdentitySetup(CheckedStrategy(inner))])
def test_a_restored_strategy_continues_as_if_it_had_never_stopped(name, wrap, tmp_path):
    straight = run(wrap(AVERAGING[name]()), 5)
    file = tmp_path / "checkpoint.safetensors"
    assert not CheckpointedStrategy(wrap(AVERAGING[name]()), file).restore()
    run(CheckpointedStrategy(wrap(AVERAGING[name]()), file), 3)
    restored = CheckpointedStrategy(wrap(AVERAGING[name]()), file)
    assert restored.restore()
    resumed = run(restored, 5)
    assert bits(resumed.arrays) == bits(straight.arrays)
    # Finished rounds send nothing, and their metrics are not reported again.
    assert resumed.train_metrics_clientapp == {n: straight.train_metrics_clientapp[n] for n in (4, 5)}


def test_moments_are_part_of_the_state(tmp_path):
    """Without them FedAdam gets other weights: the test above would detect a state of arrays alone."""
    file = tmp_path / "checkpoint.safetensors"
    run(CheckpointedStrategy(AVERAGING["FedAdam"](), file), 2)
    restored = CheckpointedStrategy(AVERAGING["FedAdam"](), file)
    restored.restore()
    restored.strategy.m_t = None
    assert bits(run(restored, 4).arrays) != bits(run(AVERAGING["FedAdam"](), 4).arrays)


def test_a_state_is_read_as_it_was_written(tmp_path):
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
