"""What doctor makes of a sample's costs, by figures worked out by hand, and of a plan."""

import math

import pyarrow as pa
import pytest

from urgency_ray.embedding.costs import Costs, estimate, spread


def costs(call_sec: list[float], *, decode: float, encode: float, rejected: int = 0) -> Costs:
    lost = {"too_short": rejected} if rejected else {}
    return Costs(call_sec, decode, encode, load_sec=1.0, written_bytes=1000, peak_bytes=2**30, rejected=lost)


def test_on_cpus_all_work_shares_them() -> None:
    # Two processes side by side: 60 s of audio in 3 s, 120 s in 4 s: 20 + 30 times real time on two CPUs, 200 on eight.
    measured = [costs([20.0, 40.0], decode=1.0, encode=2.0), costs([60.0, 60.0], decode=1.0, encode=3.0)]
    found = estimate(measured, 100, cpus=8, cpus_measured=2, gpus=0, start_sec=5.0)
    assert found is not None
    assert found.audio_sec_per_sec == pytest.approx(200.0)
    # 45 s in the mean, 100 calls: 1.25 hours in 22.5 s.
    assert found.audio_hours == pytest.approx(1.25)
    assert found.wall_sec == pytest.approx(27.5)
    assert found.written_bytes == pytest.approx(2000 / 4 * 100)
    # Deviations -25, -5, 15, 15: variance 1100 / 3, of the mean a quarter of it.
    error = 1.96 * math.sqrt(1100 / 3 / 4) * 100 / 3600
    assert found.audio_hours_interval == pytest.approx((1.25 - error, 1.25 + error))


def test_rejected_calls_are_read_and_are_no_audio() -> None:
    found = estimate([costs([30.0], decode=1.0, encode=2.0, rejected=2)], 300, cpus=1, cpus_measured=1, gpus=0, start_sec=0.0)
    assert found is not None
    assert found.audio_hours == pytest.approx(100 * 30 / 3600)


@pytest.mark.parametrize(("cpus", "gpus", "rate"), [(4, 1, 100.0), (4, 8, 240.0), (16, 8, 800.0)])
def test_with_gpus_the_slower_side_sets_the_pace(cpus: int, gpus: int, rate: float) -> None:
    # A CPU decodes 60 s of audio in a second, a GPU encodes 100.
    measured = [costs([300.0, 300.0], decode=10.0, encode=6.0)]
    found = estimate(measured, 10, cpus=cpus, cpus_measured=1, gpus=gpus, start_sec=0.0)
    assert found is not None
    assert found.audio_sec_per_sec == pytest.approx(rate)


def test_of_nothing_embedded_nothing_is_estimated() -> None:
    assert estimate([costs([], decode=1.0, encode=1.0, rejected=3)], 9, cpus=1, cpus_measured=1, gpus=0, start_sec=0.0) is None


def test_a_sample_is_spread_over_the_readable_calls_and_dealt_out() -> None:
    reasons = ["no_label" if row % 2 else None for row in range(20)]
    manifest = pa.table({"call_id": list(range(20)), "reason": pa.array(reasons, pa.string())})
    parts = [part["call_id"].to_pylist() for part in spread(manifest, 5, 2)]
    assert parts == [[0, 8, 16], [4, 12]]
    assert len(spread(manifest, 20, 99)) == 10
