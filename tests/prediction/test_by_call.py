"""Streamed utterance rows to a row a call, without a cluster."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fitting import SMALL

from urgency_ray.config import ModelConfig
from urgency_ray.examples.utterances import group_utterances
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.inference import explain_probabilities
from urgency_ray.prediction.by_call import CALL_OUTPUT_SCHEMA, classify_calls, whole_calls
from urgency_ray.schema import ACOUSTIC_FEATURES, embedding_schema


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {name.split(".")[1]: value for name, value in SMALL.items() if name.startswith("model.")}
    return UrgencyClassifier(ModelConfig(**(sizes | {"name": "hierarchical"})), 6, 5).eval()


def make_rows() -> Any:
    """Four calls: a of three utterances, one of them rejected; b of one; c rejected whole; d of two, both rejected."""
    rng = np.random.default_rng(0)
    schema = embedding_schema(6, 5)
    plan = [("a", 0, None), ("a", 1, "too_short"), ("a", 2, None), ("b", 0, None), ("c", None, "not_audio")]
    plan += [("d", 0, "no_text"), ("d", 1, "too_short")]
    sizes = {"a": 3, "b": 1, "c": 1, "d": 2}
    rows = []
    for call, place, reason in plan:
        row = dict.fromkeys(schema.names) | {"call_id": call, "example_id": call, "provider_split": "unknown"}
        row |= {"num_call_rows": sizes[call], "status": "rejected" if reason else "embedded", "reason": reason}
        if place is not None:
            row |= {"example_id": f"{call}/{place:04d}", "utterance_id": f"u{place}", "speaker": place % 2}
            row |= {"start_ms": 1000 * place, "end_ms": 1000 * place + 900, "text": "비밀 이야기"}
        if not reason:
            row |= {"audio_embedding": rng.standard_normal(6), "text_embedding": rng.standard_normal(5), "urgency": 2}
            row |= dict.fromkeys(ACOUSTIC_FEATURES, 1.0)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema)


def test_calls_leave_when_their_last_row_has_come_in_whatever_pieces() -> None:
    rows = make_rows()
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(len(rows))))
    together = next(whole_calls([rows]))
    for size in (1, 2, 7):
        pieces = [shuffled.slice(start, size) for start in range(0, len(rows), size)]
        tables = list(whole_calls(pieces))
        for table in tables:
            assert table["example_id"].to_pylist() == sorted(table["example_id"].to_pylist())
        found = pa.concat_tables(tables).sort_by("example_id")
        assert (
            found.drop_columns("audio_embedding")
            .drop_columns("text_embedding")
            .equals(together.drop_columns("audio_embedding").drop_columns("text_embedding"))
        )
        owners = [set(table["call_id"].to_pylist()) for table in tables]
        assert sum(map(len, owners)) == 4, "no call is cut"


def test_a_call_that_lacks_a_row_is_not_given_out() -> None:
    rows = make_rows().slice(1)
    assert set(pa.concat_tables(whole_calls([rows]))["call_id"].to_pylist()) == {"b", "c", "d"}


def test_a_row_a_call_says_which_utterance_decided(model: Any) -> None:
    rows = make_rows()
    output = classify_calls(model, rows)
    assert output.schema.equals(CALL_OUTPUT_SCHEMA)
    a, b, c, d = output.to_pylist()
    heard = rows.take([0, 2, 3])
    audio, text = (np.array(heard[name].to_pylist(), np.float32) for name in ("audio_embedding", "text_embedding"))
    acoustic, utterances = np.ones((3, 5), np.float32), group_utterances(heard.to_pandas())
    probs, weights = explain_probabilities(model, audio, text, acoustic, utterances)
    assert weights is not None
    for row, expected in zip((a, b), probs["urgency"], strict=True):
        np.testing.assert_allclose([row["prob_low"], row["prob_mid"], row["prob_high"]], expected, atol=1e-6)
        assert row["urgency_pred"] == expected.argmax()
    assert [(u["utterance_id"], u["start_ms"], u["end_ms"], u["speaker"]) for u in a["attention"]] == [
        ("u0", 0, 900, 0),
        ("u2", 2000, 2900, 0),
    ]
    np.testing.assert_allclose([u["weight"] for u in a["attention"]], weights[:2], atol=1e-6)
    heaviest = max(a["attention"], key=lambda utterance: utterance["weight"])
    assert {key: a[f"top_{key}"] for key in heaviest} == heaviest
    assert (a["num_utterances"], a["num_utterances_rejected"], a["reason"]) == (3, 1, None)
    assert b["top_weight"] == pytest.approx(1)
    for row, reason, num_utterances in ((c, "not_audio", 0), (d, "no_text", 2)):
        assert (row["reason"], row["num_utterances"], row["num_utterances_rejected"]) == (
            reason,
            num_utterances,
            num_utterances,
        )
        assert [row[key] for key in ("urgency_pred", "prob_low", "top_utterance_id", "top_weight", "attention")] == [None] * 5
    assert a["urgency"] == b["urgency"] == 2


def test_calls_without_a_single_embedded_utterance_are_rows_too(model: Any) -> None:
    output = classify_calls(model, make_rows().slice(4))
    assert output["call_id"].to_pylist() == ["c", "d"]
    assert output["urgency_pred"].null_count == output["attention"].null_count == 2


def test_no_words_are_given_out(model: Any) -> None:
    assert "비밀" not in str(classify_calls(model, make_rows()).to_pylist())


def test_a_call_whose_probabilities_are_not_finite_is_a_reject(model: Any) -> None:
    rows = make_rows().to_pylist()
    rows[3]["audio_embedding"] = [3e38] * 6  # finite, and too much for float32 in any product
    healthy, broken = (
        classify_calls(model, table).to_pylist() for table in (make_rows(), pa.Table.from_pylist(rows, make_rows().schema))
    )
    assert broken[0] == healthy[0]
    assert (broken[1]["call_id"], broken[1]["urgency_pred"], broken[1]["reason"]) == ("b", None, "invalid_probability")
    assert all(broken[1][name] is None for name in ("prob_low", "prob_mid", "prob_high", "top_utterance_id", "attention"))
    assert broken[2:] == healthy[2:]
