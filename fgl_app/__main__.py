"""`fgl`, or `python -m fgl_app`: the command line."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or exit with an error if the extra 'app' is not installed."""
    # Typer alone is no evidence of the extra: Flower installs it too.
    if find_spec("diffusers") is None:
        sys.exit("Error: `fgl` needs the extra 'app' of this package: pip install 'fgl-app[app]'")
    from fgl_app.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
