"""`fgl`, or `python -m fgl_app`: the command line, or a word on what it lacks."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from fgl_app.cli import main as run
    except ModuleNotFoundError as error:
        sys.exit(f"Error: `fgl` needs {error.name}, which is not installed: pip install 'fgl-app[app]'")
    run()


if __name__ == "__main__":
    main()
