"""The shell commands of the documentation, read from its Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATTERNS = ("README.md", "docs/**/*.md", "docker/README.md", "examples/*/README.md", "hub/README.md")
SHELLS = ("sh", "bash", "shell", "console")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(?:\.venv/bin/)?(fgl [^`]+)`")
KNOWN = ("docker", "fgl", "flower-superlink", "flwr", "make", "make_keys.sh", "pip", "python")
"""A block without a language holds commands if one of its lines begins with one of these."""


@dataclass(frozen=True)
class Command:
    """One command of a documentation file, without variable assignments and redirections."""

    words: tuple[str, ...]
    file: str

    @property
    def program(self) -> str:
        return Path(self.words[0]).name

    @property
    def text(self) -> str:
        return " ".join([self.program, *self.words[1:]])


def documents() -> list[Path]:
    return [file for pattern in PATTERNS for file in sorted(ROOT.glob(pattern))]


def commands() -> list[Command]:
    """Return the commands of all fenced blocks, each once, in the order of the text."""
    found = (
        Command(words, str(file.relative_to(ROOT)))
        for file in documents()
        for _, language, block in FENCE.findall(file.read_text(encoding="utf-8"))
        if language in ("", *SHELLS)
        for words in _of_block(block, language)
    )
    return list({command.text: command for command in found}.values())


def inline_commands() -> list[str]:
    """Return the commands of `fgl` in the running text."""
    texts = (FENCE.sub("", file.read_text(encoding="utf-8")) for file in documents())
    return sorted({" ".join(found.split()) for text in texts for found in INLINE.findall(text)})


def _of_block(block: str, language: str) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    if language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    try:
        found = [words for line in lines for words in _of_line(line)]
    except ValueError:
        # No shell can read it: the output of a program, with an apostrophe.
        found = []
    if language or any(Path(words[0]).name in KNOWN for words in found):
        return found
    return []


def _of_line(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the simple commands of a line, which can be a chain or a loop."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    variables: dict[str, str] = {}
    for is_end, group in groupby(lexer, lambda token: set(token) <= set(";&|")):
        words = list(group)
        while words and (words[0] == "do" or re.match(r"\w+=", words[0])):
            name, _, value = words.pop(0).partition("=")
            variables[f"${name}"] = value
        if is_end or not words or words[0] in ("for", "done"):
            continue
        if ">" in words:
            words = words[: words.index(">")]
        yield (variables.get(words[0], words[0]), *words[1:])
