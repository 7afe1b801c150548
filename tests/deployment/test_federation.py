"""`fgl federation` with Flower's real processes, TLS and keys."""

import http.client
import re
import subprocess

import pytest

from fgl_app.federation.lifecycle import node_statuses
from fgl_app.federation.preparation import KEYS_SCRIPT
from fgl_app.launch.flower import free_ports, is_healthy, start
from fgl_app.launch.process_group import is_alive
from tests.deployment.conftest import LiveFederation

SITE_NAMES = ["site-0", "site-1", "site-2"]
NAMES = ["superlink", "superexec", *SITE_NAMES]


def statuses(live):
    """Return the status at the SuperLink of each site."""
    nodes = node_statuses(live.state)
    return {site.name: nodes[site.node_id] for site in live.state.sites}


def rows(text):
    """Return the rows of a printed table of processes by name."""
    return {
        words[0]: words[1:] for line in text.splitlines() if (words := line.split()) and words[0] in NAMES
    }


def test_up_ends_with_all_sites_online_and_the_next_command(federation):
    status = federation.command("status")
    assert status.returncode == 0, status.stdout + status.stderr
    pids = {name: str(federation.process(name).pid) for name in NAMES}
    assert rows(status.stdout) == {
        name: ["running", pids[name], *(["online"] if name in SITE_NAMES else []), f"logs/{name}.log"]
        for name in NAMES
    }
    # With nothing to start, the same command prints the same table and the next command.
    up = federation.command("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert rows(up.stdout) == rows(status.stdout)
    assert up.stdout.splitlines()[-1].endswith(f"fgl run --federation '{federation.folder}'")


def test_the_superlink_listens_on_the_loopback_interface_alone(federation):
    for name in ("superlink", *SITE_NAMES):
        listening = {c.laddr.ip for c in federation.process(name).net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}


def test_the_federation_is_nobody_elses(federation):
    def mode(path):
        return path.stat().st_mode & 0o777

    assert [mode(federation.folder), mode(federation.state.keys)] == [0o700, 0o700]
    for name in ("ca.key", "server.key", *SITE_NAMES):
        assert mode(federation.state.keys / name) == 0o600


def test_a_killed_supernode_is_seen_and_brought_back(federation):
    others = {name: federation.process(name) for name in NAMES if name != "site-1"}
    federation.process("site-1").kill()
    status = federation.command("status")
    assert status.returncode == 1
    # The SuperLink counts it as online for another minute.
    assert rows(status.stdout)["site-1"] == ["not", "running", "online", "logs/site-1.log"]
    assert rows(status.stdout)["site-0"][0] == "running"
    node_ids = [site.node_id for site in federation.state.sites]

    up = federation.command("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert (
        "site-1: the SuperLink still counts the previous process as online; trying again"
        in up.stdout.splitlines()
    )
    assert statuses(federation) == dict.fromkeys(SITE_NAMES, "online")
    assert {name: federation.process(name) for name in others} == others
    # The same key is the same node: a run continues with it.
    assert [site.node_id for site in federation.state.sites] == node_ids


# --- SuperNodes that are rejected


@pytest.fixture(scope="module")
def rejected(federation, tmp_path_factory):
    """Output of SuperNodes that try to join at the same time and fail, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("rejected")
    for arguments in (["authority"], ["site", "stranger"]):
        subprocess.run(["sh", str(KEYS_SCRIPT), str(folder), *arguments], check=True, capture_output=True)
    keys = federation.state.keys
    trust = ["--root-certificates", str(keys / "ca.crt")]
    key = "--auth-supernode-private-key"
    cases = {
        "unregistered key": [*trust, key, str(folder / "stranger")],
        "no key": trust,
        # With a registered key: only the certificate is wrong.
        "other authority": ["--root-certificates", str(folder / "ca.crt"), key, str(keys / "site-0")],
        "plain text": ["--insecure", "--max-retries", "1"],
    }
    before = node_statuses(federation.state)
    processes = {}
    for (case, options), port in zip(cases.items(), free_ports(len(cases)), strict=True):
        home = folder / case
        home.mkdir()
        arguments = ["--superlink", federation.state.address, "--port", str(port), *options]
        # A file: a helper process of the SuperNode would keep a pipe open.
        with (home / "log").open("w") as file:
            environment = federation.state.environment(home)
            processes[case] = start(environment, "flower-supernode", *arguments, stdout=file.fileno())
    assert {case: process.wait(timeout=240) for case, process in processes.items()} == dict.fromkeys(cases, 1)
    outputs = {case: (folder / case / "log").read_text() for case in cases}
    assert not any("SuperNode ID" in output for output in outputs.values())
    assert node_statuses(federation.state) == before
    return outputs


def test_a_supernode_with_an_unregistered_key_is_refused(federation, rejected):
    assert "Failed to activate SuperNode" in rejected["unregistered key"]
    assert "No SuperNode found with the given public key" in federation.log("superlink")


def test_a_supernode_without_a_key_is_refused(rejected):
    assert "SuperNode authentication is enabled" in rejected["no key"]


def test_a_supernode_that_trusts_another_authority_does_not_talk(rejected):
    assert "certificate verify failed" in rejected["other authority"]


def test_plain_text_gets_no_answer(federation, rejected):
    assert "Failed to initialize the connection to the SuperLink" in rejected["plain text"]
    connection = http.client.HTTPConnection("127.0.0.1", federation.state.port, timeout=10)
    connection.request("GET", "/health")
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()


# --- stop and restart


def test_down_ends_all_of_it_and_nothing_else_and_up_goes_on(federation):
    def kept():
        folders = [federation.state.keys, *(federation.folder / site.data for site in federation.state.sites)]
        return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}

    before, sites, address = kept(), federation.state.sites, federation.state.address
    assert len(before) == 4 + 2 * 3 + 3
    processes = [federation.process(name) for name in NAMES]
    # Each SuperNode has at least one SuperExec, which is also stopped.
    assert len(federation.processes()) >= len(processes) + 3
    # A user's shell in the federation's folder, with its FLWR_HOME.
    shell = subprocess.Popen(
        ["sleep", "600"],
        cwd=federation.folder,
        env={"PATH": "/usr/bin:/bin", "FLWR_HOME": str(federation.state.home)},
        start_new_session=True,
    )
    try:
        down = federation.command("down")
        assert (down.returncode, down.stdout) == (0, f"stopped: {', '.join(NAMES)}\n"), down.stderr
        assert federation.processes() == {}
        assert not any(map(is_alive, processes))
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()
    again = federation.command("down")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")
    assert federation.command("status").returncode == 1

    up = federation.command("up")
    assert up.returncode == 0, up.stdout + up.stderr
    # They left the SuperLink, so they join at once and are not registered again.
    assert not re.search("trying again|registered|certificates|images", up.stdout)
    assert kept() == before
    assert (federation.state.sites, federation.state.address) == (sites, address)
    assert statuses(federation) == dict.fromkeys(SITE_NAMES, "online")


# --- without TLS and keys


def test_without_keys_a_federation_runs_in_plain_text(tmp_path):
    live = LiveFederation(tmp_path / "insecure")
    try:
        up = live.command("up", "--insecure", "--sites", "2", "partitioning=iid")
        assert up.returncode == 0, up.stdout + up.stderr
        assert statuses(live) == {"site-0": "online", "site-1": "online"}
        assert not live.state.keys.exists()
        assert is_healthy(live.state.port)
    finally:
        assert live.command("down").returncode == 0
    assert live.processes() == {}
