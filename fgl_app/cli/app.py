"""`fgl`: the command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgl_app.cli.config_keys import show_config, show_presets
from fgl_app.cli.federation import federation
from fgl_app.cli.options import (
    BAD_INPUT,
    FAILED,
    ConfigOption,
    Overrides,
    PresetOption,
    exit_on_config_error,
)
from fgl_app.cli.results import REPORT_HELP, list_runs, report

if TYPE_CHECKING:
    from fgl_app.config import RunConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Generative federated learning on Flower.

Clients hold private images. In [bold]FGL[/bold] they send the server text embeddings of prompts that \
describe their data, once. The server draws a synthetic training set from them with a text-to-image \
model, trains the classifier on it, and can go on with ordinary federated rounds.

[bold]Start here:[/bold]

  fgl run             simulate five clients on the built-in digits

  fgl run --help      how to change what runs

  fgl presets         published experiments, and what each needs

  fgl check           whether what a run needs is there

  fgl config          every config key with its default

  fgl list            the runs in a folder, with their results

  fgl report          the report of a run, or a page that compares several

  fgl synthesize      make a synthetic set elsewhere, from a run's embeddings

  fgl federation up   a federation of real Flower processes on this machine
""",
)
app.add_typer(federation, name="federation")

RUN_HELP = """
Run a federation and report the result: simulated on this machine, or on real sites.

Starts Flower with the clients asked for, shows what happens, and ends with the accuracy, the traffic and \
the folder that holds everything: summary.json, report.html, plots, models and logs.

[bold]KEY=VALUE[/bold] sets a config key for this run; give as many as you like. [bold]fgl config[/bold] \
lists the keys. They win over presets and file. Text needs no quotes of its own (dataset=digits); \
quote the whole where your shell would split it: 'prompt-template=a photo of {label}'.

[bold]Examples:[/bold]

  fgl run

  fgl run --clients 10 dirichlet-alpha=0.1 seed=1

  fgl run method=classifier inner-strategy=fedavg num-server-rounds=20

  fgl run --config my-experiment.toml images-per-class=1000

  fgl run --federation federation

  fgl run --resume outputs/latest

A run that died goes on from its last finished phase or round with [bold]--resume[/bold], and ends as if \
nothing had been; with --federation it goes on there.

The exit code is 0 only when the run completed, 1 when it failed, 2 for bad input, 130 when interrupted.
"""


SYNTHESIZE_HELP = """
Make a synthetic set from the embeddings that a run saved, so that it can be done elsewhere.

What is there of the set already is kept: after an interruption the same command goes on. A set made with \
other settings is left alone, and this one goes beside it. [bold]synthesis-workers=N[/bold] uses N GPUs, \
[bold]ray-address=HOST:PORT[/bold] those of a Ray cluster.
"""


ClientsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Clients to simulate. \\[default: key num-clients, else 5]"),
]


def _settings(
    preset: list[str] | None,
    config: Path | None,
    overrides: list[str] | None,
    clients: int | None,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Put a command's config together, from a base other than the defaults if there is one."""
    from fgl_app.config.presets import preset_file
    from fgl_app.launch.plan import resolve_config

    files = [*map(preset_file, preset or ()), *([config] if config else ())]
    return resolve_config(files, overrides or [], clients, Path.cwd(), datetime.now(UTC), base=base)


@app.command(help=RUN_HELP)
def run(
    overrides: Overrides = None,
    *,
    preset: PresetOption = None,
    config: ConfigOption = None,
    clients: ClientsOption = None,
    gpus_per_client: Annotated[
        float | None,
        typer.Option(min=0, metavar="SHARE", help="GPUs a client takes. \\[default: an even share]"),
    ] = None,
    federation_folder: Annotated[
        Path | None,
        typer.Option(
            "--federation",
            metavar="DIR",
            help="Run on the sites of `fgl federation up DIR`, not on simulated clients.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with the run of this folder, which died or failed."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show Flower's log as it is.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show the result only.")] = False,
) -> None:
    """Run a simulation; the help text is RUN_HELP."""
    from fgl_app import preflight
    from fgl_app.cli.console import Mode
    from fgl_app.cli.execution import RunTarget, execute
    from fgl_app.config import ConfigError
    from fgl_app.federation.state import read_federation
    from fgl_app.launch.plan import check_resume_config, load_resume_config, stage_app

    with exit_on_config_error():
        if stream and quiet:
            raise ConfigError("--stream and --quiet exclude each other; give one")
        known = read_federation(federation_folder) if federation_folder else None
        if resume:
            if preset or config or clients:
                raise ConfigError("--resume keeps the run's config: no --preset, --config or --clients")
            before = load_resume_config(resume)
            settings = _settings(None, None, overrides, None, base=before)
            check_resume_config(before, settings)
        else:
            settings = _settings(preset, config, overrides, clients, base=known.run_config() if known else {})
        if settings.clients_own_data and not known:
            raise ConfigError(
                "partitioning 'sites' needs --federation DIR: simulated clients have no data of their own"
            )
        preflight.check(settings, settings.num_clients)
    mode = Mode.RAW if stream else Mode.QUIET if quiet else Mode.READABLE
    place = RunTarget(gpus_per_client, known.home if known else None)
    raise typer.Exit(execute(settings, place, mode, stage_app))


@app.command()
def check(
    overrides: Overrides = None,
    *,
    preset: PresetOption = None,
    config: ConfigOption = None,
    clients: ClientsOption = None,
) -> None:
    """Look at all that a run would need, without running: data, models, device, memory and disk.

    Takes the same values as `fgl run`. The exit code is 0 when everything was found, else 2.
    """
    from fgl_app.cli.checks import print_checks, resources
    from fgl_app.preflight import examinations

    with exit_on_config_error():
        settings = _settings(preset, config, overrides, clients)
    good = print_checks(examinations(settings, settings.num_clients) | resources(settings))
    raise typer.Exit(0 if good else BAD_INPUT)


@app.command(help=SYNTHESIZE_HELP)
def synthesize(
    embeddings: Annotated[
        Path, typer.Argument(metavar="EMBEDDINGS", help="embeddings.safetensors of a run, or its folder.")
    ],
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the synthetic set goes.")],
    generator: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same as generator=NAME: a folder or hub id.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a synthetic set from a run's embeddings; the help text is SYNTHESIZE_HELP."""
    from fgl_app.cli.console import Display, Mode, print_error
    from fgl_app.preflight import check_generator
    from fgl_app.progress import redirect_log

    with exit_on_config_error():
        values = [*(overrides or ()), *([f"generator={generator}"] if generator else ())]
        settings = _settings(preset, config, values, None)
        check_generator(settings)
    from fgl_app.synthesis.command import synthesize_file

    try:
        with Display(Mode.READABLE) as display, redirect_log(display.show):
            folder = synthesize_file(embeddings, out.absolute(), settings)
    except ValueError as error:
        print_error(str(error))
        raise typer.Exit(BAD_INPUT) from None
    except (OSError, RuntimeError) as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    print(folder)


app.command("report", help=REPORT_HELP)(report)
app.command("list")(list_runs)
app.command("presets")(show_presets)
app.command("config")(show_config)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # Flower draws trees that a terminal without UTF-8 cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
