"""A run that died resumes from its files and ends like a run that never died."""

import json
from contextlib import closing

import pytest

from fgl_app.client import state as client_state
from fgl_app.config import ConfigError
from fgl_app.results.resume import read_run_config
from fgl_app.results.run_directory import RunDirectory
from fgl_app.strategies.state import write_state
from fgl_app.synthesis import engine, job
from tests.app_runs import equal_weights, read_summary, run, same


class KilledError(BaseException):
    """End a run like a signal: nothing between the app and the test may catch it."""


def kill(*_):
    raise KilledError


def dies_in_round(number, unexpected="nothing"):
    """Return a client that dies in a training round, and raises at an unexpected kind of message."""

    def spoil(message, reply):
        kind, config = message.metadata.message_type, message.content.config_records["config"]
        assert kind != unexpected
        if kind == "train" and config["server-round"] == number:
            raise KilledError
        return reply

    return spoil


def run_until_killed(tmp_path, **options):
    with pytest.raises(KilledError):
        run(tmp_path, **options)


def resume(tmp_path, **options):
    # Flower gives nodes other ids in another run.
    return run(tmp_path, resume=True, first_node=900, **options)


def assert_equal_runs(resumed, straight):
    """Compare the run directory of a resumed run with that of a straight run."""
    assert equal_weights(resumed, straight)
    bytes_of = ("uplink_bytes", "downlink_bytes")
    ignored = {*bytes_of, "resumed_after_round"}
    first, second = read_summary(resumed), read_summary(straight)
    assert {k: v for k, v in same(first).items() if k not in ignored} == {
        k: v for k, v in same(second).items() if k not in ignored
    }
    # Messages of rounds that died were sent too.
    for way in bytes_of:
        assert first[way].keys() == second[way].keys()
        assert all(first[way][phase] >= count for phase, count in second[way].items())


def test_fgl_resumes_in_the_synthesis_and_in_a_round(tmp_path, completed, colours, monkeypatch):
    monkeypatch.setattr(job, "SHARD_SIZE", 10)
    options = {**colours.fgl, "inner_strategy": "fedadam"}
    straight = completed(**options)
    write, written = engine.write_shard, []

    def write_or_die(folder, number, *rest):
        if written == [0] and not (tmp_path / "resumed").exists():
            raise KilledError
        written.append(number)
        write(folder, number, *rest)

    monkeypatch.setattr(engine, "write_shard", write_or_die)
    run_until_killed(tmp_path, **options)
    assert written == [0]
    (tmp_path / "resumed").touch()
    # No client is asked to embed again: the uploads are on disk.
    run_until_killed(tmp_path, resume=True, spoil=dies_in_round(2, unexpected="query.embed"), **options)
    resumed = resume(tmp_path, spoil=dies_in_round(99, unexpected="query.embed"), **options)
    assert sorted(written) == list(range(len(written))), "no image is made twice"
    assert len(written) > 1
    assert_equal_runs(tmp_path / "run", straight)
    assert resumed["resumed_after_round"][-1] >= 1
    assert [file.name for file in (tmp_path / "run").glob("*.safetensors")] == ["embeddings.safetensors"]


@pytest.mark.parametrize("method", ["scaffold", "fedddpm-plus"])
def test_a_run_that_died_in_two_rounds_equals_a_straight_run(tmp_path, completed, colours, method):
    plus = {"num_server_rounds": 4, "evaluate_every": 1, "max_corrections": 2}
    plus |= {"correction_threshold": 10.0, "correction_window": 1}
    options = {
        "scaffold": {**colours.classifier, "inner_strategy": "scaffold"},
        "fedddpm-plus": {**colours.fedddpm, "method": "fedddpm-plus", **plus},
    }[method]
    run_until_killed(tmp_path, spoil=dies_in_round(2), **options)
    run_until_killed(tmp_path, spoil=dies_in_round(3), resume=True, **options)
    resumed = resume(tmp_path, **options)
    assert_equal_runs(tmp_path / "run", completed(**options))
    assert resumed["resumed_after_round"][-1] >= 1
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_a_local_diffusion_model_is_not_trained_again(tmp_path, completed, colours, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("fgl_app.methods.fedddpm._sample_auxiliary", kill)
        run_until_killed(tmp_path, **colours.fedddpm)
    folders = {file.parent for file in (tmp_path / "run-clients").rglob("local-diffusion.safetensors")}
    assert len(folders) == 2
    before = {folder: client_state.load_local_model(folder) for folder in folders}
    # As if the server had died before the uploads arrived: all clients are asked again.
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("fgl_app.tasks.diffusion.DiffusionTask.pretrain", lambda *_: 1 / 0)
        resumed = run(tmp_path, resume=True, **colours.fedddpm)
    assert resumed["status"] == "completed"
    assert resumed["failures"] == []
    assert all(client_state.load_local_model(folder)[1] == before[folder][1] for folder in folders)
    assert_equal_runs(tmp_path / "run", completed(**colours.fedddpm))


@pytest.mark.parametrize("method", ["fgl", "fedddpm"])
@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_results_from_before_the_end_of_the_first_round_are_kept(
    tmp_path, completed, colours, monkeypatch, method, phase
):
    options = getattr(colours, method)
    with monkeypatch.context() as patch:
        if phase == "training":
            patch.setattr(
                "fgl_app.strategies.checkpointed.write_state",
                lambda state, file: kill() if state["round"] else write_state(state, file),
            )
        else:
            patch.setattr("fgl_app.server.evaluation.RoundEvaluator.evaluate", kill)
        run_until_killed(tmp_path, **options)
    resume(tmp_path, **options)
    assert_equal_runs(tmp_path / "run", completed(**options))


def test_without_a_checkpoint_a_resumed_run_starts_again(tmp_path, completed, colours):
    run_until_killed(tmp_path, spoil=dies_in_round(3), **colours.classifier)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    run(tmp_path, resume=True, **colours.classifier)
    assert_equal_runs(tmp_path / "run", completed(**colours.classifier))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [event["round"] for event in map(json.loads, lines) if event["event"] == "round"]
    assert rounds == [1, 2, 3]


def test_an_impossible_resume_is_rejected_with_the_reason(tmp_path, colours):
    options = {**colours.classifier, "num_server_rounds": 2, "nodes": 3, "min_nodes": 2, "seed": 3}
    run_until_killed(tmp_path, spoil=dies_in_round(2), **options)
    with pytest.raises(ValueError, match="keeps its config, but seed is 4 and was 3"):
        run(tmp_path, resume=True, **options | {"seed": 4})
    with pytest.raises(ValueError, match="is not a run directory"):
        run(tmp_path, "elsewhere", resume=True, **options)
    with pytest.raises(ConfigError, match="resume needs run-name"):
        run(tmp_path, "", resume=True, **options)
    with pytest.raises(ValueError, match="keeps its config, but num-clients is 2 and was 0"):
        run(tmp_path, resume=True, **options, num_clients=2)
    folder = tmp_path / "run"
    with (
        closing(RunDirectory.reopen(folder, read_run_config(folder))),
        pytest.raises(ValueError, match="is still running in another process"),
    ):
        run(tmp_path, resume=True, **options)
    # A run can resume without a lost site.
    assert run(tmp_path, resume=True, **options | {"nodes": 2, "of": 3})["rounds"] == 2
    with pytest.raises(ValueError, match="completed; there is nothing to resume"):
        run(tmp_path, resume=True, **options)
    assert not (folder / ".lock").exists()


def test_a_damaged_checkpoint_is_reported(tmp_path, colours):
    run_until_killed(tmp_path, spoil=dies_in_round(2), **colours.classifier)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"the state in .*checkpoint.safetensors cannot be read"):
        run(tmp_path, resume=True, **colours.classifier)
    assert read_summary(tmp_path / "run")["status"] == "failed"
