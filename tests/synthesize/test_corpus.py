import io
import itertools
import json
import re
import wave
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import urgency_ray.synthesize.corpus as synthesize_module
from urgency_ray.config import SynthesizeConfig
from urgency_ray.errors import Reason, RequestError
from urgency_ray.schema import SENTIMENT_LABELS, URGENCY_LABELS
from urgency_ray.synthesize.corpus import CORPUS_FILE, Corpus, synthesize
from urgency_ray.synthesize.cues import CLASS_SHARES, VOICE_RELIABILITY, WORDS_RELIABILITY, ceiling
from urgency_ray.synthesize.files import FLAWS, SENTIMENT_SHARES
from urgency_ray.synthesize.words import ANYWHERE, BY_KIND, MASK, REPORTING

CONFIG = SynthesizeConfig(num_calls=180, min_call_sec=6.0, max_call_sec=9.0, flaw_fraction=0.15)
SMALL = SynthesizeConfig(num_calls=30, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.4)
STEM = re.compile(r"[0-9a-f]{24}_20\d{12}")
LABEL_TYPES = {
    "_id": str,
    "audioPath": str,
    "recordId": str,
    "status": int,
    "startAt": int,
    "endAt": int | float | None,
    "utterances": list,
    "mediaType": str,
    "gender": str,
    "address": str,
    "disasterLarge": str,
    "disasterMedium": str,
    "urgencyLevel": str,
    "sentiment": str,
    "symptom": list,
    "triage": str,
}
UTTERANCE_TYPES = {"id": str, "startAt": int, "endAt": int, "text": str, "speaker": int}


class Files:
    """A corpus as found on disk: WAVs and labels by stem, and the folder, archive and name of each."""

    def __init__(self, root: Any) -> None:
        self.corpus = json.loads((root / CORPUS_FILE).read_text(encoding="utf-8"))
        self.flaws = {flaw["stem"]: flaw["flaw"] for flaw in self.corpus["flaws"]}
        self.wavs: dict[str, bytes] = {}
        self.labels: dict[str, bytes] = {}
        self.places: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*.zip")):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    stem, suffix = name.split(".")
                    contents = self.wavs if suffix == "wav" else self.labels
                    assert stem not in contents
                    contents[stem] = archive.read(name)
                    self.places.setdefault(stem, []).append(path.relative_to(root))
        self.sound_stems = sorted(self.corpus["cues"].keys() - self.flaws.keys())

    def label(self, stem: Any) -> Any:
        return json.loads(self.labels[stem].decode("utf-8-sig"))

    def samples(self, stem: Any) -> Any:
        with wave.open(io.BytesIO(self.wavs[stem])) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (8000, 1, 2)
            return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("corpus")
    synthesize(str(root), CONFIG)
    return Files(root)


def test_the_layout_is_the_providers(files: Files) -> None:
    pattern = re.compile(
        r"119_synthetic/(?:Training/(?:1\.원천데이터/TS|2\.라벨링데이터/TL)|Validation/(?:1\.원천데이터/VS|2\.라벨링데이터/VL))"
        r"_(광주|서울|인천)_(구조|구급|화재)\.zip"
    )
    for stem, places in files.places.items():
        assert STEM.fullmatch(stem)
        matches = [pattern.fullmatch(place.as_posix()) for place in places]
        assert all(matches), places
        assert len({match.groups() for match in matches if match}) == 1
        assert len({place.parts[1] for place in places}) == 1
    assert len({place for places in files.places.values() for place in places}) == 36
    splits = Counter(places[0].parts[1] for places in files.places.values())
    assert splits == {"Training": 144, "Validation": 36}


def test_every_label_has_the_full_schema(files: Files) -> None:
    for stem in files.sound_stems:
        label = files.label(stem)
        assert {**label, "triage": ""}.keys() == LABEL_TYPES.keys()
        assert all(isinstance(value, LABEL_TYPES[key]) for key, value in label.items())
        assert stem.startswith(label["_id"] + "_") and stem not in label["audioPath"]
        assert label["urgencyLevel"] in URGENCY_LABELS and label["sentiment"] in SENTIMENT_LABELS
        assert label["disasterLarge"] == files.places[stem][0].stem.split("_")[2]
        assert label["address"].startswith(files.places[stem][0].stem.split("_")[1])
        utterances = label["utterances"]
        assert 4 <= len(utterances) <= 8
        assert [utterance["speaker"] for utterance in utterances] == [0, 1, 0, 1, 0, 1, 0, 1][: len(utterances)]
        for utterance in utterances:
            assert {key: type(value) for key, value in utterance.items()} == UTTERANCE_TYPES
            assert utterance["text"] and not set("{}") & set(utterance["text"])


def test_the_real_sets_oddities_occur(files: Files) -> None:
    labels = [files.label(stem) for stem in files.sound_stems]
    assert {type(label["endAt"]) for label in labels} == {int, float, type(None)}
    assert 0 < sum("triage" not in label for label in labels) < len(labels) / 4
    assert 0 < sum(files.labels[stem].startswith(b"\xef\xbb\xbf") for stem in files.sound_stems) < len(labels) / 4
    masked = [label for label in labels if any(MASK in utterance["text"] for utterance in label["utterances"])]
    assert 0 < len(masked) < len(labels) / 4
    assert not any(MASK in label["address"] for label in labels)


def test_the_voice_is_where_the_label_says(files: Files) -> None:
    for stem in files.sound_stems:
        label, samples = files.label(stem), files.samples(stem)
        assert 6.0 <= samples.size / 8000 <= 9.0
        assert label["endAt"] in (None, samples.size / 8)
        edges = [0, *(edge for u in label["utterances"] for edge in (u["startAt"], u["endAt"])), samples.size // 8]
        assert edges == sorted(edges) and edges[-1] > edges[-2]
        level = [np.sqrt(np.mean(samples[8 * start : 8 * end] ** 2)) for start, end in itertools.pairwise(edges)]
        assert 0 < max(level[0::2]) < min(level[1::2]) / 2
        assert np.abs(samples).max() < 0.95
        for utterance in label["utterances"]:
            start, end = 8 * utterance["startAt"], 8 * utterance["endAt"]
            noise = np.median(level[0::2])
            for edge in (samples[start : start + 1200], samples[end - 1200 : end]):
                assert np.sqrt(np.mean(edge**2)) > 1.2 * noise


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def content(name: Any, config: Any) -> Any:
        synthesize(str(tmp_path / name), config)
        root = tmp_path / name
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    first, again, other = (
        content(name, SMALL.model_copy(update={"seed": seed})) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert not {value for path, value in first.items()} & {value for path, value in other.items()}


@pytest.mark.parametrize("num_calls", [30, 997])
def test_classes_are_in_the_real_sets_shares_in_both_parts(num_calls: int) -> None:
    plans = synthesize_module._plan_calls(SynthesizeConfig(num_calls=num_calls))
    assert len({plan.stem for plan in plans}) == num_calls
    for split, num in (("Validation", round(num_calls / 5)), ("Training", num_calls - round(num_calls / 5))):
        counts = np.bincount([plan.urgency for plan in plans if plan.split == split], minlength=3)
        assert counts.sum() == num
        np.testing.assert_allclose(counts, CLASS_SHARES * num, atol=1)


def test_sentiments_are_in_the_real_sets_shares() -> None:
    np.testing.assert_allclose(SENTIMENT_SHARES.sum(axis=1), 1)
    np.testing.assert_allclose(CLASS_SHARES @ SENTIMENT_SHARES, [0.54, 0.38, 0.07, 0.02], atol=0.01)


def test_each_flaw_is_what_it_says(files: Files) -> None:
    counts = Counter(files.flaws.values())
    assert files.corpus["num_flawed"] == len(files.flaws) == 22
    assert counts.keys() == set(FLAWS) and max(counts.values()) - min(counts.values()) <= 1
    for stem, flaw in files.flaws.items():
        assert files.places[stem][0].parts[1] == "Training"
        wav, label = files.wavs.get(stem), files.labels.get(stem)
        assert (wav is None) == (flaw == Reason.MISSING_AUDIO)
        assert (label is None) == (flaw == Reason.MISSING_LABEL)
        if flaw == Reason.NOT_AUDIO:
            assert wav is not None and wav.startswith(b"<!DOCTYPE html>")
        elif flaw == Reason.EMPTY_AUDIO:
            assert wav is not None and len(wav) == 44 and files.samples(stem).size == 0
        elif flaw == Reason.TRUNCATED_AUDIO:
            assert wav is not None
            promised = int.from_bytes(wav[40:44], "little")
            assert wav[36:40] == b"data" and promised > 2 * len(wav)
        elif flaw != Reason.MISSING_AUDIO:
            assert files.samples(stem).size > 0
        if flaw == Reason.INVALID_JSON:
            with pytest.raises(json.JSONDecodeError):
                files.label(stem)
        elif label is not None:
            assert ("urgencyLevel" in files.label(stem)) == (flaw != Reason.MISSING_URGENCY)
            assert (files.label(stem)["utterances"] == []) == (flaw == Reason.NO_TEXT)


def test_corpus_json_says_what_was_made(files: Files, tmp_path: Path) -> None:
    corpus = files.corpus
    assert SynthesizeConfig(**corpus["config"]) == CONFIG
    assert corpus["num_calls"] == len(corpus["cues"]) == len(files.places) == 180
    assert corpus["reliability"] == {"words": WORDS_RELIABILITY.tolist(), "voice": VOICE_RELIABILITY.tolist()}
    assert corpus["ceiling"].keys() == {"audio", "text", "fused"}
    without_flaws = synthesize(str(tmp_path / "new" / "deep"), SMALL.model_copy(update={"flaw_fraction": 0.0}))
    assert without_flaws.num_flawed == 0 and without_flaws.flaws == []


def test_a_corpus_of_the_same_config_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = synthesize(str(tmp_path), SMALL)
    monkeypatch.setattr(synthesize_module, "make_files", lambda *_: pytest.fail("written again"))
    found = synthesize(str(tmp_path), SMALL)
    assert isinstance(found, Corpus) and found == made
    with pytest.raises(RequestError, match=r"another config or version; remove it, or name another folder$"):
        synthesize(str(tmp_path), SMALL.model_copy(update={"num_calls": 31}))


def test_somebodys_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(RequestError, match=r"must be an empty folder or a synthetic corpus"):
            synthesize(str(place), SMALL)
    (tmp_path / CORPUS_FILE).write_text("{}")
    with pytest.raises(RequestError, match=r"must be an empty folder or a synthetic corpus"):
        synthesize(str(tmp_path), SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CORPUS_FILE, "thesis.txt"]
    with pytest.raises(RequestError, match="local folder"):
        synthesize("s3://bucket/corpus", SMALL)


def test_an_interrupted_corpus_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def interrupt(plan: Any, config: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return b"", b""

    with monkeypatch.context() as patch:
        patch.setattr(synthesize_module, "make_files", interrupt)
        with pytest.raises(KeyboardInterrupt):
            synthesize(str(tmp_path), SMALL)
    assert list(tmp_path.iterdir()) == []
    assert synthesize(str(tmp_path), SMALL).num_calls == 30


def _simulated_ceiling(urgency: Any, cells: Any) -> Any:
    """Best macro-F1 by hill climbing over maps from cells to classes, scored by scikit-learn on drawn calls."""

    def score(mapping: Any) -> Any:
        return f1_score(urgency, np.asarray(mapping)[cells], average="macro")

    mapping = [int(np.bincount(urgency[cells == cell], minlength=3).argmax()) for cell in range(cells.max() + 1)]
    best = score(mapping)
    for cell, guess in itertools.product(range(len(mapping)), range(3)):
        trial = [*mapping[:cell], guess, *mapping[cell + 1 :]]
        if (value := score(trial)) > best:
            best, mapping = value, trial
    return best


def test_the_ceiling_is_what_a_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    urgency = rng.choice(3, 30_000, p=CLASS_SHARES)
    words, voice = (
        (rng.random(urgency.size)[:, None] > np.cumsum(table, axis=1)[urgency, :2]).sum(axis=1)
        for table in (WORDS_RELIABILITY, VOICE_RELIABILITY)
    )
    stated = ceiling(WORDS_RELIABILITY, VOICE_RELIABILITY, CLASS_SHARES)
    assert stated.audio == pytest.approx(_simulated_ceiling(urgency, voice), abs=0.01)
    assert stated.text == pytest.approx(_simulated_ceiling(urgency, words), abs=0.01)
    assert stated.fused == pytest.approx(_simulated_ceiling(urgency, 3 * words + voice), abs=0.01)


def test_the_ceiling_of_perfect_and_of_useless_cues() -> None:
    useless = np.full((3, 3), 1 / 3)
    perfect = ceiling(np.eye(3), useless, CLASS_SHARES)
    assert (perfect.text, perfect.fused) == (1, 1)
    # A cue that tells nothing is a die: an answer a side scores like a guess, which beats one answer for all.
    assert perfect.audio == pytest.approx(1 / 3, abs=0.01)


def test_the_two_cues_complement_each_other() -> None:
    stated = ceiling(WORDS_RELIABILITY, VOICE_RELIABILITY, CLASS_SHARES)
    assert 0.72 <= stated.audio <= 0.78
    assert 0.72 <= stated.text <= 0.78
    assert 0.86 <= stated.fused <= 0.92
    assert stated.fused >= max(stated.audio, stated.text) + 0.08
    for table in (WORDS_RELIABILITY, VOICE_RELIABILITY):
        np.testing.assert_allclose(table.sum(axis=1), 1)


def test_no_phrase_speaks_for_two_cues() -> None:
    phrases = [phrase for pools in (ANYWHERE, *BY_KIND.values()) for pool in pools for phrase in pool]
    assert len(phrases) == len(set(phrases))
    for kind, cue in itertools.product(BY_KIND, range(3)):
        assert len(ANYWHERE[cue]) + len(BY_KIND[kind][cue]) >= 12


def test_text_tells_the_words_cue_and_no_single_token_does(files: Files) -> None:
    texts = [" ".join(u["text"] for u in files.label(stem)["utterances"]) for stem in files.sound_stems]
    cue = np.array([files.corpus["cues"][stem][0] for stem in files.sound_stems])
    ngrams = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**14).transform(texts)
    assert cross_val_score(LogisticRegression(C=100.0), ngrams, cue, cv=5).mean() > 0.85
    present = np.asarray((ngrams != 0).T @ np.eye(3)[cue])
    stump_accuracy = (present.max(axis=1) + (np.bincount(cue, minlength=3) - present).max(axis=1)) / len(cue)
    assert stump_accuracy.max() < 0.7


def test_sound_tells_the_voice_cue(files: Files) -> None:
    def describe(stem: Any) -> Any:
        waveform = librosa.resample(files.samples(stem), orig_sr=8000, target_sr=16000, res_type="soxr_hq")
        mel = librosa.feature.melspectrogram(y=waveform, sr=16000, n_fft=512, hop_length=160, n_mels=48, fmin=60, fmax=3800)
        levels = librosa.power_to_db(mel, ref=np.max)
        return np.concatenate([levels.mean(axis=1), levels.std(axis=1), 10 * librosa.feature.delta(levels).std(axis=1)])

    statistics = np.stack([describe(stem) for stem in files.sound_stems])
    cue = np.array([files.corpus["cues"][stem][1] for stem in files.sound_stems])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    assert cross_val_score(classifier, statistics, cue, cv=5).mean() > 0.8


Reports = tuple[Files, dict[str, int]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """A corpus with its cues in one utterance a call: `Files`, and by stem the place of the report."""
    root = tmp_path_factory.mktemp("reports")
    sizes: dict[str, Any] = {"num_calls": 150, "min_call_sec": 14.0, "max_call_sec": 20.0, "flaw_fraction": 0.0}
    synthesize(str(root), SynthesizeConfig(cues="utterance", **sizes))
    files = Files(root)
    places = {}
    for stem in files.sound_stems:
        utterances = files.label(stem)["utterances"]
        assert 6 <= len(utterances) <= 12
        (places[stem],) = [i for i, u in enumerate(utterances) if u["text"].startswith(REPORTING)]
        assert utterances[places[stem]]["speaker"] == 1
    return files, places


def test_the_report_s_words_follow_the_words_cue_and_other_utterances_mislead(reports: Reports) -> None:
    files, places = reports
    spoken = np.zeros((2, 3, 3), int)  # others or the report, words cue of the call, cue of the phrase
    for stem, place in places.items():
        label = files.label(stem)
        pools = [(*ANYWHERE[cue], *BY_KIND[label["disasterLarge"]][cue]) for cue in range(3)]
        patterns = ["|".join(re.sub(r"\\{\w+\\}", ".+", re.escape(phrase)) for phrase in pool) for pool in pools]
        for number, utterance in enumerate(label["utterances"]):
            found = [cue for cue, pattern in enumerate(patterns) if re.search(f"(?:{pattern})$", utterance["text"])]
            if utterance["speaker"] == 1 and found:
                spoken[int(number == place), files.corpus["cues"][stem][0], found[0]] += 1
    others, report = spoken
    assert report.sum() == len(places) == np.trace(report)
    np.testing.assert_allclose(others / others.sum(axis=1, keepdims=True), 1 / 3, atol=0.12)
    assert set(places.values()) >= {1, 3, 5, 7, 9}, "any turn of the caller can be the report"


def test_the_report_s_voice_follows_the_voice_cue_and_another_does_not(reports: Reports) -> None:
    files, places = reports
    cue = np.array([files.corpus["cues"][stem][1] for stem in places])

    def describe(stem: Any, place: Any) -> Any:
        utterance = files.label(stem)["utterances"][place]
        heard = files.samples(stem)[8 * utterance["startAt"] : 8 * utterance["endAt"]]
        mel = librosa.feature.melspectrogram(y=heard, sr=8000, n_fft=256, hop_length=80, n_mels=32, fmin=60, fmax=3800)
        levels = librosa.power_to_db(mel, ref=np.max)
        return np.concatenate([levels.mean(axis=1), levels.std(axis=1), 10 * librosa.feature.delta(levels).std(axis=1)])

    def accuracy(described: Any) -> Any:
        statistics = np.stack([describe(stem, place) for stem, place in described.items()])
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        return cross_val_score(classifier, statistics, cue, cv=5).mean()

    assert accuracy(places) > 0.7
    assert accuracy({stem: 3 if place == 1 else place - 2 for stem, place in places.items()}) < 0.55


def test_nothing_but_the_cues_follows_the_urgency(files: Files) -> None:
    labels = [files.label(stem) for stem in files.sound_stems]
    urgency = np.array([URGENCY_LABELS.index(label["urgencyLevel"]) for label in labels])
    for key in (
        lambda stem, label: len(files.wavs[stem]),
        lambda stem, label: len(label["utterances"]),
        lambda stem, label: label["gender"] == "F",
        lambda stem, label: label["disasterLarge"] == "화재",
        lambda stem, label: np.abs(files.samples(stem)).max(),
    ):
        values = np.array([key(stem, label) for stem, label in zip(files.sound_stems, labels, strict=True)], dtype=float)
        assert abs(np.corrcoef(values, urgency)[0, 1]) < 0.25


def test_the_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    synthesize(".", SMALL)
    assert Path(tmp_path, CORPUS_FILE).is_file()
