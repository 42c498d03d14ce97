"""The stage that writes words down: which rows get them, what is counted, what is rejected."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from call_files import put
from numpy.typing import NDArray
from tone_speller import RATE_HZ, speak, wav_of

from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import Config, TranscriberConfig
from urgency_ray.embedding import transcription
from urgency_ray.embedding.changes import digest_calls, digest_rows
from urgency_ray.embedding.stages import DECODED_SCHEMA, EncodeAudio, EncodeText, decode_calls
from urgency_ray.embedding.transcription import Transcribe

pytestmark = pytest.mark.usefixtures("one_thread")


def put_call(root: Path, stem: str, said: str, *, sound: NDArray[np.float32] | None = None, **label: Any) -> None:
    """A recording of what is said, and its label, but for what is None of that."""
    put(root / f"{stem}.wav", wav_of(speak(said) if sound is None else sound))
    fields = {"urgencyLevel": "상"} | {name: value for name, value in label.items() if value is not None}
    put(root / f"{stem}.json", json.dumps(fields, ensure_ascii=False).encode())


def turns(*said: tuple[str | None, int, int]) -> list[dict[str, Any]]:
    return [
        {"startAt": start, "endAt": end, "speaker": index % 2} | ({} if text is None else {"text": text})
        for index, (text, start, end) in enumerate(said)
    ]


def transcribe(root: Path, speller: str, use: str, **fields: Any) -> dict[str, dict[str, Any]]:
    """The rows of all calls below a folder, by example_id, as they come out of the stage."""
    config = Config().replace({"data.root": str(root), "transcriber.name": speller, "transcriber.use": use} | fields)
    decoded = decode_calls(plan_calls(config.reading), config.reading, config.transcriber.used_for)
    table = Transcribe(config.transcriber, config.data.require_text, "cpu", 1)(decoded)
    assert table.schema.equals(DECODED_SCHEMA)
    return {row["example_id"]: row for row in table.to_pylist()}


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    put_call(tmp_path, "worded", "가나 다라", utterances=turns(("가마 다라", 0, 1000)))
    put_call(tmp_path, "masked", "마바 가", utterances=turns(("***[개인정보]", 0, 1000)))
    put_call(tmp_path, "textless", "나나 다", utterances=turns((None, 0, 1000)))
    put_call(tmp_path, "no_turns", "다다 다")
    put_call(tmp_path, "mute", "", sound=(1e-3 * np.random.default_rng(0).standard_normal(RATE_HZ)).astype(np.float32))
    put(tmp_path / "alone.wav", wav_of(speak("라마 바바")))
    return tmp_path


def test_what_has_no_words_gets_them_and_what_has_some_keeps_them(calls: Path, speller: str) -> None:
    rows = transcribe(calls, speller, "missing", **{"data.require_urgency": False})
    assert {name: (row["text"], row["text_source"]) for name, row in rows.items() if row["reason"] is None} == {
        "worded": ("가마 다라", "label"),
        "masked": ("마바 가", "transcriber"),
        "textless": ("나나 다", "transcriber"),
        "no_turns": ("다다 다", "transcriber"),
        "alone": ("라마 바바", "transcriber"),
    }
    assert (rows["mute"]["status"], rows["mute"]["reason"], rows["mute"]["detail"]) == (
        "rejected",
        "no_text",
        "the transcriber heard no words",
    )
    assert all(row["num_words"] is None for row in rows.values())


def test_a_label_that_must_say_the_urgency_still_must(calls: Path, speller: str) -> None:
    row = transcribe(calls, speller, "missing")["alone"]
    assert (row["reason"], row["detail"]) == ("missing_label", "no label says its urgency")


def test_always_replaces_the_words_and_counts_what_is_wrong_with_them(calls: Path, speller: str) -> None:
    rows = transcribe(calls, speller, "always", **{"data.require_urgency": False})
    assert (rows["worded"]["text"], rows["worded"]["text_source"]) == ("가나 다라", "transcriber")
    counts = [rows["worded"][name] for name in ("num_letters", "num_letter_errors", "num_words", "num_word_errors")]
    assert counts == [4, 1, 2, 1]
    assert all(row["num_letters"] is None for name, row in rows.items() if name != "worded")


def test_where_no_words_are_required_none_are_no_reject(calls: Path, speller: str) -> None:
    row = transcribe(calls, speller, "missing", **{"data.require_text": False})["mute"]
    assert (row["status"], row["text"]) == ("embedded", "")


def test_each_utterance_gets_what_is_said_in_its_span(tmp_path: Path, speller: str) -> None:
    # 0.2 s a letter, a blank is one, after 0.08 s: the second utterance is the second word.
    spans = ((None, 0, 880), ("라라라", 880, 1480))
    put_call(tmp_path, "a", "가나다 라마바 가", utterances=turns(*spans))
    rows = transcribe(tmp_path, speller, "missing", **{"data.unit": "utterance"})
    assert [(row["text"], row["text_source"]) for row in rows.values()] == [("가나다", "transcriber"), ("라라라", "label")]
    rows = transcribe(tmp_path, speller, "always", **{"data.unit": "utterance"})
    assert [row["text"] for row in rows.values()] == ["가나다", "라마바"]
    (row,) = transcribe(tmp_path, speller, "always", **{"data.unit": "utterance", "data.speakers": "caller"}).values()
    assert row["example_id"] == "a/0000"
    assert row["text"] == "라마바"


class FakeTranscriber:
    """Says what it is told to, and keeps how much it was given at once."""

    sample_rate_hz = 16_000

    def __init__(self, says: Callable[[int], str | None]) -> None:
        self.says = says
        self.lengths: list[list[int]] = []

    def transcribe(self, waveforms: Sequence[NDArray[np.float32]]) -> list[str | None]:
        self.lengths.append([len(waveform) for waveform in waveforms])
        return [self.says(number) for number in range(len(waveforms))]


def test_what_it_says_is_cleaned_as_labels_are_and_nan_is_a_reject(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTranscriber(lambda number: None if number == 0 else "(웃음)  불이 [noise] 났어요")
    monkeypatch.setattr(transcription, "load_transcriber", lambda config, device: fake)
    rows = transcribe(calls, "fake", "always", **{"data.require_urgency": False})
    assert [row["reason"] for row in rows.values()].count("invalid_embedding") == 1
    assert {row["text"] for row in rows.values() if row["reason"] is None} == {"불이 났어요"}
    assert len(fake.lengths) == 1


def test_a_batch_that_needs_no_words_does_not_ask_for_any(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcription, "load_transcriber", lambda config, device: FakeTranscriber(lambda _: 1 / 0))  # type: ignore[arg-type,return-value]
    for path in calls.iterdir():
        if path.stem != "worded":
            path.unlink()
    assert transcribe(calls, "fake", "missing")["worded"]["text"] == "가마 다라"


@pytest.mark.parametrize("use", ["missing", "always"])
def test_files_that_say_the_same_have_the_same_digest_whatever_was_written_down(calls: Path, speller: str, use: Any) -> None:
    config = Config().replace({"data.root": str(calls), "transcriber.name": speller, "transcriber.use": use})
    plan = plan_calls(config.reading)
    hear, read = EncodeAudio(config.audio_encoder, "cpu", 1), EncodeText(config.text_encoder, "cpu", 1, None, lambda _: None)
    write = Transcribe(config.transcriber, True, "cpu", 1)

    def made() -> pa.Table:
        rows: pa.Table = read(hear(write(decode_calls(plan, config.reading, use))))
        return rows.filter(pa.compute.not_equal(rows["call_id"], "mute"))

    def digests(table: pa.Table) -> dict[str, int]:
        return {row["call_id"]: row["digest"] for row in table.to_pylist() if row["call_id"] != "mute"}

    rows = made()
    assert digests(digest_rows(rows)) == digests(digest_calls(plan, config.reading, use))
    # Rows of before there was a transcriber do not say where their words come from.
    if use == "missing":
        worded = rows.filter(pa.compute.equal(rows["call_id"], "worded"))
        position = worded.schema.get_field_index("text_source")
        old = worded.set_column(position, "text_source", pa.nulls(1, pa.string()))
        assert digests(digest_rows(old)) == digests(digest_rows(worded))
    put_call(calls, "no_turns", "다다 가")
    changed = digests(digest_calls(plan, config.reading, use))
    assert {name for name, digest in digests(digest_rows(rows)).items() if changed[name] != digest} == {"no_turns"}


def test_a_name_that_is_not_used_is_not_loaded() -> None:
    assert not TranscriberConfig(name="no/such/folder", use="never").is_used
    assert TranscriberConfig(name="no/such/folder").used_for == "missing"
    assert TranscriberConfig().used_for == "never"
