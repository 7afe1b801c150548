"""Every message that docs/troubleshooting.md quotes is in the code that prints it."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
# Messages of compiled code, which has no source here.
COMPILED = {"Python", "OpenSSL", "torch"}
PACKAGES = {"Flower": "flwr", "Ray": "ray/_private", "asyncio": "asyncio"}


def text_of(node):
    """Return the text of an f-string or constant, with NUL in place of values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return None


@cache
def sources(package):
    """Return the files of a package and their sources."""
    top, _, rest = package.partition("/")
    folder = Path(find_spec(top).origin).parent / rest
    return {file: file.read_bytes() for file in folder.rglob("*.py")}


@cache
def texts(file):
    """Return all strings of a file, adjacent literals as one."""
    return [text for text in map(text_of, ast.walk(ast.parse(file.read_bytes()))) if text]


def contains(text, fragments):
    """Return whether a text contains all fragments in order."""
    place = 0
    for fragment in fragments:
        found = text.find(fragment, place)
        if found < 0:
            return False
        place = found + len(fragment)
    return True


def is_in_code(fragments, package):
    # Most files lack the longest word, and need no parser.
    word = max(re.findall(r"\w+", " ".join(fragments)), key=len).encode()
    files = [file for file, source in sources(package).items() if word in source]
    return any(contains(text, fragments) for file in files for text in texts(file))


def test_the_page_has_messages_and_none_twice():
    messages = [entry.split(" (")[0] for entry in ENTRIES]
    assert len(messages) > 40
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_quoted_message_is_in_the_code(entry):
    [message] = re.findall(r"`(.+?)`(?: \(\S+\))?$", entry)
    program = re.search(r"\((\S+)\)$", entry)
    fragments = [part.strip() for part in message.split("…") if part.strip()]
    assert sum(map(len, fragments)) >= 12, "too short to identify a message"
    if program is None:
        assert is_in_code(fragments, "fgl_app")
    elif program[1] not in COMPILED:
        assert is_in_code(fragments, PACKAGES[program[1]])
