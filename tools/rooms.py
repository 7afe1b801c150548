"""Print the rooms of the package: which room imports which, in numbers.

python -m tools.rooms
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import grimp

PACKAGE = "fgl_app"


def room(module: str) -> str:
    """Return the room of a module: its folder, or the module itself at the root."""
    return module.split(".")[1]


def main() -> None:
    """Print the arrows between rooms, the circles, and the sizes of the files."""
    graph = grimp.build_graph(PACKAGE)
    modules = {module for module in graph.modules if module != PACKAGE}
    arrows = {
        (room(module), room(imported))
        for module in modules
        for imported in graph.find_modules_directly_imported_by(module) & modules
        if room(module) != room(imported)
    }
    reach = _closure(arrows)
    for name in sorted(
        {room(module) for module in modules}, key=lambda each: (len(reach.get(each, ())), each)
    ):
        below = sorted(imported for importer, imported in arrows if importer == name)
        print(f"{name:<13}{', '.join(below) or '-'}")
    files = sorted(Path(PACKAGE).rglob("*.py"))
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    largest = max(lines, key=lambda file: lines[file])
    print(
        f"\n{len(list(Path(PACKAGE).glob('*.py')))} modules at the root, {len(arrows)} arrows between rooms, "
        f"{sum(name in reach[name] for name in reach)} rooms in circles"
    )
    print(
        f"{sum(lines.values())} lines in {len(files)} files: median {median(lines.values()):.0f}, "
        f"largest {lines[largest]} ({largest})"
    )


def _closure(arrows: set[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the rooms that each room reaches, directly or not."""
    reach: dict[str, set[str]] = {}
    for importer, imported in arrows:
        reach.setdefault(importer, set()).add(imported)
    while any(not reach.get(far, set()) <= near for near in reach.values() for far in set(near)):
        for near in reach.values():
            near |= {far for each in set(near) for far in reach.get(each, ())}
    return reach


if __name__ == "__main__":
    main()
