"""The datasets that a process keeps in memory."""

from __future__ import annotations

from fgl_app.data.partitions import load_client_data, partition
from fgl_app.data.sites import load_site_data
from fgl_app.data.sources import load_dataset, load_digits


def release_datasets() -> None:
    """Release the datasets that this process keeps in memory; the next call loads them again."""
    for function in (load_digits, load_dataset, partition, load_client_data, load_site_data):
        function.cache_clear()
