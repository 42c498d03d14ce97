"""Planted leaks of each kind are counted; what is natural is not called a leak."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.config import Config, SplitConfig
from urgency_ray.errors import RequestError
from urgency_ray.examples.columns import MIN_TEXT_CHARS
from urgency_ray.examples.dataset import Examples, Splits, load_examples
from urgency_ray.examples.leaks import leak_warnings
from urgency_ray.examples.splits import split_examples


def make_examples(size: int = 60) -> Any:
    rng = np.random.default_rng(0)
    keys = pd.DataFrame(
        {
            "example_id": [f"e{i:03d}" for i in range(size)],
            "call_id": [f"c{i:03d}" for i in range(size)],
            "provider_split": "unknown",
            "audio_sha256": None,
            "text_sha256": [f"t{i:03d}" for i in range(size)],
        }
    )
    audio, text, acoustic = (rng.standard_normal((size, dim)).astype(np.float32) for dim in (6, 5, 5))
    return Examples(keys, audio, text, acoustic, rng.integers(0, 3, size), np.full(size, -1), None)


SPLITS = Splits(np.arange(40), np.arange(40, 50), np.arange(50, 60))


def test_distinct_rows_raise_no_warning() -> None:
    assert leak_warnings(make_examples(), SPLITS) == []


@pytest.mark.parametrize(("column", "what"), [("call_id", "call"), ("audio_sha256", "audio"), ("text_sha256", "transcript")])
def test_a_key_on_both_sides_is_counted(column: str, what: str) -> None:
    examples = make_examples()
    values = examples.keys[column].copy()
    values[[3, 41, 57]] = "one"  # train, val and test
    values[[45, 58]] = "two"  # val and test
    values[[4, 5]] = "three"  # train alone
    examples.keys[column] = values
    assert leak_warnings(examples, SPLITS) == [
        f"possible leak: 1 of 10 val rows have the same {what} as a row of train; their scores flatter",
        f"possible leak: 2 of 10 test rows have the same {what} as a row of train or val; their scores flatter",
    ]


@pytest.mark.parametrize(("column", "what"), [("speaker_id", "speaker"), ("group_id", "group")])
def test_a_speaker_or_group_that_a_manifest_names_is_held_against_the_splits(column: str, what: str) -> None:
    examples = make_examples()
    examples.keys[column] = [f"s{i}" if i % 2 else None for i in range(60)]
    assert leak_warnings(examples, SPLITS) == []
    examples.keys.loc[[3, 41], column] = "one"
    assert leak_warnings(examples, SPLITS) == [
        f"possible leak: 1 of 10 val rows have the same {what} as a row of train; their scores flatter"
    ]


def test_a_provider_s_split_with_a_group_on_both_sides_is_told() -> None:
    examples = make_examples()
    examples.keys["provider_split"] = ["training"] * 50 + ["validation"] * 10
    examples.keys["group"] = [f"s{i}" for i in range(60)]
    config = SplitConfig(allow_missing_classes=True)
    assert leak_warnings(examples, split_examples(examples, config)) == []
    examples.keys.loc[[3, 4, 55], "group"] = "one"
    (line,) = leak_warnings(examples, split_examples(examples, config))
    assert line.startswith("leak in the given split: 2 of 12 test rows were not given for the test")
    drawn = split_examples(examples, SplitConfig(use_provider_test=False, allow_missing_classes=True))
    assert leak_warnings(examples, drawn) == []


def test_speakers_and_groups_come_from_the_rows_and_those_that_are_wanted_must_be_there(tmp_path: Path) -> None:
    frame = pd.DataFrame({"file_id": [f"c{i}" for i in range(6)], "text": "불이 났어요", "urgency_y": [0, 1, 2] * 2})
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "e.npz", audio=rng.standard_normal((6, 4)), text=rng.standard_normal((6, 4)))

    def imported(name: str, **columns: Any) -> str:
        frame.assign(**columns).to_csv(tmp_path / "m.csv", index=False)
        run_dir = str(tmp_path / name)
        import_artefacts(Config(), str(tmp_path / "m.csv"), str(tmp_path / "e.npz"), run_dir)
        return run_dir

    keys = load_examples(imported("named", speaker_id=["a", "b", "a", "", "", "c"]), group_by="speaker").keys
    assert keys["group"].fillna("").tolist() == keys["speaker_id"].fillna("").tolist() == ["a", "b", "a", "", "", "c"]
    assert "group_id" not in keys
    assert "group" not in load_examples(imported("unnamed")).keys
    with pytest.raises(RequestError, match=r"split\.group_by: group, but no row of --run-dir .*unnamed names one"):
        load_examples(str(tmp_path / "unnamed"), group_by="group")


def test_equal_audio_embeddings_are_equal_audio_unless_there_is_none() -> None:
    examples = make_examples()
    examples.audio[52] = examples.audio[0]
    examples.audio[[1, 53]] = 0.0
    assert leak_warnings(examples, SPLITS) == [
        "possible leak: 1 of 10 test rows have the same audio as a row of train or val; their scores flatter"
    ]


def test_rows_without_keys_have_nothing_in_common() -> None:
    examples = make_examples()
    examples.keys["text_sha256"] = None
    assert leak_warnings(examples, SPLITS) == []


def test_texts_are_read_as_hashes_of_their_words_and_short_ones_not_at_all(tmp_path: Path) -> None:
    long = "여기 삼 층 건물에서 검은 연기가 계속 올라오고 있고 사람이 안에 있어요 빨리 와 주세요"
    assert len(long) >= MIN_TEXT_CHARS
    texts = [long, f"  {long.replace(' ', '   ')}\n", "네 여보세요", "네 여보세요", *(f"{long} {i}" for i in range(56))]
    frame = pd.DataFrame({"file_id": [f"call_{i:03d}" for i in range(60)], "text": texts, "urgency_y": np.arange(60) % 3})
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {name: rng.standard_normal((60, 4)).astype(np.float32) for name in ("audio", "text")}
    arrays["audio"][59] = arrays["audio"][58]
    np.savez(tmp_path / "embeddings.npz", **arrays)
    run_dir = str(tmp_path / "run")
    import_artefacts(Config(), str(tmp_path / "metadata.csv"), str(tmp_path / "embeddings.npz"), run_dir)
    examples = load_examples(run_dir)
    hashes = examples.keys["text_sha256"]
    assert hashes[0] == hashes[1]
    assert hashes[[2, 3]].isna().all()
    assert hashes[4:].nunique() == 56
    lines = [
        line
        for seed in range(10)
        for line in leak_warnings(
            examples, split_examples(examples, SplitConfig(seed=seed, val_fraction=0.3, test_fraction=0.3))
        )
    ]
    # Two pairs, each on two sides under some seeds: one by its words, one by its embedding.
    assert any("1 of 18 test rows have the same transcript" in line for line in lines)
    assert any("1 of 18 test rows have the same audio" in line for line in lines)
    assert not any("call" in line for line in lines)
