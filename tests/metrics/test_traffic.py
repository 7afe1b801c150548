import pytest

from fgl_app.metrics.traffic import TrafficLedger


def test_totals_are_the_sums_over_phases_by_direction():
    ledger = TrafficLedger()
    ledger.record("setup", "downlink", 100)
    ledger.record("setup", "uplink", 7)
    ledger.record("setup", "uplink", 5)
    ledger.record("evaluate", "downlink", 1000)
    assert ledger.totals() == {"uplink": 12, "downlink": 1100}
    assert ledger.by_phase() == {
        "setup": {"uplink": 12, "downlink": 100, "uplink_messages": 2, "downlink_messages": 1},
        "evaluate": {"uplink": 0, "downlink": 1000, "uplink_messages": 0, "downlink_messages": 1},
    }


def test_phases_keep_the_order_of_their_first_messages():
    ledger = TrafficLedger()
    for phase in ("setup", "train", "evaluate", "train"):
        ledger.record(phase, "uplink", 1)
    assert list(ledger.by_phase()) == ["setup", "train", "evaluate"]


def test_an_empty_ledger_has_zero_totals():
    assert TrafficLedger().totals() == {"uplink": 0, "downlink": 0}
    assert TrafficLedger().by_phase() == {}


def test_by_phase_returns_a_copy():
    ledger = TrafficLedger()
    ledger.record("setup", "uplink", 1)
    ledger.by_phase()["setup"]["uplink"] = 99
    assert ledger.totals()["uplink"] == 1


@pytest.mark.parametrize(
    ("direction", "num_bytes", "message"),
    [("up", 1, "direction must be 'uplink' or 'downlink', got 'up'"), ("uplink", -1, "at least 0, got -1")],
)
def test_an_invalid_record_raises_and_counts_nothing(direction, num_bytes, message):
    ledger = TrafficLedger()
    with pytest.raises(ValueError, match=message):
        ledger.record("setup", direction, num_bytes)
    assert ledger.by_phase() == {}
