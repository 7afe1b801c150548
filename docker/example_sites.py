"""Write example data for the three sites of compose.yml: the built-in digits under extreme label skew."""

import sys
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.data.partitions import load_client_data
from fgl_app.data.saving import save_images

SITES = 3


def main(folder: Path) -> None:
    """Write ``site-0/train.parquet`` and so on into ``folder``."""
    config = parse_config({})
    for number in range(SITES):
        data, source = load_client_data(config, number, SITES)
        save_images(data, source.class_names, folder / f"site-{number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
