"""What work costs."""

import time

import pytest

from tlbook.course import clock


def test_the_seconds_of_a_call_are_the_median_without_the_first():
    calls = []

    def work():
        calls.append(0)
        time.sleep(0.3 if len(calls) == 1 else 0.01)

    assert 0.01 <= clock.seconds_of(work, least=0.05) < 0.1
    assert len(calls) >= 4


def test_joules_are_the_sum_over_processors_or_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "COUNTERS", tmp_path)
    assert clock.joules() is None
    for k, value in enumerate((1_500_000, 2_000_000)):
        (tmp_path / f"intel-rapl:{k}").mkdir()
        (tmp_path / f"intel-rapl:{k}" / "energy_uj").write_text(f"{value}\n")
    with clock.Meter() as cost:
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("5000000\n")
    assert cost.joules == pytest.approx(3.0) and cost.seconds > 0


def test_a_counter_that_may_not_be_read_or_begins_anew_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "COUNTERS", tmp_path)
    path = tmp_path / "intel-rapl:0" / "energy_uj"
    path.mkdir(parents=True)  # reading it is an OSError
    assert clock.joules() is None
    path.rmdir()
    path.write_text("9000000")
    with clock.Meter() as cost:
        path.write_text("1")
    assert cost.joules is None
