"""The output of a run: the readable log, progress and the result."""

import pytest

from fgl_app.cli.console import Display, Line, LogReader, Mode, result_table
from fgl_app.progress import ProgressEvent

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


def test_a_failed_client_is_one_message():
    assert shown(CLIENT_FAILURE) == [
        Line("error: An exception was raised when processing a message by RayBackend", "red"),
        Line("error: ValueError: client says no", "red"),
    ]


def test_a_failed_server_is_its_exception():
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
        ("ValueError: text outside of an error", None),
        ("", None),
    ],
)
def test_lines_of_the_log(raw, expected):
    assert LogReader().read(raw) == expected


def test_without_a_terminal_progress_lines_are_plain_and_rare(capsys):
    with Display(Mode.READABLE) as display:
        for done in (10, 20, 30):
            display.show(f"fgl: synthesizing  {done}/40 images  94.1 images/s  0:03 left")
        display.show("fgl: synthesizing  40/40 images  94.1 images/s  in 0:05")
    assert capsys.readouterr().out.splitlines() == [
        "synthesizing  10/40 images  94.1 images/s  0:03 left",
        "synthesizing  40/40 images  94.1 images/s  in 0:05",
    ]


def test_stream_shows_every_line_without_colours_and_quiet_shows_none(capsys):
    for mode in (Mode.RAW, Mode.QUIET):
        with Display(mode) as display:
            display.show("\x1b[92mINFO \x1b[0m:      [ROUND 1/1] " + "long " * 40)
            display.announce("starting")
    assert capsys.readouterr().out == "INFO :      [ROUND 1/1] " + "long " * 40 + "\nstarting\n"


def test_the_result_has_totals_in_units_and_ends_with_the_paths(capsys, tmp_path):
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
    assert result_table({}).row_count == 0
