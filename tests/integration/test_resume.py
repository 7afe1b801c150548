"""A run that died goes on from what is on disk, and ends as if nothing had been."""

import json
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file

from fgl_app.client import state as client_state
from fgl_app.config import ConfigError
from fgl_app.methods import fedddpm as fedddpm_method
from fgl_app.results.resume import read_run_config
from fgl_app.results.run_directory import RunDirectory
from fgl_app.strategies.state import write_state
from fgl_app.synthesis import engine, job
from tests.integration import test_fedddpm_apps as diffusion
from tests.integration.test_apps import run, same
from tests.integration.test_fedddpm_apps import colours  # noqa: F401 - a fixture

QUICK = {"num_server_rounds": 3, "partitioning": "iid", "seed": 3, "image_size": 8, "batch_size": 10}


class KilledError(BaseException):
    """Ends a run as a signal does: nothing between here and the test may catch it."""


def killed():
    raise KilledError


def dies_in_round(number):
    def spoil(message, reply):
        config = message.content.config_records["config"]
        if message.metadata.message_type == "train" and config["server-round"] == number:
            raise KilledError
        return reply

    return spoil


def weights(folder):
    (file,) = [*folder.glob("classifier/model.safetensors"), *folder.glob("diffusion/unet/*.safetensors")]
    return load_file(file)


def assert_equal_runs(tmp_path, resumed, straight):
    first, second = weights(tmp_path / "died"), weights(tmp_path / "straight")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    bytes_of = ("uplink_bytes", "downlink_bytes")
    ignored = {*bytes_of, "resumed_after_round"}
    assert {k: v for k, v in same(resumed).items() if k not in ignored} == {
        k: v for k, v in same(straight).items() if k not in ignored
    }
    # What was sent in vain was sent.
    for way in bytes_of:
        assert resumed[way].keys() == straight[way].keys()
        assert all(resumed[way][phase] >= count for phase, count in straight[way].items())


def on_colours(method="classifier"):
    """Settings of a run on 60 pictures of three colours."""
    more = {**diffusion.FGL, "server_epochs": 1} if method == "fgl" else {"method": method}
    return {**QUICK, "dataset": diffusion.TINY["dataset"], **more}


@pytest.fixture(params=["fgl", "fgl-fedadam", "fedavg", "fedyogi", "scaffold", "fedddpm", "fedddpm-plus"])
def method(request, tmp_path):
    """Settings of a run of several rounds, with each strategy that has a state."""
    of_diffusion = {**diffusion.TINY, "num_server_rounds": 4, "evaluate_every": 1}
    classifier, fgl = on_colours(), on_colours("fgl")
    return {
        "fgl": fgl,
        "fgl-fedadam": {**fgl, "inner_strategy": "fedadam"},
        "fedavg": classifier,
        "fedyogi": {**classifier, "inner_strategy": "fedyogi"},
        "scaffold": {**classifier, "inner_strategy": "scaffold"},
        "fedddpm": {**of_diffusion, "method": "fedddpm"},
        "fedddpm-plus": {
            **of_diffusion,
            "method": "fedddpm-plus",
            "correction_threshold": 1.0,
            "correction_window": 1,
        },
    }[request.param]


def test_a_resumed_run_equals_one_that_never_died(tmp_path, method):
    straight = run(tmp_path, "straight", client_state_dir=str(tmp_path / "a"), **method)
    options = {**method, "client_state_dir": str(tmp_path / "b")}
    last = method["num_server_rounds"] - (method.get("method", "fgl") not in ("classifier", "diffusion"))
    for number in (2, last):
        changes = {"resume": True} if number > 2 else {}
        with pytest.raises(KilledError):
            run(tmp_path, "died", spoil=dies_in_round(number), **options, **changes)
        if number == last:
            break
    # Flower gives nodes other ids in another run.
    resumed = run(tmp_path, "died", resume=True, first_node=900, **options)
    assert_equal_runs(tmp_path, resumed, straight)
    assert resumed["resumed_after_round"][-1] >= 1
    assert not list((tmp_path / "died").glob("*.safetensors"))[1:], "only the embeddings stay"


def test_a_run_that_died_in_its_synthesis_makes_no_image_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SHARD_SIZE", 10)
    options = {**on_colours("fgl"), "num_server_rounds": 1}
    straight = run(tmp_path, "straight", **options)
    write, written = engine.write_shard, []

    def dying(folder, number, *rest):
        if len(written) == 1:
            raise KilledError
        written.append(number)
        write(folder, number, *rest)

    monkeypatch.setattr(engine, "write_shard", dying)
    with pytest.raises(KilledError):
        run(tmp_path, "died", **options)

    def counting(folder, number, *rest):
        written.append(number)
        write(folder, number, *rest)

    monkeypatch.setattr(engine, "write_shard", counting)
    assert written == [0]
    # Nobody is asked again: with every node broken the uploads on disk must do.
    resumed = run(tmp_path, "died", resume=True, broken=(100, 99, 98), **options)
    assert sorted(written) == list(range(len(written)))
    assert len(written) > 1
    assert_equal_runs(tmp_path, resumed, straight)


def test_a_local_diffusion_model_is_not_trained_again(tmp_path, monkeypatch):
    options = {**diffusion.TINY, "method": "fedddpm", "client_state_dir": str(tmp_path / "clients")}
    monkeypatch.setattr(fedddpm_method, "_sample_auxiliary", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        run(tmp_path, "died", **options)
    monkeypatch.undo()
    folders = {file.parent for file in (tmp_path / "clients").rglob("local-diffusion.safetensors")}
    assert len(folders) == 3
    before = {folder: client_state.load_local_model(folder) for folder in folders}
    # As if the server had died before the uploads were in: all are asked again, and answer from disk.
    (tmp_path / "died" / "checkpoint.safetensors").unlink()
    monkeypatch.setattr("fgl_app.tasks.diffusion.DiffusionTask.pretrain", lambda *_: 1 / 0)
    resumed = run(tmp_path, "died", resume=True, **options)
    monkeypatch.undo()
    assert resumed["status"] == "completed"
    assert resumed["failures"] == []
    assert all(client_state.load_local_model(folder)[1] == before[folder][1] for folder in folders)
    straight = run(tmp_path, "straight", **(options | {"client_state_dir": str(tmp_path / "other")}))
    assert_equal_runs(tmp_path, resumed, straight)


@pytest.mark.parametrize("method", ["fgl", "fedddpm"])
@pytest.mark.parametrize("moment", ["training", "evaluation"])
def test_what_was_found_before_the_first_round_ended_is_not_lost(tmp_path, monkeypatch, method, moment):
    options = on_colours("fgl") if method == "fgl" else {**diffusion.TINY, "method": "fedddpm"}
    straight = run(tmp_path, "straight", client_state_dir=str(tmp_path / "a"), **options)
    if moment == "training":
        monkeypatch.setattr(
            "fgl_app.strategies.checkpointed.write_state",
            lambda state, file: killed() if state["round"] else write_state(state, file),
        )
    else:
        monkeypatch.setattr("fgl_app.server.evaluation.RoundEvaluator.evaluate", lambda *_: killed())
    options["client_state_dir"] = str(tmp_path / "b")
    with pytest.raises(KilledError):
        run(tmp_path, "died", **options)
    monkeypatch.undo()
    resumed = run(tmp_path, "died", resume=True, first_node=900, **options)
    assert_equal_runs(tmp_path, resumed, straight)


def test_without_a_checkpoint_a_resumed_run_begins_anew(tmp_path):
    quick = on_colours() | {"num_server_rounds": 3}
    straight = run(tmp_path, "straight", **quick)
    with pytest.raises(KilledError):
        run(tmp_path, "died", spoil=dies_in_round(3), **quick)
    (tmp_path / "died" / "checkpoint.safetensors").unlink()
    resumed = run(tmp_path, "died", resume=True, **quick)
    assert_equal_runs(tmp_path, resumed, straight)
    lines = (tmp_path / "died" / "metrics.jsonl").read_text().splitlines()
    rounds = [event["round"] for event in map(json.loads, lines) if event["event"] == "round"]
    assert rounds == [1, 2, 3]


def test_what_cannot_be_resumed_is_refused_with_its_reason(tmp_path):
    quick = on_colours() | {"num_server_rounds": 2}
    with pytest.raises(KilledError):
        run(tmp_path, "died", spoil=dies_in_round(2), **quick)
    with pytest.raises(ValueError, match="keeps its config, but seed is 4 and was 3"):
        run(tmp_path, "died", resume=True, **{**quick, "seed": 4})
    with pytest.raises(ValueError, match="is not a run directory"):
        run(tmp_path, "elsewhere", resume=True, **quick)
    with pytest.raises(ConfigError, match="resume needs run-name"):
        run(tmp_path, "", resume=True, **quick)
    with pytest.raises(ValueError, match="keeps its config, but num-clients is 2 and was 0"):
        run(tmp_path, "died", resume=True, **{**quick, "num_clients": 2})
    folder = tmp_path / "died"
    with (
        closing(RunDirectory.reopen(folder, read_run_config(folder))),
        pytest.raises(ValueError, match="is still running in another process"),
    ):
        run(tmp_path, "died", resume=True, **quick)
    # A lost site may be done without.
    assert run(tmp_path, "died", resume=True, nodes=2, of=3, **{**quick, "min_nodes": 2})["rounds"] == 2
    with pytest.raises(ValueError, match="completed; there is nothing to resume"):
        run(tmp_path, "died", resume=True, **{**quick, "min_nodes": 2})
    assert not (tmp_path / "died" / ".lock").exists()


def test_a_damaged_checkpoint_is_said(tmp_path):
    quick = on_colours() | {"num_server_rounds": 2}
    with pytest.raises(KilledError):
        run(tmp_path, "died", spoil=dies_in_round(2), **quick)
    (tmp_path / "died" / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"the state in .*checkpoint.safetensors cannot be read"):
        run(tmp_path, "died", resume=True, **quick)
    assert json.loads((tmp_path / "died" / "summary.json").read_text())["status"] == "failed"
