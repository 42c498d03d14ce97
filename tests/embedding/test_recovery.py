"""What earlier extracts left: whole calls that are still planned and say what they said stay, the rest goes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urgency_ray import storage
from urgency_ray.embedding.changes import digest_rows
from urgency_ray.embedding.ledger import account
from urgency_ray.embedding.recovery import Left
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.schema import MANIFEST_SCHEMA, WORD_ERROR_FIELDS, embedding_schema

MADE_BY = Fingerprint(audio_encoder={"name": "a"}, text_encoder={"name": "t"}, code_version="0.2.0")
SCHEMA = embedding_schema(2, 1, MADE_BY.model_dump())


def manifest_of(*call_ids: str, **known: Any) -> pa.Table:
    row = {"num_bytes": 1, "version": "1", "provider_split": "unknown", **known}
    return pa.Table.from_pylist([{**row, "call_id": call_id} for call_id in call_ids], schema=MANIFEST_SCHEMA)


def rows_of(*call_ids: str, **known: Any) -> pa.Table:
    row = {"provider_split": "unknown", "num_call_rows": 1, "source_version": "1", "status": "embedded", **known}
    return pa.Table.from_pylist([{"example_id": name, "call_id": name, **row} for name in call_ids], schema=SCHEMA)


def leave(run_dir: Path, status: str, *call_ids: str, name: str = "0", **known: Any) -> Path:
    place = run_dir / f"embeddings/status={status}/{name}.parquet"
    storage.write_table(str(place), rows_of(*call_ids, **known).drop_columns(["status"]))
    return place


def open_left(run_dir: Path, manifest: pa.Table) -> Left:
    left = Left(str(run_dir / "embeddings"), manifest)
    left.refuse_other(str(run_dir), MADE_BY)
    return left


def test_rejects_that_are_no_rows_any_more_are_dropped(tmp_path: Path) -> None:
    """Version 0.2.0 had a row for each file of a copy; a copy is one row now."""
    leave(tmp_path, "embedded", "c")
    place = leave(tmp_path, "rejected", "c#2", "c#3", reason="no_text")
    left = open_left(tmp_path, manifest_of("c", "c#2", "d"))
    assert sorted(left.current.to_pylist()) == ["c", "c#2"]
    assert not left.is_settled(left.current)
    left.keep(left.current)
    assert pq.read_table(place, partitioning=None)["call_id"].to_pylist() == ["c#2"]


def test_embeddings_of_calls_that_are_not_planned_are_refused_with_their_number(tmp_path: Path) -> None:
    leave(tmp_path, "embedded", "c", "x", "y")
    with pytest.raises(RequestError, match=r"embeddings of 3 calls, 2 of which are there no more, .* \(x, say\)"):
        open_left(tmp_path, pa.concat_tables([manifest_of("c"), manifest_of("y", reason="missing_audio")]))


def test_a_call_whose_stem_names_two_now_is_no_call_that_is_gone(tmp_path: Path) -> None:
    leave(tmp_path, "embedded", "c", "d")
    left = open_left(tmp_path, manifest_of("d", "north:c", "south:c"))
    assert left.current.to_pylist() == ["d"]


@pytest.mark.parametrize("new", [{"version": "2"}, {"provider_split": "training"}, {"region": "서울"}])
def test_of_files_that_changed_the_content_decides(tmp_path: Path, new: Any) -> None:
    place = leave(tmp_path, "embedded", "c", "d", text="불이 났어요", audio_sha256="0a")
    left = open_left(tmp_path, manifest_of("c", "d", **new))
    assert (left.current.to_pylist(), left.doubtful.to_pylist()) == ([], ["c", "d"])
    found = [rows_of("c", text="불이 났어요", audio_sha256="0a"), rows_of("d", text="불이 났어요", audio_sha256="0b")]
    same = left.unchanged(digest_rows(pa.concat_tables(found)))
    assert same.to_pylist() == ["c"]
    left.keep(same)
    kept = pq.read_table(place, partitioning=None)
    renamed = {"source_version" if name == "version" else name: value for name, value in new.items()}
    expected = rows_of("c", text="불이 났어요", audio_sha256="0a", **renamed).drop_columns(["status"])
    assert kept.equals(expected)
    assert Fingerprint.of_schema(kept.schema) == MADE_BY
    assert open_left(tmp_path, manifest_of("c", "d", **new)).current.to_pylist() == ["c"]


def test_the_rows_of_a_call_are_compared_together_wherever_they_lie(tmp_path: Path) -> None:
    row: dict[str, Any] = {"num_call_rows": 2, "call_id": "c"}
    leave(tmp_path, "embedded", "c/0000", **row)
    leave(tmp_path, "rejected", "c/0001", reason="too_short", **row)
    left = open_left(tmp_path, manifest_of("c", version="2"))
    first, second = rows_of("c/0000", **row), rows_of("c/0001", reason="too_short", **row)
    assert left.unchanged(digest_rows(pa.concat_tables([second, first]))).to_pylist() == ["c"]
    assert left.unchanged(digest_rows(first)).to_pylist() == []
    other = rows_of("c/0001", reason="no_text", **row)
    assert left.unchanged(digest_rows(pa.concat_tables([first, other]))).to_pylist() == []


def test_a_call_that_lacks_a_row_is_not_kept(tmp_path: Path) -> None:
    leave(tmp_path, "embedded", "c/0000", num_call_rows=2, call_id="c")
    left = open_left(tmp_path, manifest_of("c"))
    assert len(left.current) == len(left.doubtful) == 0


def test_what_may_be_mended_is_looked_at_again_and_what_its_bytes_say_is_not(tmp_path: Path) -> None:
    leave(tmp_path, "rejected", "locked", reason="unreadable_file")
    leave(tmp_path, "rejected", "silent", reason="silent_audio", name="1")
    left = open_left(tmp_path, manifest_of("locked", "silent"))
    assert (left.current.to_pylist(), left.doubtful.to_pylist()) == (["silent"], ["locked"])


def test_what_planning_rejects_stays_as_long_as_it_does_so_for_that(tmp_path: Path) -> None:
    place = leave(tmp_path, "rejected", "c", "d", reason="missing_label", detail="no JSON has this stem")
    hint = {"reason": "missing_label", "detail": "no JSON has this stem; c-.json differs by a mark alone"}
    left = open_left(tmp_path, pa.concat_tables([manifest_of("c", **hint), manifest_of("d", version="1 1")]))
    assert (left.current.to_pylist(), left.doubtful.to_pylist()) == (["c"], ["d"])
    left.keep(left.current)
    assert pq.read_table(place, partitioning=None)["detail"].to_pylist() == [hint["detail"]]
    leave(tmp_path, "embedded", "e")
    left = open_left(tmp_path, manifest_of("e", reason="ambiguous_stem", detail="two"))
    assert len(left.current) == len(left.doubtful) == 0


def test_what_made_the_rows_is_compared(tmp_path: Path) -> None:
    leave(tmp_path, "embedded", "c")
    left = open_left(tmp_path, manifest_of("c"))
    other = MADE_BY.model_copy(update={"audio_encoder": {"name": "b"}})
    assert left.is_by(MADE_BY) and not left.is_by(other)
    with pytest.raises(RequestError, match=r"audio_encoder\.name: a there, b here"):
        left.refuse_other(str(tmp_path), other)


def test_rows_of_before_there_was_a_transcriber_are_counted_and_compared(tmp_path: Path) -> None:
    known: dict[str, Any] = {"text": "불이 났어요", "duration_sec": 2.0, "num_windows": 1, "num_tokens_dropped": 0}
    place = leave(tmp_path, "embedded", "c", "d", num_text_windows=1, **known)
    table = pq.read_table(place, partitioning=None)
    newer = ["text_source", *(field.name for field in WORD_ERROR_FIELDS)]
    pq.write_table(table.drop_columns(newer), place)
    counts = account(str(tmp_path / "embeddings"), manifest_of("c", "d"))
    assert (counts.calls_embedded, counts.audio_sec, counts.rows_transcribed, counts.word_error_rate) == (2, 4.0, 0, None)
    left = open_left(tmp_path, manifest_of("c", "d", version="2"))
    found = pa.concat_tables([rows_of("c", text_source="label", **known), rows_of("d", **known | {"text": "네"})])
    assert left.unchanged(digest_rows(found)).to_pylist() == ["c"]


def test_errors_are_counted_over_all_calls_whatever_their_length(tmp_path: Path) -> None:
    known: dict[str, Any] = {"text_source": "transcriber", "duration_sec": 2.0}
    leave(tmp_path, "embedded", "c", num_letters=90, num_letter_errors=9, num_words=30, num_word_errors=3, **known)
    wrong = {"num_letters": 10, "num_letter_errors": 10, "num_words": 2, "num_word_errors": 3}
    leave(tmp_path, "rejected", "d", reason="no_text", name="1", **wrong, **known)
    leave(tmp_path, "embedded", "e", name="2", **known)
    counts = account(str(tmp_path / "embeddings"), manifest_of("c", "d", "e"))
    assert (counts.rows_transcribed, counts.calls_compared) == (3, 2)
    assert (counts.character_error_rate, counts.word_error_rate) == (0.19, 0.1875)
    assert counts.transcript_line() == "3 rows transcribed; against the labels of 2 calls, CER 19.0 % and WER 18.8 %"
