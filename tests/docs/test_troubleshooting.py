"""Every message that docs/troubleshooting.md quotes is printed by somebody."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
# Words of compiled code, which has no source here.
COMPILED = {"Python", "OpenSSL", "torch"}
PACKAGES = {"Flower": "flwr", "Ray": "ray/_private", "asyncio": "asyncio"}


def parts_of(node):
    """Texts of an f-string or constant, with a mark between them where values go."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return None


@cache
def texts(package):
    """Every string of a package, those of adjacent literals as one."""
    top, _, rest = package.partition("/")
    folder = Path(find_spec(top).origin).parent / rest
    nodes = [node for file in folder.rglob("*.py") for node in ast.walk(ast.parse(file.read_bytes()))]
    return [text for text in map(parts_of, nodes) if text]


def fragments(message):
    return [part.strip() for part in message.split("…") if part.strip()]


def holds(text, wanted):
    """Whether a text has all the fragments, one after the other."""
    place = 0
    for fragment in wanted:
        found = text.find(fragment, place)
        if found < 0:
            return False
        place = found + len(fragment)
    return True


def test_the_page_has_messages_and_none_twice():
    messages = [entry.split(" (")[0] for entry in ENTRIES]
    assert len(messages) > 40
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_message_is_somebodys(entry):
    [message] = re.findall(r"`(.+?)`(?: \(\S+\))?$", entry)
    whose = re.search(r"\((\S+)\)$", entry)
    wanted = fragments(message)
    assert sum(map(len, wanted)) >= 12, "too little to know a message by"
    if whose is None:
        assert any(holds(text, wanted) for text in texts("fgl_app"))
    elif whose[1] not in COMPILED:
        assert any(holds(text, wanted) for text in texts(PACKAGES[whose[1]]))
