"""`fgl federation` without Flower: arguments, invalid input, a federation that does not run."""

from pathlib import Path

import pytest

from fgl_app.cli.federation import split_arguments
from fgl_app.config import parse_config
from fgl_app.federation.planning import plan_federation
from tests.in_process import fgl


def plan(folder):
    return plan_federation(folder, 2, parse_config({"partitioning": "iid"}), insecure=False)


@pytest.mark.parametrize(
    ("arguments", "folder", "rest"),
    [
        ([], "federation", []),
        (["here"], "here", []),
        (["seed=1"], "federation", ["seed=1"]),
        (["here", "seed=1", "dataset=digits"], "here", ["seed=1", "dataset=digits"]),
        (["./a=b", "seed=1"], "./a=b", ["seed=1"]),
    ],
)
def test_the_folder_is_the_argument_before_config_values(arguments, folder, rest):
    assert split_arguments(arguments) == (Path(folder), rest)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "--sites", "3", "num-clients=4"], "--sites 3 and config key 'num-clients' (4) differ"),
        (["new", "seed=x"], "config key 'seed' must be a valid integer, got 'x'"),
        (["new", "--sites", "900"], "the 4000 training examples of 'digits' allow at most 400 clients"),
        (
            ["new", "dataset=some/set", "domain-column=style"],
            "config key 'domain-column' is not supported in a federation",
        ),
        (
            ["new", "partitioning=sites"],
            "config key 'partitioning' must split the dataset over the sites, got 'sites'",
        ),
        (
            ["new", "seed=1", "other"],
            "config values are given as KEY=VALUE, without spaces around '=', got 'other'",
        ),
        ([".", "seed=1"], "'.' exists and is not a federation; give a new folder"),
        (['a"b'], "the federation's folder must not contain a double quote, got 'a\"b'"),
        (["mine", "--sites", "3"], "the federation in 'mine' has 2 sites, got 3"),
        (["mine", "num-clients=4"], "the federation in 'mine' has 2 sites, got 4"),
        (["mine", "--insecure"], "the federation in 'mine' has TLS and keys, got --insecure"),
        (["mine", "seed=1"], "the sites in 'mine' hold data with seed=0, got seed=1"),
    ],
)
def test_invalid_input_exits_2_with_one_sentence_and_writes_nothing(tmp_path, arguments, sentence):
    mine = tmp_path / "mine"
    mine.mkdir()
    plan(mine).save()
    before = (mine / "federation.json").read_bytes()
    done = fgl("federation", "up", *arguments, cwd=tmp_path)
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "federation.json"]
    assert (mine / "federation.json").read_bytes() == before


@pytest.mark.parametrize("command", ["status", "down"])
def test_commands_need_a_federation(tmp_path, command):
    done = fgl("federation", command, cwd=tmp_path)
    assert done.exit_code == 2
    assert done.stderr == (
        "Error: there is no federation in 'federation'; `fgl federation up federation` creates one\n"
    )


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"version": 2}', '{"version": 1, "id": "x"}'],
    ids=["cut", "list", "later", "less"],
)
def test_an_invalid_federation_file_is_one_sentence(tmp_path, content):
    (tmp_path / "federation.json").write_text(content)
    done = fgl("federation", "status", ".", cwd=tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: 'federation.json' cannot be read as a federation: ")
    assert done.stderr.count("\n") == 1


def test_the_status_of_a_federation_that_does_not_run(tmp_path, monkeypatch):
    # Wide enough for a line per process.
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    federation = plan(folder).save()
    done = fgl("federation", "status", str(folder))
    assert done.exit_code == 1
    title, _, *rows = done.stdout.splitlines()
    assert title == f"federation in {folder}, on {federation.address}, with TLS and keys"
    names = ["superlink", "superexec", "site-0", "site-1"]
    assert [row.split() for row in rows[:2]] == [[x, "not", "running", f"logs/{x}.log"] for x in names[:2]]
    assert [row.split() for row in rows[2:]] == [
        [x, "not", "running", "unknown", f"logs/{x}.log"] for x in names[2:]
    ]
    done = fgl("federation", "down", str(folder))
    assert (done.exit_code, done.stdout) == (0, "nothing was running\n")
