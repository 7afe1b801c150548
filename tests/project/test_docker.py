"""The files of `docker/`, checked without a Docker engine."""

import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from flwr.cli.app import app as flwr_app
from flwr.cli.flower_config import read_superlink_connection
from flwr.common.config import parse_config_args
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_parser
from flwr.supercore.routers.health.router import router as health_router
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink as superlink_parser
from flwr.superlink.routers.control.router import router as control_router
from flwr.superlink.routers.fleet.router import router as fleet_router
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode_parser
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from typer.main import get_command

import fgl_app.launch.app_bundle

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE_FILES = ("compose.yml", "compose.server.yml", "compose.site.yml")
SITES = ("site-0", "site-1", "site-2")
PARSERS = {
    "flower-superlink": superlink_parser,
    "flower-superexec": superexec_parser,
    "flower-supernode": supernode_parser,
}


def _example_environment():
    lines = (DOCKER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _substitute(text):
    values = _example_environment()
    return re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", lambda found: values[found[1]], text)


def _load(name):
    """Read a compose file and merge the services with the ones that they extend."""
    content = yaml.safe_load(_substitute((DOCKER / name).read_text()))
    base = yaml.safe_load(_substitute((DOCKER / "base.yml").read_text()))["services"]
    for key, service in content["services"].items():
        extended = base[service.pop("extends")["service"]]
        # Compose merges mappings and lists; only volumes are in both.
        assert extended.keys() & service.keys() <= {"volumes"}
        volumes = [*extended.get("volumes", []), *service.get("volumes", [])]
        content["services"][key] = {**extended, **service, "volumes": volumes}
    return content


def _services(programs=("flower-superlink", "flower-superexec", "flower-supernode", "flwr", "nginx")):
    for name in COMPOSE_FILES:
        for key, service in _load(name)["services"].items():
            if _words(service)[0] in programs:
                yield pytest.param(service, id=f"{name}:{key}")


def _words(service):
    return [*service.get("entrypoint", []), *service.get("command", [])]


def _arguments(service):
    program, *words = _words(service)
    return PARSERS[program]().parse_args(words)


def _secrets(service):
    """Return the source of each secret by its path in the container."""
    secrets = [item if isinstance(item, dict) else {"source": item} for item in service["secrets"]]
    return {f"/run/secrets/{item.get('target', item['source'])}": item["source"] for item in secrets}


def _mounts(service):
    """Yield the target of each volume."""
    for volume in service["volumes"]:
        yield volume["target"] if isinstance(volume, dict) else volume.split(":")[1]


@pytest.mark.parametrize("service", _services())
def test_containers_are_confined(service):
    assert service["user"] == "1000:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    forbidden = {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode", "env_file"}
    assert not forbidden & service.keys()
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("service", _services(PARSERS))
def test_flower_knows_every_option(service):
    program, *words = _words(service)
    # argparse also accepts abbreviations.
    options = {word.split("=")[0] for word in words}
    assert options <= PARSERS[program]()._option_string_actions.keys()
    PARSERS[program]().parse_args(words)


@pytest.mark.parametrize("service", _services())
def test_every_file_that_is_named_is_mounted(service):
    text = str(_words(service)) + str(service.get("healthcheck", ""))
    if service["image"].startswith("nginx"):
        text = (DOCKER / "gate.conf").read_text()
    assert set(re.findall(r"/run/secrets/[\w.-]+", text)) <= _secrets(service).keys()
    assert set(re.findall(r"(?<=[='\"])/(?:state|data|outputs)\b", text)) <= set(_mounts(service))


def test_tls_and_the_authentication_of_sites_are_on():
    for name in ("compose.yml", "compose.server.yml"):
        superlink = _arguments(_load(name)["services"]["superlink"])
        assert superlink.enable_supernode_auth
        assert not superlink.insecure
        assert superlink.isolation == "process"
        assert "--insecure" not in (DOCKER / name).read_text() + (DOCKER / "base.yml").read_text()


def test_a_site_has_its_own_key_and_data_alone_and_reaches_nothing_but_the_gate():
    content = _load("compose.yml")
    services = content["services"]
    for number, name in enumerate(SITES):
        site = services[name]
        assert set(_secrets(site).values()) == {"ca.crt", name}
        models, data, state = site["volumes"]
        assert models == "./models:/models:ro"
        assert (data["source"], data["target"], data["read_only"]) == (f"./sites/{name}", "/data", True)
        assert state == f"{name}:/state"
        arguments = _arguments(site)
        assert parse_config_args([arguments.node_config]) == {
            "data-path": "/data",
            "state-path": "/state",
            "site-name": name,
            "partition-id": number,
            "num-partitions": len(SITES),
        }
        host = arguments.superlink.split(":")[0]
        (network,) = site["networks"]
        assert content["networks"][network] == {"internal": True}
        assert {key for key, other in services.items() if network in other["networks"]} == {name, host}
        assert host == "gate"
        assert Path(content["secrets"][name]["file"]).name == name


def test_the_site_of_its_own_takes_everything_from_its_environment():
    content = _load("compose.site.yml")
    values = _example_environment()
    arguments = _arguments(content["services"]["supernode"])
    assert arguments.superlink == values["FGL_SUPERLINK"]
    assert parse_config_args([arguments.node_config]) == {
        "data-path": "/data",
        "state-path": "/state",
        "site-name": values["FGL_SITE"],
        "partition-id": int(values["FGL_PARTITION_ID"]),
        "num-partitions": int(values["FGL_NUM_PARTITIONS"]),
    }
    assert content["secrets"]["site.key"]["file"] == f"./keys/{values['FGL_SITE']}"
    assert set(content["secrets"]) == {"ca.crt", "site.key"}


def test_only_the_door_for_sites_is_open_to_the_network():
    ports = {
        (name, key): service["ports"]
        for name in COMPOSE_FILES
        for key, service in _load(name)["services"].items()
        if "ports" in service
    }
    assert ports == {
        ("compose.server.yml", "superlink"): ["127.0.0.1:51001:8000"],
        ("compose.server.yml", "gate"): ["51000:8443"],
    }


def test_the_gate_passes_the_fleet_api_and_nothing_else():
    text = (DOCKER / "gate.conf").read_text()
    locations = re.findall(r"location (\S+) (?:(\S+) )?\{([^}]*)\}", text.replace("${", ""))
    passing = {}
    for first, second, body in locations:
        if "proxy_pass" in body:
            passing[(first, second)] = re.findall(r"proxy_pass (\S+);", body)
    fleet = ("~", r'"^/v1/fleet/(?<call>[a-z-]+)\z"')
    assert passing == {
        fleet: ["https://$superlink:8000/v1/fleet/$call"],
        ("=", "/health"): ["https://$superlink:8000/health"],
    }
    pattern = re.compile(fleet[1].strip('"').replace("?<", "?P<").replace(r"\z", r"\Z"))
    assert fleet_router.routes
    assert control_router.routes
    assert all(pattern.match(route.path) for route in fleet_router.routes)
    assert not any(pattern.match(route.path) for route in control_router.routes)


def test_addresses_and_ports_agree(monkeypatch, tmp_path):
    content = _load("compose.yml")
    services = content["services"]
    superlink = _arguments(services["superlink"])
    assert f"https://localhost:{superlink.port}/health" in str(services["superlink"]["healthcheck"])
    assert {route.path for route in health_router.routes} == {"/health"}
    superexec = _arguments(services["superexec"])
    assert superexec.runtime_api_address == f"superlink:{superlink.port}"
    assert superexec.health_server_address in str(services["superexec"]["healthcheck"])
    site = _arguments(services["site-0"])
    assert f"http://127.0.0.1:{site.port}/health" in str(services["site-0"]["healthcheck"])
    assert site.superlink == "gate:8443"
    assert "listen 8443 ssl;" in (DOCKER / "gate.conf").read_text()
    shutil.copy(DOCKER / "flwr.toml", tmp_path / "config.toml")
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    connection = read_superlink_connection()
    assert connection.address == superexec.runtime_api_address
    assert connection.root_certificates in _secrets(services["flwr"])
    assert not connection.insecure


def test_the_image_installs_what_the_project_is_tested_with():
    dockerfile = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["app"]]
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    installs = re.findall(r"pip install [^&\n]*", dockerfile)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in command for command in installs)
    (python,) = re.findall(r"ARG PYTHON_IMAGE=python:(\d+\.\d+\.\d+)-slim-bookworm\n", dockerfile)
    assert SpecifierSet(project["requires-python"]).contains(python)
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert "import stage_app" in dockerfile
    assert callable(fgl_app.launch.app_bundle.stage_app)


def test_the_build_context_holds_what_the_image_is_built_from_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


def test_commands_in_the_readme_exist():
    text = (DOCKER / "README.md").read_text()
    commands = get_command(flwr_app)
    quoted = re.findall(r"```\n(.*?)```|`([^`]+)`", text, re.DOTALL)
    found = re.findall(r"\bflwr (supernode )?([a-z]+)", "\n".join(a + b for a, b in quoted))
    assert {"register", "unregister", "run", "ls"} <= {name for _, name in found}
    for group, name in found:
        known = commands.commands["supernode"].commands if group else commands.commands
        assert name in known, f"flwr {group}{name}"
    assert set(re.findall(r"FGL_\w+", text)) <= _example_environment().keys()


def test_the_example_data_open_as_a_sites_data(tmp_path):
    from datasets import ClassLabel, load_dataset

    runpy.run_path(str(DOCKER / "example_sites.py"))["main"](tmp_path)
    sites = [load_dataset(str(tmp_path / name), cache_dir=tmp_path / "cache")["train"] for name in SITES]
    assert sum(map(len, sites)) == 4000
    assert all(isinstance(site.features["label"], ClassLabel) for site in sites)


def _compose():
    """Return the command of Docker Compose, or None if it is not installed."""
    if shutil.which("docker"):
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if done.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_docker_compose_accepts_the_files(name):
    compose = _compose()
    if compose is None:
        pytest.skip("Docker Compose is not installed")
    options = ["--env-file", ".env.example", "--file", name, "--profile", "operator"]
    command = [*compose, *options, "config", "--quiet"]
    done = subprocess.run(command, cwd=DOCKER, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_hadolint_finds_nothing():
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    command = ["hadolint", str(DOCKER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
