import logging
import subprocess
import sys
import time

import pytest

from fgl_app import progress
from fgl_app.progress import ProgressEvent, log, log_to_stdout, parse, track


@pytest.fixture(autouse=True)
def _log_on_stdout():
    """Print the log on stdout, and restore the logger afterwards; a second call changes nothing."""
    level, propagate, handlers = log.level, log.propagate, list(log.handlers)
    log_to_stdout()
    log_to_stdout()
    yield
    log.setLevel(level)
    log.propagate, log.handlers = propagate, handlers


def test_importing_the_library_leaves_the_logger_alone():
    code = (
        "import logging, fgl_app.plug_in, fgl_app.strategies\n"
        "logger = logging.getLogger('fgl')\n"
        "print(logger.handlers, logger.level, logger.propagate)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 0 True\n"


def test_a_progress_line_is_parsed():
    line = "fgl: synthesizing  1280/5000 images  96.4 images/s  0:38 left"
    assert parse(line) == ProgressEvent("synthesizing", 1280, 5000, "images", 96.4, 38, None)
    last = "fgl: training on synthetic images  10000/10000 images  3431.5 images/s  in 1:02:03"
    event = parse(last)
    assert event == ProgressEvent("training on synthetic images", 10000, 10000, "images", 3431.5, None, 3723)
    assert event.finished


@pytest.mark.parametrize(
    "line",
    [
        "fgl: fedavg over 5 nodes",
        "fgl: round 1/1: accuracy 87.1 %, loss 0.477",
        "synthesizing  1280/5000 images  96.4 images/s  0:38 left",
        "Loading pipeline components...:  80%|████████  | 4/5 [00:00<00:00, 17.13it/s]",
        "",
    ],
)
def test_other_lines_are_not_progress(line):
    assert parse(line) is None


def test_tracking_logs_a_line_at_most_every_interval_and_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    with track(10, "counting", "steps") as steps:
        for _ in range(10):
            steps.update()
            time.sleep(0.02)
    events = [parse(line) for line in capsys.readouterr().out.splitlines()]
    assert None not in events
    done = [event.done for event in events]
    # Ten steps take at least 0.2 s, with a line every 0.05 s at most, then the last line.
    assert done == sorted(set(done))
    assert done[-1] == 10
    assert [event.finished for event in events] == [False] * (len(events) - 1) + [True]
    assert len(events) > 1


def test_a_task_that_raises_has_no_last_line(capsys):
    with pytest.raises(ZeroDivisionError), track(10, "counting", "steps") as steps:
        steps.update(3 // 0)
    assert capsys.readouterr().out == ""


def test_an_empty_task_finishes_at_once(capsys):
    with track(0, "counting", "steps"):
        pass
    event = parse(capsys.readouterr().out)
    assert event.finished
    assert (event.done, event.total) == (0, 0)


def test_log_lines_have_prefix_and_level_and_are_printed_once(capsys):
    root = logging.StreamHandler()
    logging.getLogger().addHandler(root)
    try:
        log.info("100 % of 5 nodes")
        log.warning("two\nlines")
    finally:
        logging.getLogger().removeHandler(root)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["fgl: 100 % of 5 nodes", "fgl: warning: two", "fgl: warning: lines"]
    assert captured.err == ""


def test_the_log_follows_stdout(capsys):
    """Flower replaces ``sys.stdout.write`` after the import of this module."""
    import sys

    written = []
    original = sys.stdout.write
    sys.stdout.write = written.append
    try:
        log.info("hello")
    finally:
        sys.stdout.write = original
    # One write per line: Flower can upload between two writes.
    assert written == ["fgl: hello\n"]
