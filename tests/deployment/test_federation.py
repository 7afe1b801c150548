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
    """What the SuperLink says of each site."""
    nodes = node_statuses(live.state)
    return {site.name: nodes[site.node_id] for site in live.state.sites}


def rows(text):
    """The lines of a printed table of processes, by name."""
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
    # With nothing to start, the same command says the same and ends with what to do.
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
    # The SuperLink takes a minute to miss it.
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
    # The same key is the same node: a run goes on with it.
    assert [site.node_id for site in federation.state.sites] == node_ids


# --- who may not join


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Folder with another authority and the keys of a site that is registered nowhere."""
    folder = tmp_path_factory.mktemp("strangers")
    for arguments in (["authority"], ["site", "stranger"]):
        subprocess.run(["sh", str(KEYS_SCRIPT), str(folder), *arguments], check=True, capture_output=True)
    return folder


def try_to_join(federation, home, *options):
    """Start a SuperNode, and return what it has said by its end; it must not get far."""
    [port] = free_ports(1)
    arguments = ["--superlink", federation.state.address, "--port", str(port), *options]
    known = node_statuses(federation.state)
    log = home / "supernode.log"
    # Its helper goes on for as long as it is not waited for, so no pipe that the helper holds is read.
    with log.open("w") as file:
        where = federation.state.environment(home)
        process = start(where, "flower-supernode", *arguments, stdout=file.fileno())
    assert process.wait(timeout=120) == 1
    said = log.read_text()
    assert "SuperNode ID" not in said
    assert node_statuses(federation.state) == known
    return said


def test_a_supernode_with_an_unregistered_key_is_refused(federation, strangers):
    trust = ["--root-certificates", str(federation.state.keys / "ca.crt")]
    key = ["--auth-supernode-private-key", str(strangers / "stranger")]
    said = try_to_join(federation, strangers, *trust, *key)
    assert "Failed to activate SuperNode" in said
    assert "No SuperNode found with the given public key" in federation.log("superlink")


def test_a_supernode_without_a_key_is_refused(federation, strangers):
    said = try_to_join(federation, strangers, "--root-certificates", str(federation.state.keys / "ca.crt"))
    assert "SuperNode authentication is enabled" in said


def test_a_supernode_that_trusts_another_authority_does_not_talk(federation, strangers):
    # With a registered key: it is the certificate that stops it.
    key = ["--auth-supernode-private-key", str(federation.state.keys / "site-0")]
    said = try_to_join(federation, strangers, "--root-certificates", str(strangers / "ca.crt"), *key)
    assert "certificate verify failed" in said


def test_plain_text_gets_no_answer(federation, strangers):
    said = try_to_join(federation, strangers, "--insecure", "--max-retries", "1")
    assert "Failed to initialize the connection to the SuperLink" in said
    connection = http.client.HTTPConnection("127.0.0.1", federation.state.port, timeout=10)
    connection.request("GET", "/health")
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()


# --- the end


def test_down_ends_all_of_it_and_nothing_else_and_up_goes_on(federation):
    def kept():
        folders = [federation.state.keys, *(federation.folder / site.data for site in federation.state.sites)]
        return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}

    before, sites, address = kept(), federation.state.sites, federation.state.address
    assert len(before) == 4 + 2 * 3 + 3
    leaders = [federation.process(name) for name in NAMES]
    # Each SuperNode has at least a SuperExec of its own, and they are ended too.
    assert len(federation.processes()) >= len(leaders) + 3
    # Somebody's shell that speaks to this federation, in its folder.
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
        assert not any(map(is_alive, leaders))
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()
    again = federation.command("down")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")
    assert federation.command("status").returncode == 1

    up = federation.command("up")
    assert up.returncode == 0, up.stdout + up.stderr
    # They said goodbye, so nobody waits for them to be missed, and nobody is registered anew.
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
