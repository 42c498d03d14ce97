"""What `dtype: auto` stands for, by processor, and embeddings of few bits against float32's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import save_audio_checkpoint, save_text_checkpoint
from torch import nn

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders import arithmetic
from urgency_ray.encoders.arithmetic import Arithmetic, best_arithmetic, bfloat16_gain, most_exact, recompute_overflows
from urgency_ray.encoders.load import load_audio_encoder, load_text_encoder


@pytest.mark.parametrize(
    ("capabilities", "gain", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, 0.1, "bfloat16"),
        ({"avx512_bf16": True}, 1.9, "bfloat16"),
        ({"avx512_bf16": True}, 1.0, "float32"),
        ({"bf16": True}, 2.0, "bfloat16"),
        ({"avx2": True, "amx_bf16": False}, 9.0, "float32"),
    ],
)
def test_a_cpu_gets_bfloat16_where_its_products_gain_by_it(
    capabilities: dict[str, bool], gain: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(arithmetic, "bfloat16_gain", lambda: gain)
    assert best_arithmetic("cpu").dtype == dtype


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_a_gpu_gets_bfloat16_from_ampere_on(capability: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_arithmetic("cuda").dtype == dtype


def test_nodes_agree_on_what_all_of_them_have() -> None:
    float32, float16, bfloat16 = (Arithmetic(dtype, "") for dtype in ("float32", "float16", "bfloat16"))
    assert most_exact([bfloat16, float32, bfloat16]) == float32
    assert most_exact([bfloat16, float16]) == float16
    assert most_exact([bfloat16]) == bfloat16


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("amx_bf16"), reason="no AMX here")
def test_amx_wins_the_race() -> None:
    assert bfloat16_gain() > arithmetic.LEAST_GAIN


# A wav2vec2 of 24 channels is at 0.97 in bfloat16, in transformers itself, too; one of full size is at 0.9999.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("data2vec", "bfloat16"),
        ("ast", "bfloat16"),
        *((name, "float16") for name in ("data2vec", "wav2vec2_layer", "wav2vec2_group", "ast")),
    ],
)
def test_sounds_in_few_bits_are_nearly_float32_s(tmp_path: Path, name: str, dtype: Any) -> None:
    config = AudioEncoderConfig(name=save_audio_checkpoint(tmp_path, name), dtype="float32")
    rng = np.random.default_rng(3)
    waveforms = [rng.standard_normal(num_samples).astype(np.float32) for num_samples in (8000, 21000)]
    exact = load_audio_encoder(config).encode(waveforms).vectors
    rounded = load_audio_encoder(config.model_copy(update={"dtype": dtype})).encode(waveforms).vectors
    assert not np.array_equal(exact, rounded)
    assert (exact * rounded).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_words_in_few_bits_are_nearly_float32_s(tmp_path: Path, dtype: Any) -> None:
    config = TextEncoderConfig(name=save_text_checkpoint(tmp_path, "roberta"), dtype="float32")
    texts = ["불이 났어요", "사람이 쓰러졌는데 의식이 없어요"]
    exact = load_text_encoder(config).encode(texts).vectors
    rounded = load_text_encoder(config.model_copy(update={"dtype": dtype})).encode(texts).vectors
    assert not np.array_equal(exact, rounded)
    assert (exact * rounded).sum(axis=1).min() >= 0.999


class Doubling(nn.Module):
    """Twice what it gets, by a weight, in a tuple as transformers' models give it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, values: torch.Tensor, *, shift: torch.Tensor) -> tuple[torch.Tensor]:
        return (values * self.weight + shift,)


def test_what_overflows_float16_is_computed_again_in_float32() -> None:
    model = Doubling().half()
    recompute_overflows(model)
    shift = torch.tensor([0.25], dtype=torch.float16)
    (small,) = model(torch.tensor([3.0], dtype=torch.float16), shift=shift)
    assert small.dtype == torch.float16
    assert small.item() == 6.25
    (large,) = model(torch.tensor([60000.0], dtype=torch.float16), shift=shift)
    # 2 * 60,000 is beyond float16's 65,504; 60,000 itself is one of its numbers.
    assert large.item() == 120000.25
    assert model.weight.dtype == torch.float16
