"""A model folder is loaded whole, or refused in one line that names the file: never a layer left to chance, never a NaN."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from urgency_ray.config import ModelConfig
from urgency_ray.errors import RequestError
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.load import load_model

SMALL = ModelConfig(hidden_dim=16, num_heads=2, num_layers=1, feedforward_dim=16, head_dim=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    UrgencyClassifier(SMALL, 10, 7).save_pretrained(tmp_path)
    return tmp_path


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return apply


def change_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        change(config)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return apply


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("raise SystemExit('run')",)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (change_weights(lambda w: w.pop("urgency.weight")), r"model\.safetensors: lacks urgency\.weight;"),
    "unknown tensor": (change_weights(lambda w: w.update(other=torch.ones(1))), r"model\.safetensors: holds, .* other;"),
    "other shape": (
        change_weights(lambda w: w.update({"urgency.bias": torch.ones(4)})),
        r"safetensors: does not fit the model that config\.json describes: RuntimeError: size mismatch for urgency\.bias",
    ),
    "NaN": (change_weights(lambda w: w["urgency.bias"].fill_(float("nan"))), r"holds NaN or infinite values in urgency\.bias;"),
    "infinite": (change_weights(lambda w: w["head.0.weight"].fill_(float("inf"))), r"infinite values in head\.0\.weight;"),
    "whole numbers": (
        change_weights(lambda w: w.update({"urgency.weight": w["urgency.weight"].to(torch.int8)})),
        r"holds whole numbers in urgency\.weight, which are none",
    ),
    "no temperature": (
        change_weights(lambda w: w["temperature"].zero_()),
        r"model\.safetensors: holds values that are not above 0 in temperature; train the model again",
    ),
    "no spread": (
        change_weights(lambda w: w["standardize_text.std"][:1].zero_()),
        r"holds values that are not above 0 in standardize_text\.std;",
    ),
    "cut": (cut, r"model\.safetensors: is cut: [\d,]+ of [\d,]+ bytes"),
    "empty": (put("model.safetensors", b""), r"model\.safetensors: is empty"),
    "LFS pointer": (
        put("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        r"model\.safetensors: is a Git-LFS pointer, not the weights; run `git lfs pull`",
    ),
    "pickle": (put("model.safetensors", pickle.dumps(Evil())), r"model\.safetensors: is a pickle of PyTorch's"),
    "web page": (put("model.safetensors", b"<!DOCTYPE html>"), r"model\.safetensors: is a web page"),
    "noise": (put("model.safetensors", bytes(range(1, 200))), r"model\.safetensors: is cut, or no safetensors file"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"holds no model\.safetensors"),
    "cut config": (put("config.json", b'{"model": {"name"'), r"config\.json: is not that of a model of urgency_ray"),
    "config of another model": (put("config.json", b'{"model_type": "bert"}'), r"config\.json: is not that of a model"),
    "newer field": (
        change_config(lambda c: (c["model"].update(gates=4), c.update(urgency_ray_version="9.0.0"))),
        r"config\.json: model\.gates: .*; the model was made by urgency_ray 9\.0\.0, this is [\d.]+: update$",
    ),
    "newer version": (
        change_config(lambda c: c.update(urgency_ray_version="9.0.0")),
        r"config\.json: the model was made by urgency_ray 9\.0\.0, this is [\d.]+: update$",
    ),
    "transform of another kind": (change_config(lambda c: c.update(transform="x")), r"config\.json: .*transform must be a"),
    "odd value": (change_config(lambda c: c["model"].update(hidden_dim="wide")), r"config\.json: model\.hidden_dim: "),
    "no widths": (change_config(lambda c: c.pop("audio_dim")), r"cannot be loaded: TypeError: .*audio_dim"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_folder_is_one_line_that_names_the_file(folder: Path, damage: str) -> None:
    load_model(str(folder))
    apply, message = DAMAGES[damage]
    apply(folder)
    with pytest.raises(RequestError, match=message) as caught:
        load_model(str(folder))
    assert str(caught.value).startswith(f"--model {folder}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("length", [0x1080, 0x3C20, 0x4B50])
def test_a_header_s_length_is_not_taken_for_a_pickle_or_a_web_page(folder: Path, length: int) -> None:
    path, before = folder / "model.safetensors", load_model(str(folder)).state_dict()
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(length.to_bytes(8, "little") + content[8:end].ljust(length) + content[end:])
    assert path.read_bytes()[:2] in {b"\x80\x10", b" <", b"PK"}
    after = load_model(str(folder)).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_folder_of_the_hub_s_mixin_alone_is_as_strict(folder: Path) -> None:
    change_weights(lambda weights: weights.pop("urgency.weight"))(folder)
    with pytest.raises(RequestError, match=r"lacks urgency\.weight"):
        UrgencyClassifier.from_pretrained(folder)


def test_a_pickle_beside_no_safetensors_is_not_loaded(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        UrgencyClassifier.from_pretrained(folder)


def test_a_model_says_which_version_made_it(folder: Path) -> None:
    from urgency_ray import __version__

    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["urgency_ray_version"] == __version__
