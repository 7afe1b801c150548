"""Write example data for the three sites of compose.yml: the built-in digits under extreme label skew."""

import sys
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.data.partitions import partition
from fgl_app.data.saving import save_images
from fgl_app.data.sources import config_dataset

SITES = 3


def main(folder: Path) -> None:
    """Write ``site-0/train.parquet`` and so on into ``folder``."""
    config = parse_config({})
    source = config_dataset(config)
    for number, indices in enumerate(partition(config, SITES)):
        save_images(source.train.select(indices), source.class_names, folder / f"site-{number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
