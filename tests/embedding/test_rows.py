"""What some rows have come to, in calls: an utterance is a share of its call."""

import pyarrow as pa

from urgency_ray.embedding.rows import Passed, count_passed

ROWS = pa.table(
    {
        "num_call_rows": pa.array([1, 1, 4, 4, 4], pa.int32()),
        "duration_sec": pa.array([10.0, None, 2.5, 0.5, None], pa.float32()),
        "status": ["embedded", "rejected", "embedded", "rejected", "rejected"],
        "reason": [None, "not_audio", None, "invalid_embedding", "not_audio"],
    }
)


def test_of_a_call_of_four_rows_each_is_a_quarter() -> None:
    # Of the call of four, one row has not come yet; a reject that was decoded has a duration, and is no embedded audio.
    assert count_passed(ROWS) == Passed(2.75, 12.5, {"not_audio": 1.25, "invalid_embedding": 0.25})


def test_of_no_rows_nothing_has_come() -> None:
    assert count_passed(ROWS.slice(0, 0)) == Passed(0.0, 0.0, {})
