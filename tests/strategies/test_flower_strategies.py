"""Every strategy that Flower exports: inside a set-up its rounds stay the same; around one it is rejected."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.privacy_accounting import (
    NeighboringRelation,
    PrivacyConfig,
    PrivacySpent,
    SamplingMethod,
)

from fgl_app.strategies import CheckpointedStrategy, FedDDPMStrategy, FGLStrategy
from tests.fake_grid import FakeGrid
from tests.strategies.clients import (
    SIX_CLIENTS,
    FGLCallables,
    IdentitySetup,
    bits,
    fgl_client,
    random_client,
)

ROUNDS = 3
DOCS = Path(__file__).parents[2] / "docs" / "plug-in.md"
OPTIONS = {
    **{name: {} for name in ("FedAvg", "FedAdam", "FedYogi", "FedAdagrad", "FedMedian", "FedTrimmedAvg")},
    "FedAvgM": {"server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1},
    "Bulyan": {"num_malicious_nodes": 0},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "loss"},
}


def fedavg():
    return flower.FedAvg(**SIX_CLIENTS)


AVERAGING = {
    name: lambda name=name, options=options: getattr(flower, name)(**SIX_CLIENTS, **options)
    for name, options in OPTIONS.items()
}
PRIVATE = {
    f"DifferentialPrivacy{side}Side{kind}Clipping": lambda inner, side=side, kind=kind, options=options: (
        getattr(flower, f"DifferentialPrivacy{side}Side{kind}Clipping")(inner, *options)
    )
    for side in ("Server", "Client")
    for kind, options in {"Fixed": (0.1, 1.0, 6), "Adaptive": (0.1, 6)}.items()
}
TREES = {
    "FedXgbBagging": lambda: flower.FedXgbBagging(**SIX_CLIENTS),
    "FedXgbCyclic": lambda: flower.FedXgbCyclic(min_available_nodes=6),
}
"""Their models are bytes: the rounds work inside a set-up, but no server can train them on images."""
INSIDE = AVERAGING | TREES | {name: lambda wrap=wrap: wrap(fedavg()) for name, wrap in PRIVATE.items()}
NO_STRATEGIES = {"Result", "Strategy"}


def test_every_strategy_of_flower_is_tested_and_documented():
    """Fail with a new version of Flower until its strategies are added here."""
    assert set(INSIDE) | NO_STRATEGIES == set(flower.__all__)
    rows = re.findall(r"^\| (`.*?`) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row) if name in flower.__all__]
    assert sorted(documented) == sorted(INSIDE)


def tree_client(number):
    """Reply with trees in XGBoost's JSON."""

    def handle(message):
        metrics = MetricRecord({"num-examples": number + 1, "loss": float(number)})
        config = message.content["config"]
        tree = {"id": 0, "leaf": number * 10 + config["server-round"]}
        parameters = {"num_trees": "1", "num_parallel_tree": "1"}
        model = {"gbtree_model_param": parameters, "trees": [tree], "tree_info": [0]}
        model["iteration_indptr"] = [0, 1]
        text = json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()
        content = {"metrics": metrics}
        if message.metadata.message_type == "train":
            content["arrays"] = ArrayRecord([np.frombuffer(text, np.uint8)])
        return Message(RecordDict(content), reply_to=message)

    return handle


def run(strategy, rounds, kind=random_client, arrays=None):
    random.seed(0)
    np.random.seed(0)
    grid = FakeGrid({i: kind(i) for i in range(6)})
    weights = ArrayRecord({"w": Array(np.ones((3, 2), np.float32)), "b": Array(np.zeros(4, np.float32))})
    return strategy.start(grid, arrays or weights, num_rounds=rounds, train_config=ConfigRecord({"lr": 0.1}))


def fgl(inner):
    return FGLStrategy(
        inner,
        synthesize_fn=lambda embeddings: embeddings,
        train_fn=lambda state, data: state,
        num_classes=10,
        min_uploads=6,
    )


def fgl_node(number):
    embed, train = fgl_client(number), random_client(number)
    return lambda message: (embed if message.metadata.message_type == "query.embed" else train)(message)


@pytest.mark.parametrize("name", INSIDE)
def test_a_set_up_does_not_change_the_rounds_of_the_inner_strategy(name):
    """Bit for bit: without a message, and for FGL with uploads and a train_fn that returns its input."""
    kind, arrays = (
        (tree_client, ArrayRecord([np.zeros(0, np.uint8)])) if name in TREES else (random_client, None)
    )
    bare = run(INSIDE[name](), ROUNDS, kind, arrays)
    wrapped = run(IdentitySetup(INSIDE[name]()), ROUNDS + 1, kind, arrays)
    assert bits(wrapped.arrays) == bits(bare.arrays)
    assert bits(bare.arrays) != bits(run(INSIDE[name](), ROUNDS - 1, kind, arrays).arrays)
    for number in range(1, ROUNDS + 1):
        assert wrapped.train_metrics_clientapp[number + 1] == bare.train_metrics_clientapp[number]
        assert wrapped.evaluate_metrics_clientapp[number + 1] == bare.evaluate_metrics_clientapp[number]
    if name not in TREES:
        assert bits(run(fgl(INSIDE[name]()), ROUNDS + 1, fgl_node).arrays) == bits(bare.arrays)


def test_the_config_of_the_caller_is_not_changed():
    config = ConfigRecord({"lr": 0.1})
    grid = FakeGrid({i: random_client(i) for i in range(6)})
    arrays = ArrayRecord({"w": Array(np.ones(2, np.float32))})
    IdentitySetup(fedavg()).start(grid, arrays, num_rounds=2, train_config=config, evaluate_config=config)
    assert dict(config) == {"lr": 0.1}


class CountingAccountant:
    """Count the releases; Flower's own accountant needs another library."""

    config = PrivacyConfig(
        1e-5, 6, NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION, None
    )

    def __init__(self):
        self.events = []

    def compose(self, event):
        self.events.append(event)

    def get_privacy_spent(self):
        return PrivacySpent(0.0, 1e-5, len(self.events), "counted")


def test_a_set_up_spends_no_privacy_budget():
    """FGL(DP(FedAvg)) spends the same as DP(FedAvg)."""
    spent = []
    for wrap, kind, rounds in ((lambda inner: inner, random_client, ROUNDS), (fgl, fgl_node, ROUNDS + 1)):
        accountant = CountingAccountant()
        private = flower.DifferentialPrivacyServerSideFixedClipping(
            fedavg(), 2.0, 1.0, 6, accountant=accountant
        )
        run(wrap(private), rounds, lambda number, kind=kind: equal_weights(kind(number)))
        spent.append(accountant.events)
    assert spent[0] == spent[1]
    assert len(spent[0]) == ROUNDS


def equal_weights(handle):
    """Give every reply the same weight, as accounting requires."""

    def handled(message):
        reply = handle(message)
        reply.content["metrics"]["num-examples"] = 5
        return reply

    return handled


def fedddpm(inner):
    return FedDDPMStrategy(inner, sample_fn=list, correct_fn=lambda state, data: state)


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("setup", [fgl, IdentitySetup])
@pytest.mark.parametrize("between", [lambda inner, file: inner, CheckpointedStrategy])
def test_privacy_around_a_set_up_fails_in_the_first_round(name, setup, between, tmp_path):
    strategy = setup(fedavg())
    outer = PRIVATE[name](between(strategy, tmp_path / "checkpoint"))
    grid = FakeGrid({i: fgl_node(i) for i in range(6)})
    # Flower's adaptive clipping divides by the number of replies, and the set-up returns no reply.
    expected = ZeroDivisionError if "Adaptive" in name else ValueError
    with pytest.raises(expected, match=r"changed the result of round 1|division by zero"):
        outer.start(grid, ArrayRecord({"w": Array(np.zeros(2, np.float32))}), num_rounds=1)
    assert "train" not in {message.metadata.message_type for message in grid.sent}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("setup", [fgl, fedddpm])
def test_a_model_of_bytes_is_rejected_before_any_message(name, setup):
    grid = FakeGrid({i: tree_client(i) for i in range(6)})
    with pytest.raises(ValueError, match="no floating weights"):
        setup(TREES[name]()).start(grid, ArrayRecord([np.zeros(0, np.uint8)]), num_rounds=2)
    assert not grid.sent


def test_evaluate_fn_and_metrics_functions_of_the_user_are_called():
    """``start`` is Flower's: evaluate_fn gets every round, the set-up included."""
    calls = []
    strategy = FGLStrategy(
        flower.FedAvg(
            min_train_nodes=2,
            min_evaluate_nodes=2,
            train_metrics_aggr_fn=lambda replies, key: MetricRecord({"trained": len(replies)}),
            evaluate_metrics_aggr_fn=lambda replies, key: MetricRecord({"evaluated": len(replies)}),
        ),
        synthesize_fn=FGLCallables().synthesize,
        train_fn=lambda state, data: {"w": state["w"] + 1},
        num_classes=10,
    )

    def evaluate(server_round, arrays):
        calls.append((server_round, arrays["w"].numpy().tolist()))
        return MetricRecord({"round": server_round})

    grid = FakeGrid({i: fgl_client(i) for i in range(2)})
    weights = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
    result = strategy.start(grid, weights, num_rounds=2, evaluate_fn=evaluate)
    # The set-up adds 1; the round adds the mean of 1 and 2.
    assert calls == [(0, [0.0]), (1, [1.0]), (2, [2.5])]
    assert result.evaluate_metrics_serverapp[2]["round"] == 2
    assert result.train_metrics_clientapp[2]["trained"] == 2
    assert result.evaluate_metrics_clientapp[2]["evaluated"] == 2
