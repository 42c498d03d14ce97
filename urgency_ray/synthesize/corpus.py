"""A synthetic corpus in AI-Hub's own layout, for the demo, the tests and the benchmarks: nobody's voice, nobody's words.

The urgency of a call is drawn first, then a words cue and a voice cue, independent of each other given the urgency (`cues`).
The words cue picks what the caller says (`words`), the voice cue how it sounds (`voice`). Neither tells the urgency alone, both
together nearly do: `Corpus.ceiling` says how nearly, so that a score can be read against what there was to find.

With `cues: utterance` both cues are in one utterance of the caller, which opens as a report does (`words.REPORTING`); the
caller's other utterances have words and voices drawn at random. The ceilings are then those of who knows the report.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from urgency_ray import __version__
from urgency_ray.config import SynthesizeConfig
from urgency_ray.errors import Reason, RequestError
from urgency_ray.synthesize.cues import CLASS_SHARES, VOICE_RELIABILITY, WORDS_RELIABILITY, Ceiling, ceiling
from urgency_ray.synthesize.files import CITIES, FLAWS, MEDIUMS, CallPlan, make_files

DATA_FOLDER = "119_synthetic"
CORPUS_FILE = ".corpus.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flaw(_Record):
    """A call of the Training part that must be rejected, and the reason."""

    stem: str
    flaw: Reason


class Reliability(_Record):
    """P(cue | urgency) of both cues: 3 x 3, a row an urgency."""

    words: list[list[float]]
    voice: list[list[float]]


class Corpus(_Record):
    """What was made; `.corpus.json` holds the same."""

    version: str
    config: SynthesizeConfig
    num_calls: int
    num_flawed: int
    flaws: list[Flaw]
    ceiling: Ceiling
    reliability: Reliability
    cues: dict[str, tuple[int, int]]
    """Words cue and voice cue, 0 to 2, of every call by its file stem."""


def synthesize(root: str, config: SynthesizeConfig) -> Corpus:
    """Write a corpus below `root`: its archives in `119_synthetic`, what is in them in `.corpus.json`.

    The same config gives the same bytes. Where `root` holds the corpus of this very config already, nothing is written.

    Args:
        root: local folder, new or empty.
        config: how many calls, how long, how many flawed, which seed.

    Raises:
        RequestError: `root` is not a local folder, or holds something else.
    """
    if "://" in root:
        raise RequestError(f"{root}: a synthetic corpus must go to a local folder")
    folder = Path(root).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        return _read_corpus(folder, config)
    plans = _plan_calls(config)
    flaws = [Flaw(stem=plan.stem, flaw=plan.flaw) for plan in plans if plan.flaw]
    corpus = Corpus(
        version=__version__,
        config=config,
        num_calls=len(plans),
        num_flawed=len(flaws),
        flaws=flaws,
        ceiling=ceiling(WORDS_RELIABILITY, VOICE_RELIABILITY, CLASS_SHARES),
        reliability=Reliability(words=WORDS_RELIABILITY.tolist(), voice=VOICE_RELIABILITY.tolist()),
        cues={plan.stem: (plan.words_cue, plan.voice_cue) for plan in plans},
    )
    folder.mkdir(parents=True, exist_ok=True)
    # Interrupted, it leaves an empty folder, so that the next attempt is not taken for one to overwrite somebody's files.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        for archive, members in groupby(sorted(plans, key=lambda plan: plan.archive), key=lambda plan: plan.archive):
            _write_archives(Path(unfinished, DATA_FOLDER), archive, members, config)
        Path(unfinished, DATA_FOLDER).rename(folder / DATA_FOLDER)
    (folder / CORPUS_FILE).write_text(corpus.model_dump_json(), encoding="utf-8")
    return corpus


def _read_corpus(folder: Path, config: SynthesizeConfig) -> Corpus:
    advice = "remove it, or name another folder"
    try:
        corpus = Corpus.model_validate_json((folder / CORPUS_FILE).read_bytes())
    except (OSError, ValidationError):
        raise RequestError(f"{folder}: must be an empty folder or a synthetic corpus but is neither; {advice}") from None
    if (corpus.version, corpus.config) != (__version__, config):
        raise RequestError(f"{folder}: holds a synthetic corpus of another config or version; {advice}")
    return corpus


def _plan_calls(config: SynthesizeConfig) -> list[CallPlan]:
    root_seed = np.random.SeedSequence(config.seed)
    rng = np.random.default_rng(root_seed)
    num_validation = round(config.num_calls / 5)
    num_training = config.num_calls - num_validation
    urgencies = [*_share_out(rng, num_training).tolist(), *_share_out(rng, num_validation).tolist()]
    flawed = rng.permutation(num_training)[: round(config.flaw_fraction * num_training)].tolist()
    flaws = {call: FLAWS[number % len(FLAWS)] for number, call in enumerate(flawed)}
    return [
        CallPlan(
            stem=_draw_stem(rng),
            split="Training" if call < num_training else "Validation",
            region=str(rng.choice(list(CITIES))),
            kind=str(rng.choice(list(MEDIUMS))),
            urgency=urgency,
            words_cue=int(rng.choice(3, p=WORDS_RELIABILITY[urgency])),
            voice_cue=int(rng.choice(3, p=VOICE_RELIABILITY[urgency])),
            flaw=flaws.get(call),
            seed=seed,
        )
        for call, (urgency, seed) in enumerate(zip(urgencies, root_seed.spawn(config.num_calls), strict=True))
    ]


def _share_out(rng: np.random.Generator, num_calls: int) -> NDArray[np.int64]:
    """Urgencies (num_calls,) in the shares of the classes, to the nearest call, shuffled."""
    bounds = np.rint(np.cumsum(CLASS_SHARES) * num_calls)
    return rng.permutation(np.searchsorted(bounds, np.arange(num_calls), side="right"))


def _draw_stem(rng: np.random.Generator) -> str:
    """`<_id>_<timestamp>`, as the provider names the files of a call."""
    month, day, hour, minute, second = rng.integers((1, 1, 0, 0, 0), (13, 29, 24, 60, 60))
    return f"{rng.bytes(12).hex()}_2023{month:02}{day:02}{hour:02}{minute:02}{second:02}"


def _write_archives(root: Path, archive: tuple[str, str, str], plans: Iterable[CallPlan], config: SynthesizeConfig) -> None:
    split, region, kind = archive
    audio_path = root / split / "1.원천데이터" / f"{split[0]}S_{region}_{kind}.zip"
    label_path = root / split / "2.라벨링데이터" / f"{split[0]}L_{region}_{kind}.zip"
    for path in (audio_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(audio_path, "w") as audio_zip, zipfile.ZipFile(label_path, "w") as label_zip:
        for plan in plans:
            audio, label = make_files(plan, config)
            if audio is not None:
                # Noise hardly shrinks: deflating it would take as long as making it.
                audio_zip.writestr(_entry(f"{plan.stem}.wav", zipfile.ZIP_STORED), audio)
            if label is not None:
                label_zip.writestr(_entry(f"{plan.stem}.json", zipfile.ZIP_DEFLATED), label)


def _entry(name: str, compress_type: int) -> zipfile.ZipInfo:
    """A zip entry that holds neither the clock nor the operating system."""
    entry = zipfile.ZipInfo(name, date_time=(2024, 1, 1, 0, 0, 0))
    entry.compress_type = compress_type
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
