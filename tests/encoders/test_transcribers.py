"""Speech recognizers: what they write is what was said, in one window or many, alone or in company; what is none says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from odd_checkpoints import LFS, cut, drop, put, save_electra, save_moonshine, save_wav2vec2, want_code
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_whisper_checkpoint, tf
from tone_speller import RATE_HZ, random_text, speak

from urgency_ray.config import Config, TranscriberConfig
from urgency_ray.encoders.ctc import cut_windows
from urgency_ray.encoders.load import has_weights, load_transcriber, resolve_weights
from urgency_ray.encoders.probe import probe_encoders, probe_transcriber
from urgency_ray.encoders.whisper import cut_at_pauses
from urgency_ray.errors import RequestError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """From one letter to half a minute of them, a repeat of a letter now and then."""
    rng = np.random.default_rng(7)
    return [random_text(rng, num_letters) for num_letters in (1, 2, 5, 9, 30, 31, 60, 110)]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_whisper_checkpoint(tmp_path_factory.mktemp("recognizers"))


@pytest.mark.parametrize(("window_sec", "overlap_sec"), [(20.0, 4.0), (2.0, 1.0), (2.37, 0.7)])
def test_ctc_spells_what_was_said_in_however_many_windows(
    speller: str, texts: list[str], window_sec: float, overlap_sec: float
) -> None:
    transcriber = load_transcriber(TranscriberConfig(name=speller, window_sec=window_sec, overlap_sec=overlap_sec))
    sounds = [speak(text, seed=number) for number, text in enumerate(texts)]
    assert max(map(len, sounds)) / RATE_HZ > 20
    assert transcriber.transcribe(sounds) == texts
    assert [transcriber.transcribe([sound])[0] for sound in sounds] == texts


@pytest.mark.parametrize("fields", [{"dtype": "int8"}, {"dtype": "bfloat16"}, {"batch_size": 1}, {"batch_size": 64}])
def test_neither_arithmetic_nor_batches_change_what_is_spelled(speller: str, texts: list[str], fields: dict[str, Any]) -> None:
    transcriber = load_transcriber(TranscriberConfig(name=speller, window_sec=4.0, overlap_sec=1.0).model_copy(update=fields))
    assert transcriber.transcribe([speak(text) for text in texts[:6]]) == texts[:6]


def test_a_window_is_what_transformers_makes_of_it(speller: str) -> None:
    model = tf.AutoModelForCTC.from_pretrained(speller).eval()
    extractor, tokenizer = tf.AutoFeatureExtractor.from_pretrained(speller), tf.AutoTokenizer.from_pretrained(speller)
    # Noise, of which it makes something: the same, then.
    noise = (0.2 * np.random.default_rng(0).standard_normal(33_333)).astype(np.float32)
    with torch.inference_mode():
        logits = model(extractor(noise, sampling_rate=RATE_HZ, return_tensors="pt").input_values).logits
    assert load_transcriber(TranscriberConfig(name=speller)).transcribe([noise]) == [tokenizer.decode(logits.argmax(-1)[0])]


def test_nothing_that_is_said_is_no_text(speller: str) -> None:
    silence = np.full(20_000, 1e-4, np.float32)
    assert load_transcriber(TranscriberConfig(name=speller)).transcribe([silence, silence[:500]]) == ["", ""]


def test_a_window_decides_to_the_middle_of_what_it_shares() -> None:
    assert cut_windows(100, 100, 20) == [(0, 100, 0, 100)]
    assert cut_windows(170, 100, 20) == [(0, 100, 0, 90), (80, 170, 90, 170)]
    assert cut_windows(261, 100, 20) == [(0, 100, 0, 90), (80, 180, 90, 170), (160, 260, 170, 250), (240, 261, 250, 261)]


def test_a_stretch_ends_in_the_quietest_moment_near_its_end() -> None:
    sound = np.ones(1000, np.float32)
    sound[350:370], sound[395:399], sound[700:720] = 0.1, 0.0, 0.0
    # At most 400, the cut between 300 and 400, in the middle of 20 quiet samples; then from there.
    assert cut_at_pauses(sound, 400, 100, 20) == [(0, 360), (360, 710), (710, 1000)]
    assert cut_at_pauses(sound[:400], 400, 100, 20) == [(0, 400)]
    assert cut_at_pauses(sound, 400, 0, 20) == [(0, 400), (400, 800), (800, 1000)]


def _generate(whisper: str, sound: Any, **options: Any) -> str:
    """What transformers' own `generate` makes of one window."""
    model = tf.WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    extractor, tokenizer = tf.AutoFeatureExtractor.from_pretrained(whisper), tf.AutoTokenizer.from_pretrained(whisper)
    features = extractor(sound, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    tokens = model.generate(features, num_beams=1, do_sample=False, max_length=24, **options)
    text: str = tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]
    return text.strip()


def test_whisper_writes_what_plain_generate_does_window_by_window(whisper: str) -> None:
    transcriber = load_transcriber(TranscriberConfig(name=whisper, overlap_sec=1.0))
    sounds = [speak("가나다라마바"), speak("바바 가" * 12), speak("마")]
    options = {"language": "ko", "task": "transcribe"}
    spans = cut_at_pauses(sounds[1], 5 * RATE_HZ, RATE_HZ, RATE_HZ // 5)
    assert len(spans) == 3
    parts = [_generate(whisper, sounds[1][start:stop], **options) for start, stop in spans]
    assert len(set(parts)) > 1
    wanted = [_generate(whisper, sounds[0], **options), " ".join(parts), _generate(whisper, sounds[2], **options)]
    assert len(set(wanted)) == 3
    assert transcriber.transcribe(sounds) == wanted
    assert [transcriber.transcribe([sound])[0] for sound in sounds] == wanted


def test_whisper_writes_the_language_that_it_is_told(whisper: str, tmp_path: Path) -> None:
    sound = speak("가나다라마바")
    english = load_transcriber(TranscriberConfig(name=whisper, language="en")).transcribe([sound])[0]
    assert english == _generate(whisper, sound, language="en", task="transcribe")
    assert english != load_transcriber(TranscriberConfig(name=whisper)).transcribe([sound])[0]
    with pytest.raises(RequestError, match=r"^transcriber\.language: ja, but .* knows en, ko$"):
        load_transcriber(TranscriberConfig(name=whisper, language="ja"))
    # One of one language is told none.
    alone = save_whisper_checkpoint(tmp_path, languages=())
    assert load_transcriber(TranscriberConfig(name=alone)).transcribe([sound]) == [_generate(alone, sound)]


def test_both_kinds_prove_themselves_and_none_is_asked_where_none_is_used(speller: str, whisper: str) -> None:
    for name in (speller, whisper):
        for dtype in ("auto", "int8", "bfloat16"):
            probe_encoders(Config().replace({"transcriber.name": name, "transcriber.dtype": dtype}))
    probe_transcriber(TranscriberConfig(name="no/such/folder", use="never"))


def test_what_identifies_its_weights_is_a_digest_of_its_folder(speller: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(speller, tmp_path / "copy"))
    known = resolve_weights(TranscriberConfig(name=speller))
    assert known.startswith("sha256:")
    assert has_weights(TranscriberConfig(name=str(copy)), known)
    (copy / "vocab.json").write_text("{}", encoding="utf-8")
    assert not has_weights(TranscriberConfig(name=str(copy)), known)
    with pytest.raises(RequestError, match=r"^transcriber\.revision: main, but .* is a folder, which has no revisions"):
        resolve_weights(TranscriberConfig(name=speller, revision="main"))
    with pytest.raises(RequestError, match=r"^transcriber nobody/no-such-model: cannot be loaded"):
        resolve_weights(TranscriberConfig(name="nobody/no-such-model"))


def _change_config(**fields: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")

    return apply


def _lose_letters(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    few = {token: index for token, index in vocabulary.items() if index < 4}
    (folder / "vocab.json").write_text(json.dumps(few, ensure_ascii=False), encoding="utf-8")


def _change_weights(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def _hear_8_khz(folder: Path) -> None:
    tf.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(folder)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no head": (
        _change_weights(lambda weights: [weights.pop(f"lm_head.{name}") for name in ("weight", "bias")]),
        "weights lack",
    ),
    "NaN": (_change_weights(lambda weights: weights["lm_head.bias"].fill_(np.nan)), "hold NaN or infinite values in lm_head"),
    "cut": (cut, r"model\.safetensors is cut"),
    "LFS pointer": (put("model.safetensors", LFS), "is a Git-LFS pointer"),
    "8 kHz": (_hear_8_khz, "hears 8000 Hz, calls are decoded to 16000 Hz"),
    "no preprocessor": (drop("*processor*"), "cannot be loaded"),
    "no tokenizer": (drop("*token*"), "tokenizer"),
    "few letters": (_lose_letters, "its tokenizer knows 4 of its 9 tokens; copy its tokenizer files, too"),
    "another blank": (_change_config(pad_token_id=1), "its blank is token 1, and its tokenizer's is 0"),
    "adapters": (_change_config(adapter_attn_dim=16), "adapter"),
    "code": (want_code, "it wants to run code of its own, which is never done here"),
    "no folder": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_folder_that_cannot_be_used_is_one_line(speller: str, tmp_path: Path, name: str) -> None:
    damage, said = ODD[name]
    folder = Path(shutil.copytree(speller, tmp_path / "speller"))
    damage(folder)
    with pytest.raises(RequestError, match=rf"^transcriber {folder}: .*{said}") as caught:
        probe_transcriber(TranscriberConfig(name=str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [save_electra, save_moonshine, save_wav2vec2])
def test_a_model_of_another_kind_is_one_line(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path / "model")
    with pytest.raises(RequestError, match=rf"^transcriber {tmp_path / 'model'}: "):
        probe_transcriber(TranscriberConfig(name=str(tmp_path / "model")))


def test_a_whisper_without_its_tokenizer_is_one_line(tmp_path: Path) -> None:
    folder = Path(save_whisper_checkpoint(tmp_path))
    drop("token*")(folder)
    with pytest.raises(RequestError, match=rf"^transcriber {folder}: .*token"):
        probe_transcriber(TranscriberConfig(name=str(folder)))


def test_a_section_says_what_it_takes() -> None:
    with pytest.raises(RequestError, match="use: always needs a name"):
        Config().replace({"transcriber.use": "always"})
    with pytest.raises(RequestError, match="overlap_sec: must be at most half of window_sec, 2, but got 3"):
        Config().replace({"transcriber.window_sec": 4.0, "transcriber.overlap_sec": 3.0})
    with pytest.raises(RequestError, match=r"set data\.speakers to all, or data\.unit to utterance"):
        Config().replace({"transcriber.name": "a", "data.speakers": "caller"})
    assert Config().replace({"transcriber.name": "a", "data.speakers": "caller", "data.unit": "utterance"})
