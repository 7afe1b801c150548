"""`fgl presets` and `fgl config`: the presets and config keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer

PAGE = """\
<!-- Written by `fgl config --markdown` in `make docs`: edit fgl_app/config and configs instead. -->

# Configuration

Every config key of a run with its default, its values and its meaning. Invalid values and invalid
combinations are rejected before the run starts, with an error message that names the key, the rule and the
value.

Give keys as `KEY=VALUE` to `fgl run`, in a TOML file (`fgl run --config FILE`), by a [preset](#presets), or
to Flower (`flwr run . --run-config "KEY=VALUE ..."`, where text needs quotes: `method='fedddpm'`).
`KEY=VALUE` wins over files, and files win over presets. `fgl config` also prints the keys. The file
`config.json` of a run holds the values that the run used.
"""


def show_presets() -> None:
    """List the presets, which are published experiments, and what each needs."""
    from rich.table import Table
    from rich.text import Text

    from fgl_app.cli.console import plain_console

    table = Table("preset", "description", "needs", box=None, pad_edge=False)
    for name, *description in _preset_rows():
        table.add_row(name, *map(Text, description))
    plain_console().print(table)


def show_config(
    *,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the keys with their rules as Markdown.")
    ] = False,
) -> None:
    """List every config key with its default and meaning."""
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
    """Return docs/configuration.md: the keys in groups, and the presets."""
    from fgl_app.config.reference import key_groups

    parts = [PAGE]
    for title, keys in key_groups().items():
        rows = ((f"`{key.key}`", f"`{key.default}`", key.rule, key.meaning) for key in keys)
        parts += [f"## {title}\n", _table(("key", "default", "values", "meaning"), rows)]
    presets = ((f"`{name}`", description, needs) for name, description, needs in _preset_rows())
    parts += [
        "## Presets\n",
        "`fgl run --preset NAME`; can be repeated, later presets win.\n",
        _table(("preset", "description", "needs"), presets),
    ]
    return "\n".join(parts)


def _preset_rows() -> Iterator[tuple[str, str, str]]:
    from fgl_app.config.presets import describe_preset, presets

    for name, file in presets().items():
        yield name, *describe_preset(file)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
