"""`fgl`, or `python -m fgl_app`: the command line, or a word on what it lacks."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line."""
    # Flower brings enough for the first lines of help, and no more.
    if find_spec("diffusers") is None:
        sys.exit("Error: `fgl` needs the extra 'app' of this package: pip install 'fgl-app[app]'")
    from fgl_app.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
