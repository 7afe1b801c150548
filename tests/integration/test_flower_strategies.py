"""Every strategy that Flower exports: inside a set-up its rounds stay its own; around one, it is refused."""

import gc
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
from tests.integration.test_contract import SAMPLING, STRATEGIES, IdentitySetup, bits
from tests.integration.test_contract import node as plain_node
from tests.integration.test_strategies import Recorder
from tests.integration.test_strategies import site as embedding_site

ROUNDS = 3
DOCS = Path(__file__).parents[2] / "docs" / "plug-in.md"


def fedavg():
    return flower.FedAvg(**SAMPLING)


AVERAGING = {
    **{name: lambda name=name: getattr(flower, name)(**SAMPLING, **STRATEGIES[name]) for name in STRATEGIES},
    "Bulyan": lambda: flower.Bulyan(**SAMPLING, num_malicious_nodes=0),
    "QFedAvg": lambda: flower.QFedAvg(0.1, train_loss_key="loss", **SAMPLING),
}
PRIVATE = {
    "DifferentialPrivacyServerSideFixedClipping": lambda inner: (
        flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, 6)
    ),
    "DifferentialPrivacyClientSideFixedClipping": lambda inner: (
        flower.DifferentialPrivacyClientSideFixedClipping(inner, 0.1, 1.0, 6)
    ),
    "DifferentialPrivacyServerSideAdaptiveClipping": lambda inner: (
        flower.DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.1, 6)
    ),
    "DifferentialPrivacyClientSideAdaptiveClipping": lambda inner: (
        flower.DifferentialPrivacyClientSideAdaptiveClipping(inner, 0.1, 6)
    ),
}
TREES = {
    "FedXgbBagging": lambda: flower.FedXgbBagging(**SAMPLING),
    "FedXgbCyclic": lambda: flower.FedXgbCyclic(min_available_nodes=6),
}
"""Their models are bytes: the rounds work inside a set-up, but no server can train them on images."""
INSIDE = AVERAGING | TREES | {name: lambda wrap=wrap: wrap(fedavg()) for name, wrap in PRIVATE.items()}
NO_STRATEGIES = {"Result", "Strategy"}


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """Some of Flower's strategies collect garbage for every reply: what is there already is none."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_every_strategy_of_flower_is_here_and_in_the_documentation():
    """A new Flower fails here, until somebody has looked at what it brings."""
    assert set(INSIDE) | NO_STRATEGIES == set(flower.__all__)
    rows = re.findall(r"^\| (`.*?`) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row) if name in flower.__all__]
    assert sorted(documented) == sorted(INSIDE)


def node(number):
    """A client whose reply depends on all it is sent; it tells whether it clipped, as Flower's mod would."""
    plain = plain_node(number)

    def handle(message):
        reply = plain(message)
        if message.metadata.message_type == "train":
            norm = message.content["config"].get("clipping_norm", 0.0)
            reply.content["metrics"]["norm_bit"] = int(norm < 0.11 + number / 1000)
        return reply

    return handle


def booster(number):
    """A client that sends trees in XGBoost's JSON."""

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


def run(strategy, rounds, kind=node, arrays=None):
    random.seed(0)
    np.random.seed(0)
    grid = FakeGrid({i: kind(i) for i in range(6)})
    weights = ArrayRecord({"w": Array(np.ones((3, 2), np.float32)), "b": Array(np.zeros(4, np.float32))})
    return strategy.start(grid, arrays or weights, num_rounds=rounds, train_config=ConfigRecord({"lr": 0.1}))


@pytest.mark.parametrize("name", INSIDE)
def test_inside_a_set_up_rounds_are_those_of_the_bare_strategy(name):
    kind, arrays = (booster, ArrayRecord([np.zeros(0, np.uint8)])) if name in TREES else (node, None)
    bare = run(INSIDE[name](), ROUNDS, kind, arrays)
    wrapped = run(IdentitySetup(INSIDE[name]()), ROUNDS + 1, kind, arrays)
    assert bits(wrapped.arrays) == bits(bare.arrays)
    assert bits(bare.arrays) != bits(run(INSIDE[name](), ROUNDS - 1, kind, arrays).arrays)
    for number in range(1, ROUNDS + 1):
        assert wrapped.train_metrics_clientapp[number + 1] == bare.train_metrics_clientapp[number]
        assert wrapped.evaluate_metrics_clientapp[number + 1] == bare.evaluate_metrics_clientapp[number]


def plug_in_fgl(inner):
    return FGLStrategy(
        inner,
        synthesize_fn=lambda embeddings: embeddings,
        train_fn=lambda state, data: state,
        num_classes=10,
        min_uploads=6,
    )


def fgl_node(number):
    embed, train = embedding_site(number), node(number)
    return lambda message: (embed if message.metadata.message_type == "query.embed" else train)(message)


@pytest.mark.parametrize("name", [*AVERAGING, *PRIVATE])
def test_fgl_that_trains_nothing_is_the_bare_strategy(name):
    """Uploads, synthesis and all: with a train_fn that returns what it got, only the set-up comes before."""
    bare = run(INSIDE[name](), ROUNDS)
    wrapped = run(plug_in_fgl(INSIDE[name]()), ROUNDS + 1, fgl_node)
    assert bits(wrapped.arrays) == bits(bare.arrays)


class Accountant:
    """Counts releases; Flower's own needs a library more."""

    config = PrivacyConfig(
        1e-5, 6, NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION, None
    )

    def __init__(self):
        self.events = []

    def compose(self, event):
        self.events.append(event)

    def get_privacy_spent(self):
        return PrivacySpent(0.0, 1e-5, len(self.events), "counted")


def test_the_private_order_keeps_its_accountant():
    """FGL(DP(FedAvg)) spends what DP(FedAvg) spends: nothing in the set-up."""
    spent = []
    for wrap, kind, rounds in ((lambda inner: inner, node, ROUNDS), (plug_in_fgl, fgl_node, ROUNDS + 1)):
        accountant = Accountant()
        private = flower.DifferentialPrivacyServerSideFixedClipping(
            fedavg(), 2.0, 1.0, 6, accountant=accountant
        )
        run(wrap(private), rounds, lambda number, kind=kind: equal_weights(kind(number)))
        spent.append(accountant.events)
    assert spent[0] == spent[1]
    assert len(spent[0]) == ROUNDS


def equal_weights(handle):
    """Let every reply have the same weight, as accounting demands."""

    def handled(message):
        reply = handle(message)
        reply.content["metrics"]["num-examples"] = 5
        return reply

    return handled


def plug_in_fedddpm(inner):
    return FedDDPMStrategy(inner, sample_fn=list, correct_fn=lambda state, data: state)


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("setup", [plug_in_fgl, IdentitySetup])
@pytest.mark.parametrize("between", [lambda inner, file: inner, CheckpointedStrategy])
def test_privacy_around_a_setup_fails_the_run_in_its_first_round(name, setup, between, tmp_path):
    strategy = setup(fedavg())
    outer = PRIVATE[name](between(strategy, tmp_path / "checkpoint"))
    grid = FakeGrid({i: fgl_node(i) for i in range(6)})
    # Flower's adaptive clipping divides by the number of replies, and the set-up passes none on.
    wanted = ZeroDivisionError if "Adaptive" in name else ValueError
    with pytest.raises(wanted, match=r"changed the result of its set-up|division by zero"):
        outer.start(grid, ArrayRecord({"w": Array(np.zeros(2, np.float32))}), num_rounds=1)
    assert "train" not in {message.metadata.message_type for message in grid.sent}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("setup", [plug_in_fgl, plug_in_fedddpm])
def test_a_model_of_bytes_is_refused_before_any_message(name, setup):
    grid = FakeGrid({i: booster(i) for i in range(6)})
    with pytest.raises(ValueError, match="no floating weights"):
        setup(TREES[name]()).start(grid, ArrayRecord([np.zeros(0, np.uint8)]), num_rounds=2)
    assert not grid.sent


def test_the_users_evaluate_fn_and_metrics_keep_working():
    """``start`` is Flower's own: evaluate_fn sees every round, the set-up's among them."""
    recorder, seen = Recorder(), []
    strategy = FGLStrategy(
        flower.FedAvg(
            min_train_nodes=2,
            min_evaluate_nodes=2,
            train_metrics_aggr_fn=lambda replies, key: MetricRecord({"mine": len(replies)}),
            evaluate_metrics_aggr_fn=lambda replies, key: MetricRecord({"theirs": len(replies)}),
        ),
        synthesize_fn=recorder.synthesize,
        train_fn=lambda state, data: {"w": state["w"] + 1},
        num_classes=10,
    )

    def evaluate(server_round, arrays):
        seen.append((server_round, arrays["w"].numpy().tolist()))
        return MetricRecord({"round": server_round})

    grid = FakeGrid({i: embedding_site(i) for i in range(2)})
    weights = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
    result = strategy.start(grid, weights, num_rounds=2, evaluate_fn=evaluate)
    # The set-up adds 1; the round adds the mean of 1 and 2.
    assert seen == [(0, [0.0]), (1, [1.0]), (2, [2.5])]
    assert result.evaluate_metrics_serverapp[2]["round"] == 2
    assert result.train_metrics_clientapp[2]["mine"] == 2
    assert result.evaluate_metrics_clientapp[2]["theirs"] == 2
