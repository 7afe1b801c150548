"""The ServerApp: read the config, run the method, write the results."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fgl_app import preflight
from fgl_app.config import ConfigError, RunConfig, parse_config
from fgl_app.progress import log, log_to_stdout
from fgl_app.results.run_directory import RunDirectory

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the method of the config; a run without a result ends in an exception."""
    log_to_stdout()
    try:
        config = _named(parse_config(context.run_config))
        preflight.check_inputs(config)
    except ConfigError as error:
        log.error("%s", error)
        raise
    # Heavy imports, not needed to refuse a bad config.
    from fgl_app.methods import run_method
    from fgl_app.server.session import Session

    with closing(_run_directory(config)) as directory:
        log.info("results go to %s", directory.path)
        session = Session(config, directory, grid)
        try:
            session.save_model(run_method(session))
        except BaseException as error:
            log.error("%s: %s", type(error).__name__, error)
            session.finish(error)
            raise
        session.finish(None)


def _run_directory(config: RunConfig) -> RunDirectory:
    output_dir = Path(config.output_dir).absolute()
    values = config.model_copy(update={"resume": False}).to_run_config()
    if config.resume:
        return RunDirectory.reopen(output_dir / config.run_name, values)
    return RunDirectory.create(output_dir, config.run_name, values)


def _named(config: RunConfig) -> RunConfig:
    if config.run_name:
        return config
    return config.model_copy(update={"run_name": f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{config.run_label}"})
