from fgl_app.results.run_directory import RunDirectory
from fgl_app.results.runs import Run, find_runs
from tests.runs import make_run


def test_runs_are_found_in_the_order_of_their_starts(tmp_path):
    make_run(tmp_path, "z-first")
    make_run(tmp_path, "a-second")
    RunDirectory.create(tmp_path, "latest-started", {"method": "fgl"})  # also creates the link `latest`
    (tmp_path / "only-a-log").mkdir()
    (tmp_path / "only-a-log" / "flower.log").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"hidden_size": 3}')
    (tmp_path / "notes.txt").touch()
    names = [run.name for run in find_runs(tmp_path)]
    assert names == ["z-first", "a-second", "latest-started", "only-a-log"]


def test_without_a_summary_the_strategy_comes_from_the_config(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {"method": "diffusion", "inner-strategy": "scaffold"})
    assert (Run.read(run.path).strategy, Run.read(run.path).primary_metric) == ("scaffold", None)


def test_curves_are_by_round_or_by_bytes(tmp_path):
    run = Run.read(make_run(tmp_path))
    assert run.curve("accuracy") == [(1, 0.4), (2, 0.8)]
    assert run.curve("accuracy", "uplink_bytes") == [(123_450, 0.4), (4_123_450, 0.8)]
    assert run.curve("frechet_distance") == []
