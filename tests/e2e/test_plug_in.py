"""The wheel in an environment of its own; on it, through Flower and Ray, the app of hub/ and the examples."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "#!{python}\nimport sys\nfrom {module} import {name}\nsys.exit({name}())\n"


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory):
    """Return the Python of an environment with the wheel and the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # Use the installed build tools and fetch no others.
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, ROOT], check=True)
    venv.create(folder / "venv", symlinks=True)
    bin_folder = folder / "venv" / "bin"
    python = bin_folder / "python"
    (wheel,) = folder.glob("fgl_app-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", wheel], check=True)
    (own,) = (folder / "venv").glob("lib/python*/site-packages")
    # It comes last, and .pth files in it, such as that of an editable install, are not read.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for entry in distribution("flwr").entry_points:
        if entry.group == "console_scripts":
            script = bin_folder / entry.name
            script.write_text(SCRIPT.format(python=python, module=entry.module, name=entry.attr))
            script.chmod(0o755)
    return python


@pytest.fixture
def flwr_run(wheel_python, flower_home, tmp_path):
    """Run a copy of a project by `flwr run`, and return a result file of the run."""
    env = flower_home | {"PATH": f"{wheel_python.parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)

    def run(project, nodes, result, **changes):
        folder = tmp_path / project.name
        shutil.copytree(project, folder)
        values = [f"{key.replace('_', '-')}={value}" for key, value in changes.items()]
        command = [wheel_python.parent / "flwr", "run", ".", "--stream", "--run-config", " ".join(values)]
        command += ["--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"]
        done = subprocess.run(
            command, cwd=folder, env=env, timeout=500, capture_output=True, text=True, check=False
        )
        # Flower exits with 0 also when a run fails.
        assert result.is_file(), done.stdout + done.stderr
        return json.loads(result.read_text())

    return run


@pytest.fixture
def run_example(flwr_run, tmp_path):
    """Run an example, and return what it wrote."""
    result = tmp_path / "result.json"
    return lambda name, nodes, **changes: flwr_run(
        ROOT / "examples" / name, nodes, result, result_file=f"'{result}'", **changes
    )


@pytest.mark.slow
def test_the_environment_runs_the_wheel(wheel_python, tmp_path):
    code = "import fgl_app.models.generators as g; print(fgl_app.__file__, g.embedded_generator())"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    places = subprocess.run(
        [wheel_python, "-c", "import fgl_app\n" + code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(places) == 2
    assert all(Path(place).is_relative_to(wheel_python.parents[1]) for place in places)


@pytest.mark.slow
def test_the_app_of_the_hub_runs_on_the_wheel(flwr_run, tmp_path):
    tiny = {"images_per_class": 5, "num_inference_steps": 2, "synthetic_epochs": 1}
    summary = flwr_run(
        ROOT / "hub",
        2,
        tmp_path / "run" / "summary.json",
        output_dir=f"'{tmp_path}'",
        run_name="'run'",
        partitioning="'iid'",
        **tiny,
    )
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 2
    assert summary["num_synthetic_images"] == 50


@pytest.mark.slow
def test_the_fgl_example_learns(run_example):
    result = run_example("plug_in_fgl", 5, num_server_rounds=2, images_per_class=100)
    # Untrained; after the synthetic digits; after a round on private digits (one or two classes per client).
    assert result["0"]["accuracy"] < 0.3
    assert result["1"]["accuracy"] > 0.7
    assert result["2"]["accuracy"] > 0.7


@pytest.mark.slow
def test_the_fedddpm_example_learns(run_example):
    result = run_example("plug_in_fedddpm", 2, num_server_rounds=2, auxiliary_size=40)
    assert result["1"] == result["0"]
    # Noise has a mean square of 1.
    assert result["2"]["loss"] < 0.5 < result["1"]["loss"]
