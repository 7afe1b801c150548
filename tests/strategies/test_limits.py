"""What one site can do to the others is limited: its weight, its update, its metrics, its buffers."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedYogi

from fgl_app.algorithms.embedding import limit_counts
from fgl_app.algorithms.robustness import cap_weights, find_outliers
from fgl_app.algorithms.types import LabeledLatents, TextEmbeddings
from fgl_app.messages.embeddings import embeddings_to_record
from fgl_app.messages.sites import site_record
from fgl_app.server.auxiliary import sample_shares
from fgl_app.strategies import CheckedStrategy, FGLStrategy, PlainBuffersStrategy
from fgl_app.strategies.fedddpm import FedDDPMStrategy, LocalModel
from fgl_app.strategies.limits import outlying_replies
from tests.fake_grid import FakeGrid

SAMPLING = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}


def start(strategy, nodes, arrays, rounds=1):
    return strategy.start(FakeGrid(dict(enumerate(nodes))), arrays, num_rounds=rounds)


def record(**arrays):
    return ArrayRecord({name: Array(np.asarray(values, np.float32)) for name, values in arrays.items()})


def client(number, arrays, *, count=10, loss=1.0, **metrics):
    """A client that replies with arrays, whatever it receives."""

    def handle(message):
        values = MetricRecord({"num-examples": count, "train-loss": loss, **metrics})
        content = {"metrics": values, "site": site_record(f"site-{number}")}
        if message.metadata.message_type == "train":
            content["arrays"] = record(**arrays)
        return Message(RecordDict(content), reply_to=message)

    return handle


def values(result):
    return {name: array.numpy() for name, array in result.arrays.items()}


# --- buffers


def drifting(number):
    """A client whose running variance is near zero and whose weight grows."""
    return client(number, {"bn.weight": [number + 1.0], "bn.running_var": [0.01 + 0.01 * number]})


INITIAL = {"bn.weight": [0.0], "bn.running_var": [1.0]}


@pytest.mark.parametrize("optimizer", [FedAdam, FedYogi])
def test_a_server_optimizer_steps_weights_and_averages_buffers(optimizer):
    nodes = [drifting(number) for number in range(3)]
    bare = values(start(optimizer(**SAMPLING, eta=0.5), nodes, record(**INITIAL), rounds=4))
    plain = values(
        start(PlainBuffersStrategy(optimizer(**SAMPLING, eta=0.5)), nodes, record(**INITIAL), rounds=4)
    )
    # The reason: optimized like a weight, the variance becomes negative.
    assert bare["bn.running_var"][0] < 0
    # The mean of 0.01, 0.02 and 0.03, with equal weights.
    assert plain["bn.running_var"][0] == pytest.approx(0.02)
    assert plain["bn.weight"].tobytes() == bare["bn.weight"].tobytes()


def test_plain_buffers_around_fedavg_change_no_bit():
    nodes = [drifting(number) for number in range(3)]
    results = [
        values(start(strategy, nodes, record(**INITIAL), rounds=2))
        for strategy in (FedAvg(**SAMPLING), PlainBuffersStrategy(FedAvg(**SAMPLING)))
    ]
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in INITIAL)


# --- outliers


def test_a_huge_finite_update_is_rejected_by_name_in_its_round():
    honest = [client(number, {"w": [1.0 + 0.1 * number]}) for number in range(3)]
    strategy = CheckedStrategy(FedAvg(**SAMPLING))
    result = start(strategy, [*honest, client(3, {"w": [1e30]})], record(w=[0.0]))
    assert values(result)["w"][0] == pytest.approx(1.1)
    (failure,) = strategy.rejected
    assert failure.site == "site-3"
    assert "the norm of its update is" in failure.reason
    assert "times the median, at most 100" in failure.reason


def test_a_huge_loss_is_rejected_and_does_not_reach_the_mean():
    honest = [client(number, {"w": [1.0]}, loss=0.5) for number in range(3)]
    strategy = CheckedStrategy(FedAvg(**SAMPLING))
    result = start(strategy, [*honest, client(3, {"w": [1.0]}, loss=1.7e308)], record(w=[0.0]))
    assert result.train_metrics_clientapp[1]["train-loss"] == pytest.approx(0.5)
    assert "its 'train-loss' of 1.7e+308 is far above" in strategy.rejected[0].reason


def test_the_limit_on_updates_can_be_switched_off():
    nodes = [*(client(number, {"w": [1.0]}) for number in range(3)), client(3, {"w": [1e6]})]
    strategy = CheckedStrategy(FedAvg(**SAMPLING), max_update_ratio=0)
    assert values(start(strategy, nodes, record(w=[0.0])))["w"][0] == pytest.approx((3 + 1e6) / 4)
    assert strategy.rejected == []


def test_outliers_need_a_majority():
    assert find_outliers([1, 1, 1000], 100) == [2]
    assert find_outliers([1, 1000], 100) == []
    assert find_outliers([0, 0, 5], 100) == []
    assert find_outliers([1, 1, float("nan")], 100) == [2]
    # Sites with one class have losses near zero, and the others are no outliers.
    assert find_outliers([1e-6, 1e-6, 1e-6, 2.0], 100, floor=1.0) == []
    with pytest.raises(ValueError, match=r"0 or at least 1, got 0\.5"):
        find_outliers([1, 1, 1], 0.5)


def test_a_site_that_still_learns_is_no_outlier_among_converged_ones():
    converged = [client(number, {"w": [1000.0 + 1e-4]}) for number in range(3)]
    strategy = CheckedStrategy(FedAvg(**SAMPLING))
    result = start(strategy, [*converged, client(3, {"w": [1002.0]})], record(w=[1000.0]))
    assert strategy.rejected == []
    assert values(result)["w"][0] == pytest.approx(1000.5, abs=1e-3)


def test_a_huge_control_variate_is_rejected():
    sent = {"arrays": record(w=[1.0]), "control": record(w=[1.0])}

    def reply(control):
        message = Message(RecordDict(dict(sent)), dst_node_id=1, message_type="train")
        content = {"arrays": record(w=[1.1]), "control": record(w=[control])}
        metrics = MetricRecord({"num-examples": 1, "train-loss": 1.0})
        return Message(RecordDict(content | {"metrics": metrics}), reply_to=message)

    reasons = outlying_replies([reply(1.1), reply(0.9), reply(1.2), reply(1e9)], sent, 100)
    assert list(reasons) == [3]


# --- weights


def test_a_site_counts_at_most_a_multiple_of_the_median_site():
    honest = [client(number, {"w": [1.0]}, count=100) for number in range(3)]
    strategy = CheckedStrategy(FedAvg(**SAMPLING))
    result = start(strategy, [*honest, client(3, {"w": [2.0]}, count=10**9)], record(w=[0.0]))
    # Ten times 100 for the large site: (3 * 100 * 1 + 1000 * 2) / 1300.
    assert values(result)["w"][0] == pytest.approx(2300 / 1300)
    assert strategy.capped_sites() == {"site-3": 10**9}


def test_weights_within_the_limit_change_no_bit():
    nodes = [client(number, {"w": [0.1 + number]}, count=10 + 7 * number) for number in range(4)]
    results = [
        values(start(CheckedStrategy(FedAvg(**SAMPLING), max_weight_ratio=ratio), nodes, record(w=[0.0])))
        for ratio in (0, 10)
    ]
    assert results[0]["w"].tobytes() == results[1]["w"].tobytes()


def test_integers_stay_integers_under_the_limit():
    assert cap_weights([10, 10, 10**9], 10) == [10, 10, 100]
    assert all(isinstance(weight, int) for weight in cap_weights([10, 10, 10**9], 2.5))
    assert cap_weights([10, 10, 10**9], 0) == [10, 10, 10**9]
    # Zeros take part in evaluations of sites without examples.
    assert cap_weights([0, 0, 0, 10, 10, 10**9], 10) == [0, 0, 0, 10, 10, 100]
    with pytest.raises(ValueError, match=r"0 or at least 1, got 0\.5"):
        cap_weights([10, 10, 10**9], 0.5)


def test_two_sites_do_not_limit_each_other():
    assert cap_weights([10, 10**6], 10) == [10, 10**6]


def test_the_weights_of_evaluations_are_limited():
    sampling = SAMPLING | {"fraction_evaluate": 1.0, "min_evaluate_nodes": 1}
    honest = [client(number, {"w": [1.0]}, count=100, accuracy=0.5) for number in range(3)]
    strategy = CheckedStrategy(FedAvg(**sampling))
    result = start(strategy, [*honest, client(3, {"w": [1.0]}, count=10**9, accuracy=1.0)], record(w=[0.0]))
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx((150 + 1000) / 1300)


def test_many_prompts_of_one_example_each_are_limited():
    embeddings = TextEmbeddings(
        {"prompt_embeds": torch.arange(50.0).reshape(50, 1, 1)}, torch.zeros(50).long(), torch.ones(50).long()
    )
    limited = limit_counts(embeddings, 20)
    assert (len(limited), limited.counts.tolist()) == (20, [1] * 20)
    assert len(limited.tensors["prompt_embeds"]) == 20


def test_a_state_without_capped_sites_is_loaded():
    strategy = CheckedStrategy(FedAvg(**SAMPLING))
    state = strategy.state_dict()
    del state["capped"]
    strategy.load_state_dict(state)
    assert strategy.capped_sites() == {}


def describing(number, label, count):
    embeddings = TextEmbeddings(
        {"prompt_embeds": torch.full((1, 3, 2), float(number)).half()},
        torch.tensor([label]),
        torch.tensor([count]),
    )

    def handle(message):
        content = {
            "embeddings": embeddings_to_record(embeddings),
            "metrics": MetricRecord({"num-examples": count}),
            "site": site_record(f"site-{number}"),
        }
        return Message(RecordDict(content), reply_to=message)

    return handle


def test_the_counts_of_an_upload_of_embeddings_are_limited():
    received = []
    strategy = FGLStrategy(
        FedAvg(**SAMPLING),
        synthesize_fn=received.append,
        train_fn=lambda state, _: state,
        num_classes=2,
    )
    nodes = [describing(0, 0, 100), describing(1, 0, 200), describing(2, 0, 10**9)]
    start(strategy, nodes, record(w=[0.0]))
    assert received[0].counts.tolist() == [100, 200, 2000]
    assert strategy.capped_sites() == {"site-2": 10**9}


def test_the_shares_of_the_auxiliary_set_are_limited():
    strategy = FedDDPMStrategy(FedAvg(**SAMPLING), sample_fn=list, correct_fn=lambda state, _: state)
    strategy.examples = {("a", 1): 100, ("b", 2): 100, ("c", 3): 10**9}
    strategy._label_counts = dict.fromkeys(strategy.examples, torch.zeros(0, dtype=torch.int64))
    # 100, 100 and ten times 100 of 2000 images.
    assert [model.num_images for model in strategy._local_models()] == [167, 167, 1666]


# --- metrics


def test_an_accuracy_outside_its_range_is_rejected():
    sampling = SAMPLING | {"fraction_evaluate": 1.0, "min_evaluate_nodes": 1}
    strategy = CheckedStrategy(FedAvg(**sampling), metric_ranges={"accuracy": (0.0, 1.0)})
    nodes = [client(number, {"w": [1.0]}, accuracy=0.5 if number else 1e6) for number in range(3)]
    result = start(strategy, nodes, record(w=[0.0]))
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(0.5)
    assert "metric 'accuracy' must be in [0, 1], got" in strategy.rejected[0].reason


# --- models that draw no images


def test_the_share_of_a_model_that_is_left_out_goes_to_the_others(tmp_path):
    model = torch.nn.Linear(1, 1)

    def draw(labels, generators):
        noise = torch.stack([torch.randn(1, 1, 1, generator=generator) for generator in generators])
        scale = model.weight.detach().abs().max()
        return LabeledLatents(noise * scale, labels)

    def local_models(broken):
        from safetensors.torch import save_file

        for number, images in enumerate((10, 20, 30)):
            file = tmp_path / f"{number}.safetensors"
            weight = float("nan") if number in broken else 1.0
            save_file({"weight": torch.full((1, 1), weight), "bias": torch.zeros(1)}, file)
            yield LocalModel(number, f"site-{number}", file, images, torch.zeros(0, dtype=torch.int64))

    whole, shares = sample_shares(local_models(()), model, draw, seed=0)
    assert shares == {"site-0": 10, "site-1": 20, "site-2": 30}
    left_out = []
    rest, shares = sample_shares(local_models((2,)), model, draw, seed=0, on_rejected=left_out.append)
    # 30 images in proportion 10 to 20.
    assert shares == {"site-0": 20, "site-1": 40}
    assert [failure.site for failure in left_out] == ["site-2"]
    # The others' own images are the same, and no image comes twice.
    assert torch.equal(rest.latents[:30], whole.latents[:30])
    assert len(rest.latents.unique()) == 60
    with pytest.raises(ValueError, match="no client's model draws images"):
        sample_shares(local_models((0, 1, 2)), model, draw, seed=0)
