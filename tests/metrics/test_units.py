from datetime import UTC, datetime

import pytest

from fgl_app.metrics.units import format_bytes, format_duration, format_number, format_range, format_time


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),  # not "1000.0 KB"
        (44_700_000, "44.7 MB"),
        (1_000_000_000, "1.0 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_bytes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.42, "0.42 s"),
        (0.996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 0 s"),  # not "60.0 s"
        (185, "3 min 5 s"),
        (3599.6, "1 h 0 min"),  # not "60 min 0 s"
        (8040, "2 h 14 min"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_numbers_ranges_and_times():
    assert [format_number(value) for value in (5.361, 34.5, 123.9)] == ["5.36", "34.5", "124"]
    assert [format_range(values) for values in ([7, 7], [1200, 3])] == ["7", "3 to 1,200"]
    assert format_time(datetime(2026, 11, 21, 10, 15, 59, tzinfo=UTC)) == "2026-11-21 10:15 UTC"
