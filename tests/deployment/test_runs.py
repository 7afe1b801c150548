"""Runs on a federation of real processes have the results of simulations, also after crashes."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import torch
from safetensors.torch import load_file

from tests.deployment.conftest import FAULTS
from tests.deployment.runs import FEDDDPM, FGL, Run


def on_sites(federation, name, *arguments):
    place = ["--federation", str(federation.folder), f"run-name={name}", "device=cpu"]
    return Run(federation, name, *place, *arguments)


def resume(federation, run):
    place = ["--federation", str(federation.folder), "--resume", str(run.folder)]
    return Run(federation, run.folder.name, *place)


def of_run(federation, command):
    """Return the federation's processes of a command, such as the ServerApp."""
    return [psutil.Process(pid) for pid, line in federation.processes().items() if command in line]


def kill_server_app(federation):
    apps = of_run(federation, "flwr-serverapp")
    assert apps, "no ServerApp runs"
    for app in apps:
        app.kill()


def kill_site(federation, name):
    """Kill a site's SuperNode and its children, as a power failure does."""
    node = federation.process(name)
    for process in [*node.children(recursive=True), node]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def weights(run):
    (file,) = [*run.folder.glob("classifier/*.safetensors"), *run.folder.glob("diffusion/unet/*.safetensors")]
    return load_file(file)


def assert_equal(real, simulated):
    first, second = (json.loads((run.folder / "summary.json").read_text()) for run in (real, simulated))
    for key in ("accuracy", "loss", "frechet_distance", "num_clients", "num_prompts"):
        assert first.get(key) == second.get(key), key
    weights_of = weights(real), weights(simulated)
    assert all(torch.equal(weights_of[0][name], tensor) for name, tensor in weights_of[1].items())


def test_one_shot_fgl_whose_server_died_in_the_synthesis_ends_as_in_simulation(federation, simulated):
    run = on_sites(federation, "fgl", *FGL)
    shards = run.folder / "synthetic"
    run.wait_for(lambda: len(list(shards.glob("*.parquet"))) >= 1, "first shard")
    kill_server_app(federation)
    assert run.stop() == 130
    assert "fgl run --resume" in run.output()
    before = {file.name: file.stat().st_mtime_ns for file in shards.glob("*.parquet")}
    assert not (run.folder / "classifier").exists()

    started = time.time()
    again = resume(federation, run)
    code, summary = again.end()
    assert code == 0, again.output()
    assert summary["resumed_after_round"] == [0]
    lost = "the shard in work"
    FAULTS.append(("ServerApp in the synthesis, resumed", lost, again.when("resumed") - started))
    after = {file.name: file.stat().st_mtime_ns for file in shards.glob("*.parquet")}
    assert len(after) == 4
    assert {name: after[name] for name in before} == before, "a shard was made twice"
    assert_equal(again, simulated["fgl"])


def test_fedddpm_whose_server_died_in_a_round_ends_as_in_simulation(federation, simulated):
    run = on_sites(federation, "fedddpm", *FEDDDPM)
    run.wait_for(lambda: run.rounds() == [1] and of_run(federation, "flwr-clientapp"), "second round")
    kill_server_app(federation)
    assert run.stop() == 130
    started = time.time()
    again = resume(federation, run)
    code, summary = again.end()
    assert code == 0, again.output()
    assert summary["resumed_after_round"] == [1]
    FAULTS.append(("ServerApp in a round, resumed", "the round in work", again.when("resumed") - started))
    assert again.rounds() == [1, 2]
    assert_equal(again, simulated["fedddpm"])


def test_a_run_outlives_its_sites_and_its_superlink(federation):
    run = on_sites(federation, "faults", *FGL, "num-server-rounds=5", "local-epochs=1", "min-nodes=1")
    run.wait_for(lambda: of_run(federation, "flwr-clientapp"), "set-up")
    killed = time.time()
    kill_site(federation, "site-1")
    # It restarts while the server still waits for it, and takes part in the rounds.
    up = federation.command("up")
    assert up.returncode == 0, up.stdout + up.stderr
    FAULTS.append(("SuperNode, until it is back", "what it was doing", time.time() - killed))
    run.wait_for(lambda: len(run.rounds()) >= 2, "first round of training")
    FAULTS.append(("SuperNode in the set-up", "its upload", run.when("phase", phase="uploads") - killed))

    federation.process("superlink").kill()
    killed, seen = time.time(), len(run.rounds())
    assert federation.command("up").returncode == 0
    run.wait_for(lambda: len(run.rounds()) > seen, "round after the SuperLink was away")
    FAULTS.append(("SuperLink in a round", "nothing", run.when("round", round=seen + 1) - killed))

    killed, seen = time.time(), len(run.rounds())
    kill_site(federation, "site-2")
    code, summary = run.end()
    FAULTS.append(
        ("SuperNode in a round", "its part of the round", run.when("round", round=seen + 1) - killed)
    )
    assert code == 0, run.output()
    assert summary["rounds"] == 5
    lost = [(failure["phase"], failure["reason"]) for failure in summary["failures"]]
    assert [phase for phase, _ in lost][:1] == ["set-up"]
    assert any(phase.startswith("training round") for phase, _ in lost)
    assert all("Node Unavailable" in reason for _, reason in lost), lost
    # The restarted site has worked for the run.
    after = federation.log("site-1").rpartition("SuperNode ID")[2]
    assert len(re.findall("Sending: train message", after)) >= 3
    assert federation.command("up").returncode == 0


HOSTILE = """
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from fgl_app import client_app as honest
from flwr.clientapp import ClientApp

app = ClientApp()

def spoil(reply, which, number):
    content = reply.content
    name = "embeddings" if "embeddings" in content else "arrays"
    arrays = {key: array.numpy().copy() for key, array in content[name].items()}
    first = next(iter(arrays))
    metrics = dict(content["metrics"])
    if (which, number) == (1, 0):
        arrays["labels"][:] = 99
    elif (which, number) == (2, 0):
        arrays["prompt_embeds"][:] = float("nan")
    elif number == 1:
        arrays[first] = torch.zeros(75_000_000).numpy()
    elif (which, number) == (1, 2):
        arrays["more"] = arrays.pop(first)
    elif (which, number) == (2, 2):
        arrays[first][:] = float("inf")
    elif (which, number) == (1, 3):
        metrics["num-examples"] = -5
    elif (which, number) == (2, 3):
        metrics["num-examples"] = 10**12
    content[name] = ArrayRecord({key: Array(array) for key, array in arrays.items()})
    content["metrics"] = MetricRecord(metrics)
    return reply

def handle(message, context, handler, number):
    reply = handler(message, context)
    which = context.node_config["partition-id"]
    return spoil(reply, which, number) if which else reply

@app.query("embed")
def embed(message, context):
    return handle(message, context, honest.embed, 0)

@app.train()
def train(message, context):
    return handle(message, context, honest.train, message.content["config"]["server-round"])
"""
"""A ClientApp in which sites 1 and 2 send invalid replies in the set-up and in each round."""

LAUNCH = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from fgl_app import preflight
from fgl_app.cli.console import Mode
from fgl_app.cli.run import RunTarget, execute
from fgl_app.federation.state import read_federation
from fgl_app.launch.app_bundle import stage_app
from fgl_app.launch.config_sources import resolve_config

def stage(folder):
    stage_app(folder)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("fgl_app.client_app:app", "hostile:app"))
    (folder / "hostile.py").write_text(Path(sys.argv[2]).read_text())
    return folder

federation = read_federation(Path(sys.argv[1]))
config = resolve_config([], sys.argv[3:], None, Path.cwd(), datetime.now(UTC), base=federation.run_config())
preflight.check(config)
sys.exit(execute(config, RunTarget(home=federation.home), Mode.READABLE, stage))
"""


def test_a_hostile_site_is_rejected_by_name_and_harms_nobody(federation, tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    arguments = [*FGL, "num-server-rounds=4", "local-epochs=1", "min-nodes=1", "run-name=hostile"]
    command = [sys.executable, "-c", LAUNCH, str(federation.folder), str(tmp_path / "hostile.py"), *arguments]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=federation.folder.parent
        )
    peak = 0
    while process.poll() is None:
        for app in of_run(federation, "flwr-serverapp"):
            with suppress(psutil.Error):
                peak = max(peak, app.memory_info().rss)
        time.sleep(0.1)
    assert process.returncode == 0, log.read_text()
    summary = json.loads((federation.folder.parent / "outputs" / "hostile" / "summary.json").read_text())
    assert summary["rounds"] == 4
    rejected = {(i["site"], i["phase"]): i["reason"] for i in summary["rejected_uploads"]}
    assert "'labels' must be between 0 and 9, got 99" in rejected["site-1", "set-up"]
    assert "holds NaN or infinity" in rejected["site-2", "set-up"]
    assert "array '0.weight' is missing" in rejected["site-1", "training round 2"]
    assert "holds NaN or infinity" in rejected["site-2", "training round 2"]
    assert "got -5" in rejected["site-1", "training round 3"]
    assert "got 1000000000000" in rejected["site-2", "training round 3"]
    huge = sorted(failure["reason"] for failure in summary["failures"])
    assert [failure["phase"] for failure in summary["failures"]] == ["training round 1"] * 2
    for reason, site in zip(huge, ("site-1", "site-2"), strict=True):
        assert f"from site {site}, at most 64,000,000 are accepted" in reason
    # 0.9 GB for libraries and models, and up to four copies of one 300 MB reply; a second reply adds 1.2 GB.
    assert peak < 2.5e9, peak
