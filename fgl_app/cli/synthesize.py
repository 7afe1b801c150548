"""`fgl synthesize`: a synthetic set from the embeddings that a run saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgl_app.cli.options import (
    BAD_INPUT,
    FAILED,
    ConfigOption,
    Overrides,
    PresetOption,
    exit_on_config_error,
    resolve_options,
)

SYNTHESIZE_HELP = """
Generate a synthetic set from the embeddings that a run saved, for example on another machine.

Finished shards are kept: after an interruption run the same command again. If FOLDER holds a set with other \
settings, that set is kept and the new one is written next to it. [bold]synthesis-workers=N[/bold] uses N \
GPUs, [bold]ray-address=HOST:PORT[/bold] uses a Ray cluster.
"""


def synthesize(
    embeddings: Annotated[
        Path,
        typer.Argument(metavar="EMBEDDINGS", help="embeddings.safetensors of a run, or its folder."),
    ],
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Output folder of the synthetic set.")],
    generator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Same as generator=NAME: a folder or hub id.")
    ] = None,
    presets: PresetOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Generate a synthetic set; the help text is SYNTHESIZE_HELP."""
    from fgl_app.cli.console import Display, Mode, print_error
    from fgl_app.preflight import check_synthesis
    from fgl_app.progress import redirect_log

    with exit_on_config_error():
        values = [*(overrides or ()), *([f"generator={generator}"] if generator else ())]
        config = resolve_options(presets, config_file, values)
        check_synthesis(config)
    from fgl_app.synthesis.command import synthesize_file

    try:
        with Display(Mode.READABLE) as display, redirect_log(display.show):
            folder = synthesize_file(embeddings, out.absolute(), config)
    except (ValueError, OSError, RuntimeError) as error:
        print_error(str(error))
        raise typer.Exit(BAD_INPUT if isinstance(error, ValueError) else FAILED) from None
    print(folder)
