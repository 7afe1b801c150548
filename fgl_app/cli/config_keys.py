"""`fgl presets` and `fgl config`: what can be asked of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer

PAGE = """\
<!-- Written by `fgl config --markdown`, which `make docs` calls: change fgl_app/config and configs. -->

# Configuration

Every key of a run, with its default, the values it takes, and what it means. A bad value, or values that do
not go together, end a run before it starts, with a sentence that names the key, the rule and the value.

Keys are given as `KEY=VALUE` to `fgl run`, in a TOML file (`fgl run --config FILE`), by a [preset](#presets),
or to Flower itself (`flwr run . --run-config "KEY=VALUE ..."`, where text needs quotes: `method='fedddpm'`).
`KEY=VALUE` wins over files, and files win over presets. `fgl config` prints these keys too. A run's
`config.json` has the values that it used.
"""


def show_presets() -> None:
    """List the published experiments that can be run by name, and what each needs."""
    from rich.table import Table
    from rich.text import Text

    from fgl_app.cli.console import plain_console

    table = Table("preset", "what it is", "needs", box=None, pad_edge=False)
    for name, *description in _preset_rows():
        table.add_row(name, *map(Text, description))
    plain_console().print(table)


def show_config(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/configuration.md, which has the rules too.")
    ] = False,
) -> None:
    """List every config key with its default and its meaning."""
    from rich.table import Table
    from rich.text import Text

    from fgl_app.cli.console import plain_console
    from fgl_app.config.reference import key_groups

    if markdown:
        print(configuration_page(), end="")
        return
    table = Table("key", "default", "meaning", box=None, pad_edge=False)
    for key in (key for keys in key_groups().values() for key in keys):
        meaning = "\n".join(filter(None, (key.meaning, " | ".join(key.choices))))
        table.add_row(key.key, Text(key.default), Text(meaning))
    plain_console().print(table)


def configuration_page() -> str:
    """Return docs/configuration.md: every key in its group, and the presets."""
    from fgl_app.config.reference import key_groups

    parts = [PAGE]
    for title, keys in key_groups().items():
        rows = ((f"`{key.key}`", f"`{key.default}`", key.rule, key.meaning) for key in keys)
        parts += [f"## {title}\n", _table(("key", "default", "values", "meaning"), rows)]
    named = ((f"`{name}`", what, needs) for name, what, needs in _preset_rows())
    parts += [
        "## Presets\n",
        "`fgl run --preset NAME`; given several times, the later wins.\n",
        _table(("preset", "what it is", "needs"), named),
    ]
    return "\n".join(parts)


def _preset_rows() -> Iterator[tuple[str, str, str]]:
    from fgl_app.config.presets import describe_preset, presets

    for name, file in presets().items():
        yield name, *describe_preset(file)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
