"""A federation as far as it needs no Flower: its keys, its files, its plan, and whose processes are ended."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import datasets
import psutil
import pytest
import torch
from flwr.common.config import parse_config_args

from fgl_app.algorithms.types import LabeledImages
from fgl_app.cli.federation import split_arguments
from fgl_app.config import parse_config
from fgl_app.data.partitions import label_counts
from fgl_app.data.saving import encode_images
from fgl_app.data.sites import load_site_data
from fgl_app.federation.lifecycle import stop_federation
from fgl_app.federation.planning import open_or_plan, plan_federation
from fgl_app.federation.preparation import KEYS_SCRIPT, prepare_federation
from fgl_app.federation.state import FEDERATION_VARIABLE, ProcessRecord, read_federation
from fgl_app.federation.supernodes import node_config

IID = parse_config({"partitioning": "iid"})


def fgl(*arguments, cwd):
    command = [sys.executable, "-m", "fgl_app", "federation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


# --- the script that makes keys


def make_keys(*arguments, env=None):
    command = ["sh", str(KEYS_SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with an authority, a server's certificate and two sites' keys."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    for arguments in (
        ["authority"],
        ["server", "flower.example.org", "10.1.2.3", "::1"],
        ["site", "a", "b-1.x"],
    ):
        done = make_keys(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def test_private_files_are_their_owners_and_public_ones_are_everybodys(keys):
    modes = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in keys.iterdir()}
    private = dict.fromkeys(("ca.key", "server.key", "a", "b-1.x"), "600")
    assert modes == private | dict.fromkeys(("ca.crt", "server.crt", "a.pub", "b-1.x.pub"), "644")
    assert keys.stat().st_mode & 0o777 == 0o700


def test_the_servers_certificate_is_the_authoritys_and_names_its_hosts(keys):
    openssl(
        "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", keys / "ca.crt", keys / "server.crt"
    )
    names = openssl("x509", "-in", keys / "server.crt", "-noout", "-ext", "subjectAltName")
    assert "DNS:flower.example.org, IP Address:10.1.2.3, IP Address:0:0:0:0:0:0:0:1" in names
    # A leaf that could sign would be an authority of its own.
    assert "CA:FALSE" in openssl("x509", "-in", keys / "server.crt", "-noout", "-ext", "basicConstraints")


def test_a_sites_keys_are_a_pair_without_passphrase(keys):
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", keys / "a"], capture_output=True, text=True, check=True
    ).stdout
    assert derived.split()[:2] == (keys / "a.pub").read_text().split()[:2]
    assert derived.startswith("ecdsa-sha2-nistp384 ")


@pytest.mark.parametrize("arguments", [["authority"], ["server", "other"], ["site", "new", "a"]])
def test_nothing_is_overwritten(keys, arguments):
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    done = make_keys(keys, *arguments)
    assert done.returncode == 1
    assert "exists; remove it to create a new one" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


def test_a_renewed_certificate_is_trusted_by_those_who_have_the_authoritys(tmp_path):
    for arguments in (["authority"], ["server", "localhost"]):
        assert make_keys(tmp_path, *arguments).returncode == 0
    old = (tmp_path / "server.crt").read_text()
    for name in ("server.key", "server.crt"):
        (tmp_path / name).unlink()
    done = make_keys(tmp_path, "server", "localhost")
    assert "valid for 825 days" in done.stdout
    assert (tmp_path / "server.crt").read_text() != old
    openssl("verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "server.crt")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give a folder and one of authority, server, site"),
        (["DIR"], "give a folder and one of authority, server, site"),
        (["DIR", "everything"], "must be authority, server or site, got 'everything'"),
        (["DIR", "authority", "x"], "authority takes no further arguments"),
        (["DIR", "server"], "give the names and IP addresses"),
        (["DIR", "server", "superlink:9092"], "give the host without a port, got 'superlink:9092'"),
        (["DIR", "server", "a,DNS:evil"], "got 'a,DNS:evil'"),
        (["DIR", "site"], "give the name of the site"),
        (["DIR", "site", "../a"], "got '../a'"),
        (["DIR", "site", "ca.key"], "got 'ca.key'"),
        (["DIR", "site", "a b"], "got 'a b'"),
        (["DIR", "site", "a", "a"], "is given twice"),
    ],
)
def test_misuse_of_the_keys_script_exits_2_and_makes_nothing(tmp_path, arguments, sentence):
    done = make_keys(*[str(tmp_path / "keys") if word == "DIR" else word for word in arguments])
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[0]
    assert not (tmp_path / "keys").exists() or not list((tmp_path / "keys").iterdir())


def test_a_failure_of_the_keys_script_leaves_nothing_half_made(tmp_path):
    done = make_keys(tmp_path / "new", "server", "localhost")
    assert done.returncode == 1
    assert "create the authority first" in done.stderr
    assert not (tmp_path / "new").exists()
    assert make_keys(tmp_path, "authority").returncode == 0
    done = make_keys(tmp_path, "server", "1.2.3.4.5")
    assert done.returncode == 1
    assert "bad ip address" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"ca.key", "ca.crt"}


def test_the_keys_script_explains_itself():
    done = make_keys("--help")
    assert done.returncode == 0
    assert "ca.key          only the operator" in done.stdout


# --- the folder


@pytest.fixture
def federation(tmp_path):
    """A federation with keys and data that never ran; its folder's name has what needs quoting."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    return prepare_federation(plan_federation(folder, 2, IID, insecure=False).save(), lambda _: None)


def test_what_is_known_of_a_federation_is_in_its_file(federation):
    changed = federation.with_site("site-1", node_id="17").with_process(
        ProcessRecord(name="site-1", pid=1, create_time=2.5)
    )
    changed = changed.with_process(ProcessRecord(name="site-1", pid=2, create_time=3.5)).save()
    assert read_federation(federation.folder) == changed
    content = json.loads((federation.folder / "federation.json").read_text())
    assert content["sites"][1]["node_id"] == "17"
    assert content["processes"] == [{"name": "site-1", "pid": 2, "create_time": 3.5}]
    ports = {site["port"] for site in content["sites"]} | {federation.port}
    assert len(ports) == 3


def test_flower_finds_the_superlink_by_the_federations_home(federation):
    [connection] = [tomllib.loads((federation.home / "config.toml").read_text())["superlink"]]
    authority = federation.folder / "keys" / "ca.crt"
    assert connection == {
        "default": "fgl",
        "fgl": {"address": federation.address, "root-certificates": str(authority)},
    }
    assert authority.is_absolute()


def test_without_keys_flower_is_told_so(tmp_path):
    known = prepare_federation(plan_federation(tmp_path, 2, IID, insecure=True).save(), lambda _: None)
    connection = tomllib.loads((known.home / "config.toml").read_text())["superlink"]["fgl"]
    assert connection == {"address": known.address, "insecure": True}
    assert not known.keys.exists()


def test_a_supernode_is_told_its_part_and_its_folders(federation):
    # Read as Flower reads it.
    told = parse_config_args([node_config(federation, federation.site("site-1"))])
    folder = federation.folder / "site-1"
    assert told == {
        "partition-id": 1,
        "num-partitions": 2,
        "site-name": "site-1",
        "data-path": str(folder / "data"),
        "state-path": str(folder / "state"),
    }
    assert (folder / "state").is_dir()


def test_each_site_holds_its_own_part_of_the_training_set(federation):
    counts = []
    for site in federation.sites:
        data = datasets.load_dataset("parquet", data_files=str(federation.folder / site.data / "*.parquet"))[
            "train"
        ]
        assert data.features["label"].names[:2] == ["zero", "one"]
        assert data[0]["image"].size == (32, 32)
        counts.append([data["label"].count(label) for label in range(10)])
    assert counts == label_counts(IID, 2).tolist()


def test_the_sites_images_are_in_the_columns_that_the_config_names(tmp_path):
    labels = torch.tensor([0, 1] * 20)
    images = torch.randint(
        0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for split in ("train", "test"):
        content = encode_images(LabeledImages(images, labels), ["cat", "dog"], columns=("picture", "animal"))
        (tmp_path / f"{split}.parquet").write_bytes(content)
    values = {"dataset": str(tmp_path), "image-column": "picture", "label-column": "animal", "image-size": 8}
    config = parse_config({**values, "partitioning": "iid"})
    known = prepare_federation(plan_federation(tmp_path / "new", 2, config, insecure=True), lambda _: None)
    config = parse_config(known.run_config())
    sites = [str(known.folder / site.data) for site in known.sites]
    parts = [load_site_data(config, site, ("cat", "dog"), 1).train for site in sites]
    assert sorted(row.tobytes() for part in parts for row in part.images.numpy()) == sorted(
        row.tobytes() for row in images.numpy()
    )
    assert sum(part.labels.sum().item() for part in parts) == 20


def test_what_is_there_stays(federation):
    def content():
        return {path: path.read_bytes() for path in federation.folder.rglob("*") if path.is_file()}

    before = content()
    told = []
    assert prepare_federation(federation, told.append) == federation
    assert content() == before
    assert told == []


def test_a_site_with_new_keys_is_to_be_registered_again(federation):
    known = federation.with_site("site-0", node_id="1").with_site("site-1", node_id="2").save()
    for name in ("site-1", "site-1.pub"):
        (known.keys / name).unlink()
    known = prepare_federation(known, lambda _: None)
    assert [site.node_id for site in known.sites] == ["1", ""]
    assert read_federation(known.folder) == known


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"version": 2}', '{"version": 1, "id": "x"}'],
    ids=["cut", "list", "later", "less"],
)
def test_a_file_that_is_no_federation_is_told_in_a_sentence(tmp_path, content):
    (tmp_path / "federation.json").write_text(content)
    done = fgl("status", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: 'federation.json' cannot be read as a federation: ")
    assert done.stderr.count("\n") == 1


# --- the plan


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
def test_the_folder_is_told_from_config_values(arguments, folder, rest):
    assert split_arguments(arguments) == (Path(folder), rest)


@pytest.mark.parametrize(
    ("values", "sites", "expected"),
    [({}, None, 3), ({"num-clients": 4}, None, 4), ({}, 2, 2), ({"num-clients": 2}, 2, 2)],
)
def test_the_number_of_sites_is_the_one_asked_for(tmp_path, values, sites, expected):
    known = open_or_plan(tmp_path / "new", {"partitioning": "iid", **values}, sites, insecure=False)
    assert len(known.sites) == expected
    assert not (tmp_path / "new").exists()


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
        (["mine", "--sites", "3"], "the federation in 'mine' has 2 sites, got 3"),
        (["mine", "num-clients=4"], "the federation in 'mine' has 2 sites, got 4"),
        (["mine", "--insecure"], "the federation in 'mine' has TLS and keys, got --insecure"),
        (["mine", "seed=1"], "the sites in 'mine' hold data with seed=0, got seed=1"),
    ],
)
def test_bad_input_exits_2_with_one_sentence_and_makes_nothing(tmp_path, arguments, sentence):
    mine = tmp_path / "mine"
    mine.mkdir()
    plan_federation(mine, 2, IID, insecure=False).save()
    before = (mine / "federation.json").read_bytes()
    done = fgl("up", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "federation.json"]
    assert (mine / "federation.json").read_bytes() == before


@pytest.mark.parametrize("values", [{}, {"seed": 0}, {"num-clients": 2, "num-server-rounds": 4}])
def test_a_federation_that_is_there_is_taken_as_it_is(tmp_path, values):
    known = plan_federation(tmp_path, 2, IID, insecure=False).save()
    assert open_or_plan(tmp_path, values, None, insecure=False) == known


@pytest.mark.parametrize("command", ["status", "down"])
def test_commands_need_a_federation(tmp_path, command):
    done = fgl(command, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: there is no federation in 'federation'; `fgl federation up federation` creates one\n"
    )


# --- its processes


@pytest.fixture
def sleeper():
    """Return a function that starts a process in a session of its own."""
    started = []

    def start(**variables):
        process = subprocess.Popen(
            ["sleep", "600"], start_new_session=True, env={"PATH": os.defpath, **variables}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def record(name, process, seconds=0.0):
    created = psutil.Process(process.pid).create_time() + seconds
    return ProcessRecord(name=name, pid=process.pid, create_time=created)


def test_a_process_is_told_from_a_later_one_with_its_number(sleeper):
    process = sleeper()
    assert record("site-0", process).find() == psutil.Process(process.pid)
    assert record("site-0", process, seconds=-60).find() is None
    process.kill()
    # It has ended, though nobody has waited for it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    ended = ProcessRecord(
        name="site-0", pid=process.pid, create_time=psutil.Process(process.pid).create_time()
    )
    assert ended.find() is None


def test_only_a_federations_own_processes_are_ended(tmp_path, sleeper):
    known = plan_federation(tmp_path, 2, IID, insecure=True)
    ours, detached = (sleeper(**{FEDERATION_VARIABLE: known.id}) for _ in range(2))
    # The shell of somebody who speaks to this federation, and the process that has a dead one's number.
    shell, reused = sleeper(FLWR_HOME=str(known.home)), sleeper()
    known = known.with_process(record("superlink", ours)).with_process(record("site-0", reused, seconds=-60))
    known = stop_federation(known.save())
    assert [ours.wait(5), detached.wait(5)] == [-15, -15]
    assert [shell.poll(), reused.poll()] == [None, None]
    assert known.processes == ()
    assert read_federation(tmp_path) == known
    assert stop_federation(known) == known


def test_the_status_of_a_federation_that_is_down(federation):
    done = fgl("status", str(federation.folder), cwd=federation.folder.parent)
    assert done.returncode == 1
    title, _, *rows = done.stdout.splitlines()
    assert title == f"federation in {federation.folder}, on {federation.address}, with TLS and keys"
    names = ["superlink", "superexec", "site-0", "site-1"]
    assert [row.split() for row in rows[:2]] == [[x, "not", "running", f"logs/{x}.log"] for x in names[:2]]
    assert [row.split() for row in rows[2:]] == [
        [x, "not", "running", "unknown", f"logs/{x}.log"] for x in names[2:]
    ]
    done = fgl("down", str(federation.folder), cwd=federation.folder.parent)
    assert (done.returncode, done.stdout) == (0, "nothing was running\n")
