"""Every command of the documentation is valid, and a test runs every kind of command.

Commands of `fgl` run in this process at tiny size, on data and models that the test makes. A command that
needs real processes, an installation or another machine is in ``RUN_ELSEWHERE`` with the test that runs it;
its options are parsed here when its program has a parser.
"""

import importlib
import re
import tomllib
from argparse import ArgumentParser
from contextlib import suppress

import click
import pytest
from flwr.cli.app import app as flwr_app
from packaging.requirements import Requirement
from typer.main import get_command

from fgl_app.cli.app import app as fgl_app
from fgl_app.config import config_keys, parse_config
from fgl_app.data.caches import release_datasets
from tests.doc_commands import ROOT, commands, inline_commands
from tests.in_process import fgl
from tests.placeholders import make_what_is_named, point_latest_at, values_of
from tests.project.test_docker import PARSERS

FEDERATION = "tests/deployment/test_federation.py"
DEPLOYMENT = "tests/deployment/test_runs.py"
DOCKER = "tests/project/test_docker.py"
FOLLOWED_UP = "test_up_ends_with_all_sites_online_and_the_next_command"
DIED = "test_one_shot_fgl_whose_server_died_in_the_synthesis_ends_as_in_simulation"
OUTLIVED = "test_a_run_outlives_its_sites_and_its_superlink"

# Patterns of the beginning of a command, and the test that runs it; for Docker, the tests of its parts.
RUN_ELSEWHERE = {
    r"make run": "tests/e2e/test_fgl_run.py::test_a_terminated_run_is_resumed_and_prints_its_results",
    r"flwr run \. --stream .*--run-config": "tests/e2e/test_fgl_run.py"
    "::test_flwr_run_uses_its_own_number_of_supernodes",
    r"flwr run \. .*num-supernodes": "tests/e2e/test_plug_in.py::test_the_fgl_example_learns",
    r"flwr run \. federation .*resume=true": f"{DEPLOYMENT}::{DIED}",
    r"flwr run \. federation": f"{DEPLOYMENT}::{OUTLIVED}",
    r"flwr supernode register": f"{FEDERATION}::{FOLLOWED_UP}",
    r"flower-(superlink|superexec|supernode)": f"{FEDERATION}::{FOLLOWED_UP}",
    r"make_keys\.sh": f"{FEDERATION}::test_a_supernode_that_trusts_another_authority_does_not_talk",
    r"fgl federation up": f"{FEDERATION}::{FOLLOWED_UP}",
    r"fgl federation (status|down)": f"{FEDERATION}"
    "::test_down_ends_all_of_it_and_nothing_else_and_up_goes_on",
    r"fgl run --federation \S+ --resume": f"{DEPLOYMENT}::{DIED}",
    r"fgl run --federation": f"{DEPLOYMENT}::{OUTLIVED}",
    r"docker run .* python example_sites.py": f"{DOCKER}::test_the_example_data_open_as_a_sites_data",
    r"docker build": f"{DOCKER}::test_the_image_installs_what_the_project_is_tested_with",
    r"docker compose .*\bflwr ": f"{DOCKER}::test_commands_in_the_readme_exist",
    r"docker compose": f"{DOCKER}::test_docker_compose_accepts_the_files",
    r"printf (FGL_UID|COMPOSE_FILE)=|cp \.env\.example ": f"{DOCKER}"
    "::test_the_site_of_its_own_takes_everything_from_its_environment",
    r"ssh -N ": f"{DOCKER}::test_only_the_door_for_sites_is_open_to_the_network",
}
# These values come last, so they win.
TINY_SET = ["images-per-class=2", "num-inference-steps=1", "synthesis-workers=1", "device=cpu"]
TINY = [
    *["synthetic-epochs=1", "local-epochs=1", "server-epochs=1", "batch-size=100", "image-size=32"],
    *["local-pretrain-epochs=1", "local-pretrain-min-steps=1", "auxiliary-size=30", "sampling-steps=1"],
    *["metric-samples=40", "evaluate-every=100", "num-clients=2"],
    *TINY_SET,
]
NEED_MORE = {"benchmarks.public_renders": "freetype"}
"""Modules that need a package of the extra `tools`."""
COMMANDS = commands()


def runner_of(text):
    return next((test for pattern, test in RUN_ELSEWHERE.items() if re.match(pattern, text)), None)


def config_of(words):
    """Return the validated config of a command."""
    return parse_config(values_of(words))


def kind_of(words):
    """Return what decides the code that a command runs: not the number of words, and no other value."""
    kind = (words[0], *sorted({word for word in words if word.startswith("--")}))
    if words[0] not in ("run", "check", "synthesize"):
        return kind
    config = config_of(words)
    return (*kind, config.method, config.dataset, config.generator)


def one_of_each_kind():
    """Return the longest command of each kind."""
    ours = [command for command in COMMANDS if command.program == "fgl" and not runner_of(command.text)]
    return list(
        {kind_of(each.words[1:]): each for each in sorted(ours, key=lambda each: each.words)}.values()
    )


def tiny(words):
    """Return what to add to a command of `fgl` that makes it tiny."""
    if "--resume" in words or "--help" in words or words[0] not in ("run", "synthesize"):
        return []
    if words[0] == "synthesize":
        return TINY_SET
    values = values_of(words)
    rounds = ["num-server-rounds=2"] if values.keys() & {"num-server-rounds", "method"} else []
    # The classifier of a preset is replaced, not the one of the command itself.
    small = [] if any(word.startswith("classifier=") for word in words) else ["classifier=cnn"]
    clients = {"num-clients=2"} if "--clients" in words else set()
    return [*(value for value in TINY if value not in clients), *rounds, *small]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, few_digits):
    """Change into a directory with a run."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_here("run", *TINY, "run-name=FIRST")
        yield folder


def run_here(*words, dies_after=None):
    result = fgl(*words, dies_after=dies_after)
    assert result.exit_code == (0 if dies_after is None else 1), f"fgl {' '.join(words)}\n{result.output}"


def prepare(words, generator):
    """Make what a command needs: data, models, the newest run."""
    if "--resume" in words:
        # Two uploads and two replies of the first round; the server dies in the second.
        run_here("run", *TINY, "num-server-rounds=3", dies_after=4)
        return
    make_what_is_named(words, generator)
    release_datasets()
    if words[0] == "synthesize" and "generator" in (values := values_of(words)):
        run_here("run", *TINY, f"generator={values['generator']}")
        return
    point_latest_at("FIRST")


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("command", one_of_each_kind(), ids=lambda command: command.text)
def test_each_kind_of_fgl_command_runs(command, tiny_generator):
    words = command.words[1:]
    prepare(words, tiny_generator)
    run_here(*words, *tiny(words))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_every_command_is_valid(command):
    if command.program == "fgl":
        check_fgl(command.words[1:])
        config_of(command.words[1:])
        return
    test = runner_of(command.text)
    check = CHECKS.get(command.program)
    assert test or check, (
        f"{command.file} has a command that nothing runs: {command.text}\n"
        "Give it a test and a line in RUN_ELSEWHERE that names it, or a check in CHECKS."
    )
    if check:
        check(list(command.words[1:]))


@pytest.mark.parametrize("name", sorted(set(RUN_ELSEWHERE.values())))
def test_the_tests_in_the_table_exist(name):
    file, _, function = name.partition("::")
    assert f"\ndef {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("pattern", RUN_ELSEWHERE)
def test_every_line_of_the_table_has_a_command(pattern):
    assert any(re.match(pattern, command.text) for command in COMMANDS)


@pytest.mark.parametrize("text", inline_commands())
def test_every_command_in_the_text_is_valid(text):
    for each in re.sub(r" \.\.\.$", "", text).split(" | "):
        words = each.split()
        check_fgl(words[1 if words[0] == "fgl" else 0 :])


# --- parsers


def parse(app, words):
    """Parse a command and its options with a command line of typer."""
    command = root = get_command(app)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    # The text can name a command without its operands.
    with suppress(click.exceptions.Exit, click.MissingParameter, click.exceptions.NoArgsIsHelpError):
        command.make_context("it", list(words), **root.context_settings).close()


def check_fgl(words):
    parse(fgl_app, words)
    keys = {word.partition("=")[0] for word in words if re.match(r"[a-z-]+=", word)}
    assert keys <= config_keys().keys(), f"unknown keys {keys - config_keys().keys()}"


def check_flwr(words):
    parse(flwr_app, words)


def check_make(words):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(words) <= set(targets)


def check_python(words):
    """Parse the options of a module with its own parser."""
    assert words[0] == "-m"
    if words[1] in NEED_MORE:
        pytest.importorskip(NEED_MORE[words[1]])
    module = importlib.import_module(words[1])

    class ParsedError(Exception):
        pass

    def parse_args(self, values=None, namespace=None):
        _, unknown = self.parse_known_args(words[2:])
        assert not unknown, f"{words[1]} has no option {unknown}"
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArgumentParser, "parse_args", parse_args)
        patch.setattr(ArgumentParser, "parse_intermixed_args", parse_args)
        with pytest.raises(ParsedError):
            module.main()


def check_pip(words):
    """Verify that the extras exist."""
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words[1:]:
        if "[" in word:
            asked = Requirement(word if word[0] != "." else f"fgl-app{word[1:]}").extras
            assert asked <= extras["optional-dependencies"].keys()
        elif not word.startswith("-"):
            assert (ROOT / word).is_file()


CHECKS = {
    "flwr": check_flwr,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    **{name: (lambda words, parser=parser: parser().parse_args(words)) for name, parser in PARSERS.items()},
}
