"""The command line in a new interpreter: entry point, imports, missing extra."""

import subprocess
import sys


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_does_not_import_heavy_libraries():
    code = (
        "import sys\nfrom fgl_app.cli import app as cli\n"
        "try:\n    cli.app(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'flwr', 'datasets', 'pydantic', 'ray'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "KEY=VALUE" in done.stdout
    assert "fgl config" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_missing_extra_is_an_error_with_the_command_that_installs_it():
    code = "import sys; sys.modules['diffusers'] = None; from fgl_app.__main__ import main; main()"
    done = python("-c", code)
    assert done.returncode == 1
    assert done.stderr == ("Error: `fgl` needs the extra 'app' of this package: pip install 'fgl-app[app]'\n")


def test_the_module_runs_the_command_line():
    done = python("-m", "fgl_app", "run", "seed=seven")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: config key 'seed' must be a valid integer, got 'seven'\n"
