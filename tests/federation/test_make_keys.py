"""The script that creates keys and certificates."""

import subprocess

import pytest

from fgl_app.federation.preparation import KEYS_SCRIPT


def make_keys(*arguments, env=None):
    command = ["sh", str(KEYS_SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with an authority, a server certificate and the keys of two sites."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    for arguments in (
        ["authority"],
        ["server", "flower.example.org", "10.1.2.3", "::1"],
        ["site", "a", "b-1.x"],
    ):
        done = make_keys(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def test_only_public_files_are_readable_by_others(keys):
    modes = {path.name: f"{path.stat().st_mode & 0o777:o}" for path in keys.iterdir()}
    private = dict.fromkeys(("ca.key", "server.key", "a", "b-1.x"), "600")
    assert modes == private | dict.fromkeys(("ca.crt", "server.crt", "a.pub", "b-1.x.pub"), "644")
    assert keys.stat().st_mode & 0o777 == 0o700


def test_the_authority_signed_the_servers_certificate_for_its_hosts(keys):
    openssl(
        "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", keys / "ca.crt", keys / "server.crt"
    )
    names = openssl("x509", "-in", keys / "server.crt", "-noout", "-ext", "subjectAltName")
    assert "DNS:flower.example.org, IP Address:10.1.2.3, IP Address:0:0:0:0:0:0:0:1" in names
    # A server certificate that can sign would be another authority.
    assert "CA:FALSE" in openssl("x509", "-in", keys / "server.crt", "-noout", "-ext", "basicConstraints")


def test_the_keys_of_a_site_are_a_pair_without_passphrase(keys):
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


def test_the_authority_signed_a_renewed_certificate(tmp_path):
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
def test_invalid_usage_exits_2_and_creates_nothing(tmp_path, arguments, sentence):
    done = make_keys(*[str(tmp_path / "keys") if word == "DIR" else word for word in arguments])
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[0]
    assert not (tmp_path / "keys").exists() or not list((tmp_path / "keys").iterdir())


def test_a_failure_leaves_no_partial_files(tmp_path):
    done = make_keys(tmp_path / "new", "server", "localhost")
    assert done.returncode == 1
    assert "create the authority first" in done.stderr
    assert not (tmp_path / "new").exists()
    assert make_keys(tmp_path, "authority").returncode == 0
    done = make_keys(tmp_path, "server", "1.2.3.4.5")
    assert done.returncode == 1
    assert "bad ip address" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"ca.key", "ca.crt"}


def test_the_help_lists_the_files():
    done = make_keys("--help")
    assert done.returncode == 0
    assert "ca.key          only the operator" in done.stdout
