"""A language of tones, each of them a letter, and a tiny CTC model that is trained on the spot to spell it."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from numpy.typing import NDArray

tf: Any = transformers  # its constructors and checkpoints are typed in part only

RATE_HZ = 16_000
LETTERS = "가나다라마바"
TONES_HZ = dict(zip("|" + LETTERS, (300, 500, 750, 1050, 1450, 1950, 2600), strict=True))
"""`|` is the blank between words, which has a tone of its own."""
TONE_SEC, GAP_SEC = 0.12, 0.08
LETTER_SEC = TONE_SEC + GAP_SEC
HOP = 320
_BLANK = "[PAD]"


def speak(text: str, level: float = 0.3, seed: int = 0) -> NDArray[np.float32]:
    """The sound of a text, each letter 0.2 s, over a little noise."""
    time_sec = np.arange(round(TONE_SEC * RATE_HZ)) / RATE_HZ
    ramp = np.minimum(1, np.minimum(time_sec, time_sec[::-1]) / 0.01)
    gap = np.zeros(round(GAP_SEC * RATE_HZ))
    parts = [
        part for letter in text.replace(" ", "|") for part in (ramp * np.sin(2 * np.pi * TONES_HZ[letter] * time_sec), gap)
    ]
    clean = level * np.concatenate([gap, *parts, gap])
    return (clean + 0.003 * np.random.default_rng(seed).standard_normal(len(clean))).astype(np.float32)


def wav_of(waveform: NDArray[np.float32]) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, waveform, RATE_HZ, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def random_text(rng: np.random.Generator, num_letters: int) -> str:
    """Letters in words of 1 to 4; a letter can follow itself."""
    letters = "".join(rng.choice(list(LETTERS), num_letters))
    text, start = [], 0
    while start < num_letters:
        stop = start + int(rng.integers(1, 5))
        text.append(letters[start:stop])
        start = stop
    return " ".join(text)


def _bands(num_channels: int, kernel: int) -> torch.Tensor:
    """A filter bank (num_channels, 1, kernel): sines and cosines of the tones, so that training is short."""
    time_sec = np.arange(kernel) / RATE_HZ
    angles = [2 * np.pi * hz * time_sec for hz in TONES_HZ.values()]
    waves = [
        wave * np.hanning(kernel) for angle in angles for wave in (np.sin(angle), -np.sin(angle), np.cos(angle), -np.cos(angle))
    ]
    return torch.tensor(np.stack(waves)[:num_channels, None] / 20, dtype=torch.float32)


def train_speller(folder: Path) -> str:
    """Train a Wav2Vec2ForCTC to spell tones, and save it in transformers' layout; takes some seconds."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny batches are many times slower where threads wait for one another
    rng = np.random.default_rng(0)
    vocabulary = {token: index for index, token in enumerate([_BLANK, "[UNK]", *TONES_HZ])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    tokenizer = tf.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), pad_token=_BLANK, unk_token="[UNK]", bos_token=None, eos_token=None
    )
    extractor = tf.Wav2Vec2FeatureExtractor(sampling_rate=RATE_HZ, do_normalize=True, return_attention_mask=True)
    channels = 4 * len(TONES_HZ)
    config = tf.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(channels, 32),
        conv_kernel=(400, 4),
        conv_stride=(80, 4),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        vocab_size=len(vocabulary),
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        ctc_loss_reduction="mean",
        **dict.fromkeys(
            ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "layerdrop"),
            0.0,
        ),
        apply_spec_augment=False,
    )
    model = tf.Wav2Vec2ForCTC(config)
    with torch.no_grad():
        model.wav2vec2.feature_extractor.conv_layers[0].conv.weight.copy_(_bands(channels, 400))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
    for step in range(STEPS):
        texts = _equally_long(rng, 6)
        sounds = [speak(text, level=float(rng.uniform(0.1, 0.9)), seed=step) for text in texts]
        # One where nothing is said: it is brought to unit variance, too.
        sounds.append(rng.standard_normal(len(sounds[0])).astype(np.float32))
        inputs = extractor(sounds, sampling_rate=RATE_HZ, return_tensors="pt").input_values
        logits = model(inputs).logits
        spelled = torch.tensor(np.stack([_frames(text, logits.shape[1], vocabulary) for text in [*texts, ""]]))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), spelled.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    for part in (model, tokenizer, extractor):
        part.save_pretrained(folder)
    return str(folder)


STEPS = 60


def _frames(text: str, num_frames: int, vocabulary: dict[str, int]) -> NDArray[np.int64]:
    """The token of each frame (num_frames,), by what sounds at its middle: CTC's loss alone would take minutes to find out."""
    middle_sec = (np.arange(num_frames) + 1) * HOP / RATE_HZ - GAP_SEC
    position = np.floor(middle_sec / LETTER_SEC).astype(int)
    sounds = (middle_sec - position * LETTER_SEC < TONE_SEC) & (position >= 0) & (position < len(text))
    tokens = np.array([vocabulary[letter] for letter in text.replace(" ", "|")] + [vocabulary[_BLANK]])
    return np.where(sounds, tokens[position.clip(0, len(text))], vocabulary[_BLANK])


def _equally_long(rng: np.random.Generator, num_texts: int) -> Sequence[str]:
    """Texts of as many letters, blanks counted."""
    size = int(rng.integers(4, 16))
    return [random_text(rng, size)[:size].strip().ljust(size, LETTERS[0]) for _ in range(num_texts)]
