"""The command line as far as it needs no Flower, and the reading of Flower's log."""

import json
import subprocess
import sys
import tomllib
import weakref
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fgl_app.cli.console import Display, Line, LogReader, Mode, result_table
from fgl_app.cli.run import failure_reason
from fgl_app.config import ConfigError, config_keys, parse_config, presets
from fgl_app.data.partitions import load_client_data
from fgl_app.data.sources import config_dataset
from fgl_app.launch.app_bundle import stage_app, to_toml
from fgl_app.launch.config_sources import parse_override, resolve_config
from fgl_app.launch.flower import flower_environment
from fgl_app.launch.resources import Machine, federation_config
from fgl_app.launch.runner import RunOutcome
from fgl_app.preflight import check, check_inputs, check_synthesis
from fgl_app.progress import ProgressEvent
from fgl_app.results.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, 10, 15, tzinfo=UTC)
COMPLETED = RunOutcome("finished:completed", "")


def fgl(*arguments, cwd=None):
    command = [sys.executable, "-m", "fgl_app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


# --- the config from its sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=7", ("seed", 7)),
        ("learning-rate=1e-3", ("learning-rate", 0.001)),
        ("dataset=digits", ("dataset", "digits")),
        ("run-name=2026", ("run-name", "2026")),
        ("prompt-template=a = {label}", ("prompt-template", "a = {label}")),
        ("prompt-template=", ("prompt-template", "")),
        # Left as it came for the config to name the rule.
        ("seed=seven", ("seed", "seven")),
        ("seed=[1]", ("seed", "[1]")),
        ("sede=1", ("sede", "1")),
    ],
)
def test_values_of_string_keys_are_raw_and_others_are_toml(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["seed", "=1", "", "-seed"])
def test_an_argument_that_is_no_assignment_is_named(text):
    with pytest.raises(ConfigError, match=f"KEY=VALUE, without spaces around '=', got '{text}'"):
        parse_override(text)


def test_folders_are_named_by_their_absolute_paths(tmp_path):
    for folder in ("mine", "cnn", "embedded"):
        (tmp_path / folder).mkdir()
    given = resolve_config((), ["generator=mine", "classifier=./mine"], None, tmp_path, NOW)
    assert given.generator == given.classifier == str(tmp_path / "mine")
    kept = resolve_config((), ["classifier=cnn"], None, tmp_path, NOW)
    assert (kept.classifier, kept.generator) == ("cnn", "embedded")
    assert resolve_config((), ["generator=a/b"], None, tmp_path, NOW).generator == "a/b"


def test_overrides_win_over_the_file_and_later_ones_over_earlier_ones(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("seed = 1\nbatch-size = 32\nguidance-scale = 2\n")
    config = resolve_config([file], ["seed=2", "seed=3"], None, tmp_path, NOW)
    assert (config.seed, config.batch_size, config.guidance_scale) == (3, 32, 2.0)


def test_the_output_directory_is_the_users_and_the_run_has_a_name(tmp_path):
    config = resolve_config((), [], None, tmp_path, NOW)
    assert config.output_dir == str(tmp_path / "outputs")
    assert config.run_name == "20261121T101500-fgl"
    (tmp_path / "outputs" / config.run_name).mkdir(parents=True)
    assert resolve_config((), [], None, tmp_path, NOW).run_name == "20261121T101500-fgl-2"
    baseline = resolve_config((), ["method=classifier", "inner-strategy=fedprox"], None, tmp_path, NOW)
    assert baseline.run_name == "20261121T101500-fedprox"


def test_the_number_of_clients_is_said_once(tmp_path):
    def clients(overrides, option):
        return resolve_config((), overrides, option, tmp_path, NOW).num_clients

    assert clients([], None) == 5
    assert clients([], 3) == 3
    assert clients(["num-clients=7"], None) == 7
    assert clients(["num-clients=7"], 7) == 7
    with pytest.raises(ConfigError, match="--clients 3 and config key 'num-clients'"):
        clients(["num-clients=7"], 3)


# --- bad input stops before anything starts


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["seed=seven"], "config key 'seed' must be a valid integer, got 'seven'"),
        (["datasett=digits"], "unknown config key 'datasett'; did you mean 'dataset'?"),
        (["seed"], "config values are given as KEY=VALUE, without spaces around '=', got 'seed'"),
        (["--clients", "1"], "min-nodes must be at most num-clients (1), got 2"),
        (["--preset", "nosuch"], "unknown preset 'nosuch'"),
        (["--stream", "--quiet"], "--stream and --quiet exclude each other"),
        (["--config", "nosuch.toml"], "config file 'nosuch.toml' cannot be read: No such file or directory"),
        (["--config", "bad.toml"], "config file 'bad.toml' is not valid TOML"),
        (["output-dir=bad.toml"], "config key 'output-dir' must be a writable folder"),
        (["output-dir=.", "run-name=taken"], "config key 'run-name' must be new in"),
        (["partitioning=sites"], "partitioning 'sites' needs --federation DIR"),
        (["--federation", "taken"], "there is no federation in 'taken'"),
        (
            ["--resume", "taken", "--clients", "3"],
            "--resume keeps the run's config: no --preset, --config or",
        ),
        (["resume=true"], "resume needs run-name, the folder of the run in output-dir"),
    ],
)
def test_bad_input_exits_2_with_one_sentence(tmp_path, arguments, sentence):
    (tmp_path / "bad.toml").write_text("seed = \n")
    (tmp_path / "taken").mkdir()
    done = fgl("run", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} == {"bad.toml", "taken"}


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path):
    done = fgl("run", "--resume", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"Error: {tmp_path} is not the folder of a run: its config.json cannot be read\n"


def test_a_run_that_goes_on_elsewhere_is_left_alone(tmp_path):
    with closing(RunDirectory.create(tmp_path, "it", config_keys())):
        before = sorted(tmp_path.rglob("*"))
        done = fgl("run", "--resume", "it", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == f"Error: the run in {tmp_path / 'it'} still goes on in another process\n"
        assert sorted(tmp_path.rglob("*")) == before


def test_without_its_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['diffusers'] = None; from fgl_app.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    sentence = "Error: `fgl` needs the extra 'app' of this package: pip install 'fgl-app[app]'\n"
    assert done.stderr == sentence


def test_flower_is_not_led_to_a_cluster_of_rays(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert "RAY_ADDRESS" not in flower_environment(tmp_path)


def test_an_unknown_preset_is_answered_with_those_there_are(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "oneshot.toml").write_text("seed = 1\n")
    monkeypatch.setattr(presets, "_PACKAGE", tmp_path)
    assert presets.preset_file("oneshot") == tmp_path / "configs" / "oneshot.toml"
    with pytest.raises(
        ConfigError, match=r"unknown preset 'twoshot'; did you mean 'oneshot'\? Presets: oneshot"
    ):
        presets.preset_file("twoshot")
    with pytest.raises(ConfigError, match="unknown preset 'many'; presets: oneshot"):
        presets.preset_file("many")


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.toml")), ids=lambda file: file.stem)
def test_presets_are_valid(preset, tmp_path):
    resolve_config([preset], [], None, tmp_path, NOW)


def test_presets_and_a_file_add_up_and_the_later_wins(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("seed = 7\nnum-server-rounds = 3\n")
    files = [*map(presets.preset_file, ("imagenette", "dirichlet-0.5", "five-rounds-fine-tuned")), own]
    config = resolve_config(files, ["seed=8"], None, tmp_path, NOW)
    assert (config.dirichlet_alpha, config.server_epochs) == (0.5, 5)
    assert (config.image_size, config.num_server_rounds, config.seed) == (224, 3, 8)


def test_presets_are_listed_with_what_they_need():
    done = fgl("presets")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for file in (ROOT / "configs").glob("*.toml"):
        what, needs = presets.describe_preset(file)
        assert what
        assert needs
        assert file.stem in text


# --- check


def test_a_synthesis_looks_at_no_data_set():
    config = parse_config(config_keys() | {"dataset": "owner/out-of-reach"})
    check_synthesis(config)
    with pytest.raises(ConfigError, match="owner/out-of-reach"):
        check_inputs(parse_config(config_keys() | {"dataset": "./nowhere/owner/out-of-reach"}), 0)


def test_the_dataset_is_released_after_the_checks_of_a_run(tmp_path):
    config = resolve_config((), ["device=cpu"], None, tmp_path, NOW)
    images = weakref.ref(config_dataset(config).train.images)
    load_client_data(config, 0, config.num_clients)
    check_inputs(config, config.num_clients)
    # The ServerApp, which checks its inputs alone, goes on with it.
    assert images() is not None
    check(config, config.num_clients)
    assert images() is None


def test_check_says_what_is_there(tmp_path):
    done = fgl("check", "prompts=instance", "device=cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    found = "4,000 training and 1,000 test images, 10 classes; grey, 32 x 32; 5 clients with"
    for row in ("device ok", f"dataset ok {found}", "captioner ok strokes", "memory ok", "disk ok"):
        assert row in text
    assert "failed" not in text
    assert list(tmp_path.iterdir()) == []


def test_check_goes_on_after_what_is_missing(tmp_path):
    values = ("dataset=nowhere", "classifier=nothing", f"generator={tmp_path}")
    done = fgl("check", "--preset", "cifar10", *values, cwd=tmp_path)
    assert done.returncode == 2
    text = " ".join(done.stdout.split())
    for row in (
        "classifier failed classifier must be one of",
        "dataset failed dataset must be",
        "generator failed",
        "disk ok",
    ):
        assert row in text


# --- help


def test_help_comes_without_the_heavy_libraries():
    code = (
        "import sys\nfrom fgl_app.cli import app as cli\n"
        "try:\n    cli.app(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'flwr', 'datasets', 'pydantic', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "KEY=VALUE" in done.stdout
    assert "fgl config" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_config_lists_every_key_with_its_default():
    done = fgl("config")
    assert done.returncode == 0
    listed = {line.split()[0]: line for line in done.stdout.splitlines() if line and line[0] != " "}
    assert listed.keys() == {"key", *config_keys()}
    assert '"dirichlet"' in listed["partitioning"]


# --- what Flower is given


def test_the_staged_app_is_the_package_with_its_keys(tmp_path):
    app = stage_app(tmp_path / "app")
    staged = tomllib.loads((app / "pyproject.toml").read_text())
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert staged["tool"]["flwr"] == own["tool"]["flwr"]
    assert staged["project"]["name"] == own["project"]["name"]
    assert staged["project"]["version"] == own["project"]["version"]
    sources = {file.relative_to(ROOT) for file in (ROOT / "fgl_app").rglob("*.py")}
    assert {file.relative_to(app) for file in app.rglob("*.py")} == sources


def test_toml_scalars_read_back():
    values = {"a": 'quote " backslash \\ \x7f é \n tab\t', "b": 3, "c": 1e-05, "d": 2.0}
    assert tomllib.loads(to_toml(values)) == values


@pytest.mark.parametrize(
    ("clients", "machine", "share", "expected"),
    [
        # Two CPUs, five clients: two at a time, a CPU each.
        (5, Machine(2, 0), None, (5, 1, 0.0, 2)),
        # 16 CPUs: three for each of five clients, one stays free.
        (5, Machine(16, 0), None, (5, 3, 0.0, 15)),
        (100, Machine(16, 0), None, (100, 1, 0.0, 16)),
        # Five at a time on one GPU: a fifth each. Sixteen at a time on three: at most six share one.
        (5, Machine(16, 1), None, (5, 3, 0.2, 15)),
        (100, Machine(16, 3), None, (100, 1, 0.1666, 16)),
        (2, Machine(16, 4), None, (2, 8, 1.0, 16)),
        (5, Machine(16, 1), 0.5, (5, 3, 0.5, 15)),
        (5, Machine(16, 1), 0.0, (5, 3, 0.0, 15)),
    ],
)
def test_the_machine_is_shared_by_the_clients_that_run_at_a_time(clients, machine, share, expected):
    supernodes, cpus, gpus, in_all = expected
    assert federation_config(clients, machine, share) == (
        f"num-supernodes={supernodes} client-resources-num-cpus={cpus} "
        f"client-resources-num-gpus={gpus} init-args-num-cpus={in_all}"
    )


# --- the log made readable

CLIENT_FAILURE = """\
\x1b[91mERROR \x1b[0m:     An exception was raised when processing a message by RayBackend
\x1b[91mERROR \x1b[0m:     \x1b[36mray::ClientAppActor.run()\x1b[39m (pid=8217, ip=192.0.2.2, actor_id=4fe7)
                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/x/flwr/clientapp/client_app.py", line 161, in __call__
    return self._registered_funcs[full_name](message, context)
ValueError: client says no

The above exception was the direct cause of the following exception:

\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=8217, ip=192.0.2.2, actor_id=4fe7)
  File "/x/flwr/simulation/ray_transport/ray_actor.py", line 65, in run
    raise ClientAppException(str(ex)) from ex
flwr.clientapp.client_app.ClientAppException:\x20
Exception ClientAppException occurred. Message: client says no
\x1b[91mERROR \x1b[0m:     Traceback (most recent call last):
  File "/x/flwr/server/superlink/fleet/vce/vce_api.py", line 132, in worker
    out_mssg, updated_context = backend.process_message(message, context)
ray.exceptions.RayTaskError(ClientAppException): \x1b[36mray::ClientAppActor.run()\x1b[39m (pid=8217)
    if context.node_config["partition-id"] == 1: raise ValueError("client says no")
ValueError: client says no

\x1b[92mINFO \x1b[0m:      aggregate_train: Received 2 results and 1 failures
"""

SERVER_FAILURE = """\
\x1b[91mERROR \x1b[0m:     Simulation raised an exception
Traceback (most recent call last):
  File "/x/flwr/simulation/app.py", line 337, in run_simulation_process
    simulation_result = _run_simulation(
                        ^^^^^^^^^^^^^^^^
flwr.serverapp.exception.InconsistentMessageReplies: Expected exactly one ArrayRecord in replies.
ModuleNotFoundError: No module named 'nosuchmodule'
\x1b[91mERROR \x1b[0m:     Exit Code: 700

An unhandled exception occurred when running the simulation.

For more information, visit: <https://flower.ai/docs/framework/1.41/en/ref-exit-codes/700.html>
"""


def shown(log):
    reader = LogReader()
    return [line for line in map(reader.read, log.splitlines()) if line]


def test_a_failing_client_is_one_message():
    assert shown(CLIENT_FAILURE) == [
        Line("error: An exception was raised when processing a message by RayBackend", "red"),
        Line("error: ValueError: client says no", "red"),
    ]


def test_a_failing_server_is_its_exception():
    assert shown(SERVER_FAILURE) == [
        Line("error: Simulation raised an exception", "red"),
        Line(
            "error: flwr.serverapp.exception.InconsistentMessageReplies: "
            "Expected exactly one ArrayRecord in replies.",
            "red",
        ),
        Line("error: ModuleNotFoundError: No module named 'nosuchmodule'", "red"),
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("fgl: fedavg over 5 nodes", Line("fedavg over 5 nodes")),
        ("fgl: warning: node 3 is late", Line("warning: node 3 is late", "yellow")),
        ("fgl: error: no replies", Line("error: no replies", "red")),
        ("\x1b[36m(ClientAppActor pid=7546)\x1b[0m fgl: 40 prompts", Line("40 prompts")),
        (
            "fgl: synthesizing  256/500 images  94.1 images/s  0:03 left",
            ProgressEvent("synthesizing", 256, 500, "images", 94.1, 3, None),
        ),
        ("\x1b[93mWARNING \x1b[0m:   Some nodes are gone", Line("warning: Some nodes are gone", "yellow")),
        (
            "/a/b/server_app.py:13: UserWarning: a python warning",
            Line("warning: a python warning", "yellow"),
        ),
        (
            "\x1b[33m(raylet)\x1b[0m A worker died or was killed",
            Line("warning: (raylet) A worker died or was killed", "yellow"),
        ),
        (
            "\x1b[93mWARNING \x1b[0m:   Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.",
            None,
        ),
        ("\x1b[92mINFO \x1b[0m:      \t├── Number of rounds: 1", None),
        ("\x1b[93mWARNING \x1b[0m:   Manually terminating ClientAppActor", None),
        ("\x1b[92mINFO \x1b[0m:      ", None),
        ("/a/ray/_private/worker.py:2051: FutureWarning: Tip: In future versions of Ray, ...", None),
        ("  warnings.warn(", None),
        ("Using SuperLink: fgl (127.0.0.1:45671)", None),
        ("Loading pipeline components...:  80%|████████  | 4/5 [00:00<00:00, 17.13it/s]", None),
        ("\x1b[36m(ClientAppActor pid=19229)\x1b[0m ", None),
        ("ValueError: outside of an error this is somebody's text", None),
        ("", None),
    ],
)
def test_lines_of_the_log(raw, expected):
    assert LogReader().read(raw) == expected


def test_without_a_terminal_progress_is_plain_and_seldom(capsys):
    with Display(Mode.READABLE) as display:
        for done in (10, 20, 30):
            display.show(f"fgl: synthesizing  {done}/40 images  94.1 images/s  0:03 left")
        display.show("fgl: synthesizing  40/40 images  94.1 images/s  in 0:05")
    assert capsys.readouterr().out.splitlines() == [
        "synthesizing  10/40 images  94.1 images/s  0:03 left",
        "synthesizing  40/40 images  94.1 images/s  in 0:05",
    ]


def test_streaming_shows_all_without_colours_and_quiet_shows_nothing(capsys):
    for mode in (Mode.RAW, Mode.QUIET):
        with Display(mode) as display:
            display.show("\x1b[92mINFO \x1b[0m:      [ROUND 1/1] " + "long " * 40)
            display.announce("starting")
    assert capsys.readouterr().out == "INFO :      [ROUND 1/1] " + "long " * 40 + "\nstarting\n"


# --- how it ended


@pytest.mark.parametrize(
    ("outcome", "summary", "reason"),
    [
        (COMPLETED, {"status": "completed"}, ""),
        (COMPLETED, {"status": "failed", "error": "3 of 5 nodes failed"}, "3 of 5 nodes failed"),
        (COMPLETED, {}, "it ended without a summary.json"),
        (COMPLETED, {"status": "running"}, "summary.json has the status 'running'"),
        (RunOutcome("finished:failed", "Simulation failed with exception: no"), {}, "no"),
        (RunOutcome("finished:failed", "boom"), {"status": "completed"}, "boom"),
        (RunOutcome("finished:stopped", ""), {}, "Flower ended it as 'finished:stopped'"),
    ],
)
def test_a_run_completed_only_if_flower_and_the_app_say_so(outcome, summary, reason):
    assert failure_reason(outcome, summary) == reason


def test_the_result_has_totals_in_units_and_ends_with_the_places(capsys, tmp_path):
    (tmp_path / "report.html").touch()
    summary = {
        "strategy": "fgl",
        "dataset": "digits",
        "accuracy": 0.871,
        "uplink_bytes": {"total": 34688, "setup": 34688},
        "seconds": {"total": 28.528},
    }
    with Display(Mode.QUIET) as display:
        display.show_result(summary, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-2]] == [
        ["strategy", "fgl"],
        ["dataset", "digits"],
        ["accuracy", "87.1", "%"],
        ["uplink", "34.7", "KB"],
        ["run", "time", "28.5", "s"],
    ]
    assert lines[-2:] == [str(tmp_path), str(tmp_path / "report.html")]
    assert result_table(json.loads("{}")).row_count == 0
