"""extract.json as version 0.2.0 wrote it is read, says the same, and is written again key by key."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from accounts import make_accounts

from urgency_ray import storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import load_examples
from urgency_ray.run_folder import write_json
from urgency_ray.schema import embedding_schema

OF_0_2_0 = """{
  "calls_read": 60,
  "calls_embedded": 57,
  "calls_rejected": 3,
  "rejected_by_reason": {
    "no_text": 2,
    "missing_label": 1
  },
  "rows_embedded": 57,
  "rows_rejected": 3,
  "rows_rejected_by_reason": {
    "no_text": 2,
    "missing_label": 1
  },
  "audio_sec": 268.5,
  "rows_windowed": 0,
  "texts_windowed": 0,
  "texts_truncated": 4,
  "tokens_dropped": 31,
  "wall_sec": 7.25,
  "fingerprint": {
    "unit": "call",
    "speakers": "all",
    "max_call_sec": 7200.0,
    "audio_encoder": {
      "name": "spectral",
      "revision": null,
      "window_sec": 30.0,
      "weights": "built-in"
    },
    "text_encoder": {
      "name": "hashing",
      "revision": null,
      "weights": "built-in"
    },
    "code_version": "0.2.0"
  },
  "manifest_sha256": "0f3a"
}"""


def test_the_accounts_of_version_0_2_0_survive_the_trip_byte_by_byte(tmp_path: Path) -> None:
    location = str(tmp_path / "extract.json")
    storage.write_text(location, OF_0_2_0)
    accounts = ExtractAccounts.read(str(tmp_path))
    assert (accounts.audio_sec, accounts.fingerprint.audio_encoder["window_sec"]) == (268.5, 30.0)
    write_json(location, accounts, indent=2)
    assert storage.read_text(location) == OF_0_2_0


def test_the_accounting_line_adds_up_or_fails() -> None:
    counts = {"calls_read": 5, "calls_embedded": 3, "calls_rejected": 2, "rejected_by_reason": {"no_text": 2}}
    accounts = make_accounts(3).model_copy(update=counts)
    assert accounts.line() == "5 calls read = 3 embedded + 2 rejected (2 no_text)"
    assert make_accounts(4).line() == "4 calls read = 4 embedded + 0 rejected"
    with pytest.raises(RuntimeError, match="5 calls read, but 3 embedded and 1 rejected"):
        accounts.model_copy(update={"calls_rejected": 1}).line()


def test_the_counts_are_the_accounts_without_the_run() -> None:
    accounts = make_accounts(4)
    assert accounts.counts() == make_accounts(4).model_copy(update={"wall_sec": 9.0}).counts()
    assert accounts.counts() != make_accounts(5).counts()
    run = {name: getattr(accounts, name) for name in ("wall_sec", "fingerprint", "manifest_sha256")}
    assert ExtractAccounts.of(accounts.counts(), **run) == accounts


def without(*path: Any) -> Any:
    """The accounts of version 0.2.0 without one of their keys."""
    tree = json.loads(OF_0_2_0)
    *above, last = path
    inner = tree
    for name in above:
        inner = inner[name]
    del inner[last]
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (without("calls_read"), "calls_read is missing"),
        (without("fingerprint", "text_encoder"), "fingerprint.text_encoder is missing"),
        (OF_0_2_0.replace('"rows_embedded": 57', '"rows_embedded": "57"'), "rows_embedded: Input should be a valid integer"),
        (OF_0_2_0[:100], "Invalid JSON"),
    ],
)
def test_accounts_that_cannot_be_used_are_one_line_that_says_what_to_do(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "extract.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        ExtractAccounts.read(str(tmp_path))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/extract.json: cannot be read: {said}")
    assert text.endswith("it is damaged or another version's: remove it and run extract again")
    assert "\n" not in text


def test_embeddings_with_another_version_s_accounts_are_refused_in_one_line(tmp_path: Path) -> None:
    rows = [
        {
            "example_id": f"call-{number}",
            "call_id": f"call-{number}",
            "provider_split": "unknown",
            "audio_embedding": [1.0, 2.0],
            "text_embedding": [3.0],
        }
        for number in range(2)
    ]
    table = pa.Table.from_pylist([{**row, "status": "embedded"} for row in rows], schema=embedding_schema(2, 1))
    storage.write_table(str(tmp_path / "embeddings/status=embedded/0.parquet"), table.drop_columns(["status"]))
    write_json(str(tmp_path / "extract.json"), make_accounts(2))
    assert len(load_examples(str(tmp_path))) == 2
    (tmp_path / "extract.json").write_text('{"embedded": 2}', encoding="utf-8")
    with pytest.raises(RequestError, match=r"extract\.json: cannot be read: calls_read is missing"):
        load_examples(str(tmp_path))
