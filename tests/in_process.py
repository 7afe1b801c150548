"""`fgl` in this process: the real command line, ServerApp and ClientApps on a fake grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from typer.testing import CliRunner, Result

from fgl_app.cli.app import app
from fgl_app.client_app import app as client_app
from fgl_app.launch.runner import RunOutcome
from fgl_app.server_app import app as server_app
from tests.fake_grid import FakeGrid, app_node


def simulate(
    stage: Callable[[Path], Path],
    run_config: Mapping[str, Any],
    federation: str,
    logs: Path,
    show: Callable[[str], None],
    *,
    dies_after: int | None = None,
) -> RunOutcome:
    """Replace ``fgl_app.launch.runner.simulate``; the server fails after ``dies_after`` messages."""
    clients = int(dict(pair.split("=") for pair in federation.split())["num-supernodes"])
    config = dict(run_config)
    grid = FakeGrid({i: app_node(client_app, i, clients, config) for i in range(clients)})
    if dies_after is not None:
        push_messages = grid.push_messages

        def push(messages: Sequence[Message]) -> list[str]:
            if len(grid.sent) >= dies_after:
                raise ConnectionError("the server died, as requested by the test")
            return push_messages(messages)

        grid.push_messages = push
    try:
        server_app(grid, Context(1, 0, {}, RecordDict(), config))
    except Exception as error:
        return RunOutcome("finished:failed", f"{type(error).__name__}: {error}")
    return RunOutcome("finished:completed", "")


def fgl(*words: str, cwd: Path | None = None, dies_after: int | None = None) -> Result:
    """Run a command line, by default in the current directory."""
    with pytest.MonkeyPatch.context() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        patch.setattr(
            "fgl_app.launch.runner.simulate", lambda *values: simulate(*values, dies_after=dies_after)
        )
        # Signal handlers belong to the test process.
        patch.setattr("fgl_app.cli.run.handle_termination_signals", lambda: None)
        return CliRunner().invoke(app, list(words))
