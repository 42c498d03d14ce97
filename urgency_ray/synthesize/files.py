"""The two files of a call, WAV and label JSON, whole or with a planted flaw."""

from __future__ import annotations

import io
import json
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urgency_ray.config import SynthesizeConfig
from urgency_ray.errors import Reason
from urgency_ray.schema import SENTIMENT_LABELS, URGENCY_LABELS
from urgency_ray.synthesize.voice import (
    CALLER_MEANS,
    DISPATCHER_MEAN,
    SAMPLE_RATE_HZ,
    Turn,
    draw_moods,
    draw_turns,
    draw_voice,
    speak,
)
from urgency_ray.synthesize.words import draw_place, write_dialogue

CITIES = {"광주": "광주광역시", "서울": "서울특별시", "인천": "인천광역시"}
MEDIUMS = {
    "구조": ("안전사고", "대물사고", "기타구조"),
    "구급": ("질병", "부상", "기타구급"),
    "화재": ("일반화재", "산림화재", "기타화재"),
}
"""`disasterMedium` by `disasterLarge`, the kind in the archive's name; like symptom and triage, it tells no urgency."""
SYMPTOMS = ("복통", "두통", "어지러움", "구토", "요통", "기타통증")
TRIAGES = ("응급증상", "준응급증상", "비응급증상")
SENTIMENT_SHARES = np.array([[0.43, 0.42, 0.13, 0.02], [0.53, 0.39, 0.06, 0.02], [0.66, 0.31, 0.01, 0.02]])
"""P(sentiment | urgency), a row an urgency; over all calls the real set's shares of 54, 38, 7 and 2 %."""

FLAWS = (
    Reason.MISSING_AUDIO,
    Reason.MISSING_LABEL,
    Reason.TRUNCATED_AUDIO,
    Reason.EMPTY_AUDIO,
    Reason.NOT_AUDIO,
    Reason.MISSING_URGENCY,
    Reason.NO_TEXT,
    Reason.INVALID_JSON,
)
"""Planted flaws, each named after the reason for which extraction must reject the call."""


@dataclass(frozen=True)
class CallPlan:
    """What is decided of a call before its sound and its words are made."""

    stem: str
    split: str
    region: str
    kind: str
    urgency: int
    words_cue: int
    voice_cue: int
    flaw: Reason | None
    seed: np.random.SeedSequence

    @property
    def archive(self) -> tuple[str, str, str]:
        """Where the call goes: split, region, kind."""
        return self.split, self.region, self.kind


def make_files(plan: CallPlan, config: SynthesizeConfig) -> tuple[bytes | None, bytes | None]:
    """Contents of a call's WAV and of its label file; None where its flaw leaves one out."""
    # A stream each: how the call sounds must not shift what is drawn for its timing or its words.
    timing, sounding, wording, misleading = (np.random.default_rng(seed) for seed in plan.seed.spawn(4))
    duration_ms = round(1000 * timing.uniform(config.min_call_sec, config.max_call_sec))
    fewest, most = (4, 8) if config.cues == "call" else (6, 12)
    turns = draw_turns(timing, duration_ms, fewest, most)
    report, words_cues, voice_cues = _place_cues(misleading, plan, len(turns) // 2, config)
    is_female = bool(sounding.random() < 0.5)
    dispatcher = draw_voice(sounding, DISPATCHER_MEAN, is_female=bool(sounding.random() < 0.5))
    moods = sorted(set(voice_cues))
    voices = [dispatcher, *draw_moods(sounding, [CALLER_MEANS[mood] for mood in moods], is_female)]
    voice_of_turn = [1 + moods.index(voice_cues[turn // 2]) if turn % 2 else 0 for turn in range(len(turns))]
    samples = speak(sounding, duration_ms, turns, voices, voice_of_turn)
    texts = write_dialogue(wording, words_cues, plan.kind, len(turns), report)
    label = _make_label(wording, plan, duration_ms, "F" if is_female else "M", _make_utterances(wording, turns, texts))
    return _encode_audio(plan.flaw, samples), _encode_label(plan.flaw, label, has_bom=bool(wording.random() < 0.03))


def _place_cues(
    rng: np.random.Generator, plan: CallPlan, num_caller_turns: int, config: SynthesizeConfig
) -> tuple[int | None, list[int], list[int]]:
    """The caller turn that is the report (None: all are alike), and the words and voice cue of each caller turn."""
    if config.cues == "call":
        return None, [plan.words_cue] * num_caller_turns, [plan.voice_cue] * num_caller_turns
    report = int(rng.integers(num_caller_turns))
    words_cues, voice_cues = rng.integers(0, 3, (2, num_caller_turns)).tolist()
    words_cues[report], voice_cues[report] = plan.words_cue, plan.voice_cue
    return report, words_cues, voice_cues


def _make_utterances(rng: np.random.Generator, turns: list[Turn], texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": rng.bytes(4).hex(), "startAt": turn.start_ms, "endAt": turn.end_ms, "text": text, "speaker": turn.speaker}
        for turn, text in zip(turns, texts, strict=True)
    ]


def _make_label(
    rng: np.random.Generator, plan: CallPlan, duration_ms: int, gender: str, utterances: list[dict[str, Any]]
) -> dict[str, Any]:
    call_id, timestamp = plan.stem.split("_")
    serial = int(rng.integers(1, 1000))
    # As in the real set: the path matches no file, and the call's end is now and then null or a float.
    end_at = (None, float(duration_ms), duration_ms)[int(rng.choice(3, p=(0.04, 0.04, 0.92)))]
    symptoms = rng.permutation(SYMPTOMS)[: rng.integers(0, 3)].tolist() if plan.kind == "구급" else []
    label = {
        "_id": call_id,
        "audioPath": f"{timestamp[:8]}/synthetic/{serial:03}/converted_{timestamp}_{serial:03}.wav",
        "recordId": rng.bytes(10).hex(),
        "status": 12,
        "startAt": 0,
        "endAt": end_at,
        "utterances": utterances,
        "mediaType": "Mobile",
        "gender": gender,
        "address": f"{CITIES[plan.region]} {draw_place(rng)}",
        "disasterLarge": plan.kind,
        "disasterMedium": str(rng.choice(MEDIUMS[plan.kind])),
        "urgencyLevel": URGENCY_LABELS[plan.urgency],
        "sentiment": str(rng.choice(SENTIMENT_LABELS, p=SENTIMENT_SHARES[plan.urgency])),
        "symptom": symptoms,
    }
    return label if rng.random() < 0.1 else {**label, "triage": str(rng.choice(TRIAGES))}


def _encode_audio(flaw: Reason | None, samples: NDArray[np.int16]) -> bytes | None:
    if flaw is Reason.MISSING_AUDIO:
        return None
    if flaw is Reason.NOT_AUDIO:
        return b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"
    content = io.BytesIO()
    with wave.open(content, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes(b"" if flaw is Reason.EMPTY_AUDIO else samples.astype("<i2").tobytes())
    wav = content.getvalue()
    return wav[: len(wav) // 3] if flaw is Reason.TRUNCATED_AUDIO else wav


def _encode_label(flaw: Reason | None, label: dict[str, Any], has_bom: bool) -> bytes | None:
    if flaw is Reason.MISSING_LABEL:
        return None
    if flaw is Reason.MISSING_URGENCY:
        del label["urgencyLevel"]
    if flaw is Reason.NO_TEXT:
        label["utterances"] = []
    text = json.dumps(label, ensure_ascii=False)
    if flaw is Reason.INVALID_JSON:
        text = text[: len(text) // 2]
    return text.encode("utf-8-sig" if has_bom else "utf-8")
