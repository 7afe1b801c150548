"""Every command of the documentation is run: here, or by the test that a table names.

`fgl` runs in this process at tiny size, with the data and models that a command names made beside it. What
needs real processes, an installation or another machine is in ``RUN_ELSEWHERE``, and its options are
parsed here where somebody's parser can be asked.
"""

import importlib
import re
import tomllib
from argparse import ArgumentParser
from contextlib import suppress

import click
import datasets
import pytest
import torch
from flwr.cli.app import app as flwr_app
from packaging.requirements import Requirement
from typer.main import get_command

from fgl_app.cli.app import app as fgl_app
from fgl_app.config import config_keys
from fgl_app.data import sources
from fgl_app.data.partitions import partition
from fgl_app.data.types import ImageDataset
from tests.doc_commands import ROOT, commands, inline_commands
from tests.in_process import fgl
from tests.placeholders import make_what_is_named, point_latest_at, values_of
from tests.unit.test_docker import PARSERS

FEDERATION = "tests/deployment/test_federation.py"
DEPLOYMENT = "tests/deployment/test_runs.py"
DOCKER = "tests/unit/test_docker.py"
FOLLOWED_UP = "test_up_ends_with_all_sites_online_and_the_next_command"
DIED = "test_one_shot_fgl_whose_server_died_in_the_synthesis_ends_as_in_simulation"
OUTLIVED = "test_a_run_outlives_its_sites_and_its_superlink"

# A pattern that a command begins with, and the test that runs it; of a command of Docker's the parts.
RUN_ELSEWHERE = {
    r"make run": "tests/e2e/test_fgl_run.py::test_one_command_runs_fgl_and_says_where_the_results_are",
    r"flwr run \. --stream .*--run-config": "tests/e2e/test_fgl_run.py"
    "::test_plain_flwr_run_works_with_its_own_number_of_supernodes",
    r"flwr run \. .*num-supernodes": "tests/e2e/test_plug_in.py::test_fgl_in_somebody_elses_project",
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
# Come last and win.
TINY_SET = ["images-per-class=2", "num-inference-steps=1", "synthesis-workers=1", "device=cpu"]
TINY = [
    *["synthetic-epochs=1", "local-epochs=1", "server-epochs=1", "batch-size=100", "image-size=32"],
    *["local-pretrain-epochs=1", "local-pretrain-min-steps=1", "auxiliary-size=30", "sampling-steps=1"],
    *["metric-samples=40", "evaluate-every=100"],
    *TINY_SET,
]
DIGITS_KEPT = 10
"""Every tenth of the built-in digits is there."""
NEED_MORE = {"benchmarks.public_renders": "freetype"}
"""Modules that need packages of the extra `tools`, and one of these packages."""
COMMANDS = commands()
OURS = [command for command in COMMANDS if command.program == "fgl"]


def runner_of(text):
    return next((test for pattern, test in RUN_ELSEWHERE.items() if re.match(pattern, text)), None)


def tiny(words):
    """Return what to add to a command of `fgl` that makes it tiny."""
    if "--resume" in words or "--help" in words or words[0] not in ("run", "synthesize"):
        return []
    if words[0] == "synthesize":
        return TINY_SET
    values = values_of(words)
    rounds = ["num-server-rounds=2"] if values.keys() & {"num-server-rounds", "method"} else []
    # A preset's, not one that the command itself asks for.
    small = [] if any(word.startswith("classifier=") for word in words) else ["classifier=cnn"]
    return [*TINY, *rounds, *small]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with two runs."""
    folder = tmp_path_factory.mktemp("docs")
    digits = sources.load_digits()
    some = [split.select(torch.arange(0, len(split), DIGITS_KEPT)) for split in (digits.train, digits.test)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sources, "load_digits", lambda: ImageDataset(*some, digits.class_names))
        # Not in the folder itself: what is cached there would be taken for the set's.
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        forget()
        for name in ("FIRST", "SECOND"):
            run_here("run", *TINY, f"run-name={name}")
        yield folder
    forget()


def forget():
    """Forget which data were loaded, and how they were split."""
    sources.load_dataset.cache_clear()
    partition.cache_clear()


def run_here(*words, dies_after=None):
    result = fgl(*words, dies_after=dies_after)
    assert result.exit_code == (0 if dies_after is None else 1), f"fgl {' '.join(words)}\n{result.output}"


def prepare(words, generator):
    """Make what a command needs to be there: data, models, the newest run."""
    forget()
    if "--resume" in words:
        # Five uploads, five replies of the first round; the second finds the server dead.
        run_here("run", *TINY, "num-server-rounds=3", dies_after=10)
        return
    make_what_is_named(words, generator)
    if words[0] == "synthesize" and "generator" in (values := values_of(words)):
        run_here("run", *TINY, f"generator={values['generator']}")
        return
    point_latest_at("FIRST")


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "command", [each for each in OURS if not runner_of(each.text)], ids=lambda command: command.text
)
def test_a_command_of_fgl_does_what_it_says(command, tiny_generator):
    words = command.words[1:]
    prepare(words, tiny_generator)
    run_here(*words, *tiny(words))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.text)
def test_every_other_command_is_run_by_a_test_or_parsed(command):
    if command.program == "fgl":
        check_fgl(command.words[1:])
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
def test_the_tests_that_are_named_exist(name):
    file, _, function = name.partition("::")
    assert f"\ndef {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("pattern", RUN_ELSEWHERE)
def test_no_line_of_the_table_is_left_over(pattern):
    assert any(re.match(pattern, command.text) for command in COMMANDS)


@pytest.mark.parametrize("text", inline_commands())
def test_a_command_in_the_text_is_one_of_fgls(text):
    for each in re.sub(r" \.\.\.$", "", text).split(" | "):
        words = each.split()
        check_fgl(words[1 if words[0] == "fgl" else 0 :])


# --- asking parsers


def parse(app, words):
    """Have a command line of typer read a command and its options."""
    command = root = get_command(app)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    # The text may name a command without its operands.
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
    """Have a module's own parser read its options."""
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
    """Look whether there are the extras that are asked for."""
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
