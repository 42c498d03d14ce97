"""What extract.json counts is the same in whatever parts and order the rows come, and counted here another way."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urgency_ray.embedding import ledger
from urgency_ray.schema import MANIFEST_SCHEMA, embedding_schema

SCHEMA = embedding_schema(2, 1)
REASONS = ("too_short", "no_text", "silent_audio")


def make_rows(num_calls: int) -> list[dict[str, Any]]:
    """Calls of one to four utterances, a third of them rejected."""
    rng = np.random.default_rng(0)
    rows = []
    for call in range(num_calls):
        for place in range(int(rng.integers(1, 5))):
            row: dict[str, Any] = {"call_id": f"c{call}", "example_id": f"c{call}/{place}"}
            row |= {"provider_split": "unknown", "status": "embedded"}
            row |= {"duration_sec": float(rng.integers(1, 100)) / 8, "num_windows": int(rng.integers(1, 3))}
            row |= {"num_text_windows": int(rng.integers(1, 3)), "num_tokens_dropped": int(rng.integers(0, 2))}
            if rng.random() < 0.2:
                row |= {"num_letters": 10, "num_letter_errors": 3, "num_words": 4, "num_word_errors": 1}
            if rng.random() < 0.6:
                row |= {"status": "rejected", "reason": str(rng.choice(REASONS))}
            rows.append(row)
    return rows


def expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    used = [row for row in rows if row["status"] == "embedded"]
    saved = {row["call_id"] for row in used}
    first: dict[str, str] = {}
    for row in rows:  # they are made in the order of the calls, and of their utterances
        if row["call_id"] not in saved:
            first.setdefault(row["call_id"], row["reason"])
    compared = [row for row in rows if "num_words" in row]
    return {
        "calls_read": len({row["call_id"] for row in rows}),
        "calls_embedded": len(saved),
        "calls_rejected": len(first),
        "rejected_by_reason": dict(Counter(first.values())),
        "rows_embedded": len(used),
        "rows_rejected": len(rows) - len(used),
        "rows_rejected_by_reason": dict(Counter(row["reason"] for row in rows if "reason" in row)),
        "audio_sec": sum(row["duration_sec"] for row in used),
        "rows_windowed": sum(row["num_windows"] > 1 for row in used),
        "texts_windowed": sum(row["num_text_windows"] > 1 for row in used),
        "texts_truncated": sum(row["num_tokens_dropped"] > 0 for row in used),
        "tokens_dropped": sum(row["num_tokens_dropped"] for row in used),
        "rows_noted": 0,
        "rows_transcribed": 0,
        "calls_compared": len({row["call_id"] for row in compared}),
        "character_error_rate": 0.3,
        "word_error_rate": 0.25,
    }


def leave(folder: Path, rows: list[dict[str, Any]], *, num_files: int, name: str = "part") -> None:
    for number, part in enumerate(np.array_split(np.arange(len(rows)), num_files)):
        table = pa.Table.from_pylist([rows[place] for place in part], schema=SCHEMA)
        for status in ("embedded", "rejected"):
            place = folder / f"status={status}/{name}-{number}.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            some = table.filter(pa.compute.equal(table["status"], status)).drop_columns(["status"])
            pq.write_table(some, place, row_group_size=5)


def plan_of(num_calls: int) -> pa.Table:
    rows = [{"call_id": f"c{call}", "num_bytes": 1, "version": "1", "provider_split": "unknown"} for call in range(num_calls)]
    return pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)


@pytest.mark.parametrize("num_files", [1, 7])
def test_rows_are_counted_in_any_parts_and_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int) -> None:
    monkeypatch.setattr(ledger, "FILES_AT_ONCE", 3)
    rows = make_rows(60)
    shuffled = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    leave(tmp_path, shuffled, num_files=num_files)
    assert ledger.account(str(tmp_path), plan_of(60)).model_dump() == expected(rows)
    assert ledger.count_rows(pa.Table.from_pylist(shuffled, schema=SCHEMA)).model_dump() == expected(rows)


def test_what_does_not_add_up_is_said_with_its_number(tmp_path: Path) -> None:
    rows = make_rows(60)
    leave(tmp_path, rows, num_files=2)
    with pytest.raises(RuntimeError, match="2 planned calls have no row"):
        ledger.account(str(tmp_path), plan_of(62))
    unplanned = sum(row["call_id"] in ("c58", "c59") for row in rows)
    with pytest.raises(RuntimeError, match=f"{unplanned} rows in .* are of no planned call"):
        ledger.account(str(tmp_path), plan_of(58))
    leave(tmp_path, rows[2:5], num_files=1, name="again")
    with pytest.raises(RuntimeError, match="3 rows were written twice"):
        ledger.account(str(tmp_path), plan_of(60))
