import logging
import subprocess
import sys
from importlib import metadata

import pytest

from fgl_app import preflight
from fgl_app.config import ConfigError, parse_config
from fgl_app.results import trackers
from fgl_app.results.trackers import Trackers

TRAFFIC = {"setup": {"uplink": 40, "downlink": 2}, "train": {"uplink": 100, "downlink": 90}}


def test_trackers_are_separated_by_commas():
    assert parse_config({}).tracker_names == ()
    assert parse_config({"trackers": "tensorboard, wandb,tensorboard"}).tracker_names == (
        "tensorboard",
        "wandb",
    )
    with pytest.raises(ConfigError, match="among tensorboard, wandb, separated by commas, got 'tb'"):
        parse_config({"trackers": "tensorboard,tb"})


def test_a_missing_package_is_reported_before_the_run(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    assert "trackers" not in preflight.input_checks(parse_config({}))
    checks = preflight.input_checks(parse_config({"trackers": "tensorboard"}))
    # It may be installed where the tests run.
    monkeypatch.setattr(trackers.metadata, "version", missing)
    with pytest.raises(ValueError, match="trackers") as error:
        checks["trackers"]()
    assert str(error.value) == (
        "config key 'trackers' needs the package 'tensorboard', which is not installed; "
        "run `pip install tensorboard` or remove 'tensorboard' from the key"
    )


def test_without_names_nothing_is_imported_or_written(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom fgl_app.results.trackers import Trackers\n"
        "none = Trackers((), Path(sys.argv[1]), {})\nnone.log(1, {'accuracy': 0.5}, {}, {})\nnone.finish()\n"
        "print({'accelerate', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
    assert list(tmp_path.iterdir()) == []


def read_scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: {event.step: pytest.approx(event.value) for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_metrics_bytes_and_seconds_also_of_a_resumed_run(tmp_path):
    pytest.importorskip("tensorboard")
    first = Trackers(("tensorboard",), tmp_path, {"seed": 3, "method": "fgl", "resume": False})
    for number in (1, 2, 3):
        first.log(number, {"accuracy": number / 10}, TRAFFIC, {"total": 5.0 * number, "uploads": 4.0})
    first.finish()
    second = Trackers(("tensorboard",), tmp_path, {"seed": 3}, after=2)
    second.log(3, {"accuracy": 0.9}, TRAFFIC, {"total": 20.0, "uploads": 4.0})
    second.finish()
    assert read_scalars(tmp_path / "tensorboard") == {
        "accuracy": {1: 0.1, 2: 0.2, 3: 0.9},
        "uplink bytes/setup": {1: 40, 2: 40, 3: 40},
        "uplink bytes/train": {1: 100, 2: 100, 3: 100},
        "downlink bytes/setup": {1: 2, 2: 2, 3: 2},
        "downlink bytes/train": {1: 90, 2: 90, 3: 90},
        "seconds/total": {1: 5, 2: 10, 3: 20},
        "seconds/uploads": {1: 4, 2: 4, 3: 4},
    }
    assert len(list(tmp_path.rglob("hparams.yml"))) == 1


def test_wandb_writes_to_the_run_when_it_is_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    offline = Trackers(("wandb",), tmp_path, {"seed": 3})
    offline.log(1, {"accuracy": 0.5}, TRAFFIC, {"total": 5.0})
    offline.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_a_tracker_that_fails_is_disabled_and_the_others_continue(tmp_path, monkeypatch, caplog):
    class Tracker:
        def __init__(self, name, fails=False):
            self.name, self.fails, self.calls = name, fails, []

        def start(self):
            pass

        def store_init_configuration(self, values):
            self.calls.append(values)

        def log(self, values, step):
            if self.fails:
                raise OSError("disk is full")
            self.calls.append((step, values["accuracy"]))

        def finish(self):
            self.calls.append("finished")

    bad, good = Tracker("bad", fails=True), Tracker("good")
    monkeypatch.setattr(trackers, "_OPTIONS", {"bad": lambda _: {}, "good": lambda _: {}})
    monkeypatch.setitem(_classes(), "bad", lambda: bad)
    monkeypatch.setitem(_classes(), "good", lambda: good)
    both = Trackers(("bad", "good"), tmp_path, {"seed": 3})
    with caplog.at_level(logging.WARNING, logger="fgl"):
        both.log(1, {"accuracy": 0.5}, {}, {})
        both.log(2, {"accuracy": 0.6}, {}, {})
    both.finish()
    assert caplog.messages == ["tracker bad is disabled after an error: OSError: disk is full"]
    assert good.calls == [{"seed": 3}, (1, 0.5), (2, 0.6), "finished"]
    assert bad.calls == [{"seed": 3}]


def _classes():
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return LOGGER_TYPE_TO_CLASS
