"""`fgl`: the command line application and its commands."""

from __future__ import annotations

import io
import sys

import typer

from fgl_app.cli.check import check
from fgl_app.cli.config_keys import show_config, show_presets
from fgl_app.cli.federation import federation_app
from fgl_app.cli.results import REPORT_HELP, list_runs, report
from fgl_app.cli.run import RUN_HELP, run
from fgl_app.cli.synthesize import SYNTHESIZE_HELP, synthesize

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Generative federated learning on Flower.

Clients hold private images. In [bold]FGL[/bold] each client sends the server text embeddings of prompts \
that describe its data, once. The server generates a synthetic training set from them with a text-to-image \
model, trains the classifier on it, and can continue with ordinary federated rounds.

[bold]Start here:[/bold]

  fgl run             simulate five clients on the built-in digits

  fgl run --help      options and config values of a run

  fgl presets         published experiments and what they need

  fgl check           check data, models, device, memory and disk before a run

  fgl config          every config key with its default

  fgl list            the runs in a folder with their results

  fgl report          the report of a run, or a page that compares several

  fgl synthesize      generate a synthetic set from saved embeddings

  fgl federation up   start a federation of real Flower processes on this machine
""",
)
app.command("run", help=RUN_HELP)(run)
app.command("check")(check)
app.command("synthesize", help=SYNTHESIZE_HELP)(synthesize)
app.command("report", help=REPORT_HELP)(report)
app.command("list")(list_runs)
app.command("presets")(show_presets)
app.command("config")(show_config)
app.add_typer(federation_app, name="federation")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # Flower's log has characters that a terminal without UTF-8 cannot print.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()
