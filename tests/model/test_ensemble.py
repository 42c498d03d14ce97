import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from urgency_ray.config import ModelConfig
from urgency_ray.errors import RequestError
from urgency_ray.model import Batch, UrgencyClassifier, UrgencyEnsemble, load_model

SMALL: dict[str, Any] = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "feedforward_dim": 24, "head_dim": 12}
WEIGHTS = [0.5, 0.125, 0.375]
FOLDS = [0, 1, 0]


def make_batch(rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio, text, acoustic = (torch.randn(rows, dim, generator=generator) for dim in (10, 7, 5))
    return Batch(audio, text, acoustic)


def make_members() -> Any:
    """Two fusion models and a linear one, none of them calibrated like another."""
    members = []
    kinds: list[dict[str, Any]] = [SMALL, SMALL | {"name": "concat"}, {"name": "linear"}]
    for seed, kind in enumerate(kinds):
        torch.manual_seed(seed)
        member = UrgencyClassifier(ModelConfig(**kind), 10, 7, kind.get("name") != "linear", {"unit": "call"}).eval()
        member.temperature.copy_(torch.tensor([1.0 + seed, 2.0]))
        members.append(member)
    return members


def make_ensemble() -> Any:
    return UrgencyEnsemble.of(make_members(), FOLDS, WEIGHTS)


def test_its_probabilities_are_the_weighted_mean_of_the_members_own() -> None:
    ensemble, batch = make_ensemble(), make_batch()
    # Written out: softmax(logits / T) of each, times its weight; the linear one has no say on sentiment.
    told = [torch.softmax(member(batch)["urgency"] / (1.0 + seed), -1) for seed, member in enumerate(make_members())]
    expected = 0.5 * told[0] + 0.125 * told[1] + 0.375 * told[2]
    felt = [torch.softmax(member(batch)["sentiment"] / 2.0, -1) for member in make_members()[:2]]
    probs = ensemble.probabilities(ensemble(batch))
    torch.testing.assert_close(probs["urgency"], expected)
    torch.testing.assert_close(probs["sentiment"], (0.5 * felt[0] + 0.125 * felt[1]) / 0.625)


def test_its_own_temperature_sharpens_or_softens_the_mean() -> None:
    ensemble, batch = make_ensemble(), make_batch()
    mean = ensemble.probabilities(ensemble(batch))["urgency"]
    ensemble.temperature.copy_(torch.tensor([2.0, 1.0]))
    softened = mean.sqrt() / mean.sqrt().sum(-1, keepdim=True)
    torch.testing.assert_close(ensemble.probabilities(ensemble(batch))["urgency"], softened)


def test_a_fold_s_rows_are_judged_by_the_members_that_have_not_seen_it() -> None:
    ensemble, batch, members = make_ensemble(), make_batch(), make_members()
    first, last = (member.probabilities(member(batch))["urgency"] for member in (members[0], members[2]))
    held_out = ensemble.held_out(0)
    torch.testing.assert_close(held_out.probabilities(held_out(batch))["urgency"], (0.5 * first + 0.375 * last) / 0.875)
    assert ensemble.num_folds == 2


def test_it_is_saved_in_one_folder_and_one_file_of_weights_and_loads_as_it_was(tmp_path: Path) -> None:
    ensemble, batch = make_ensemble(), make_batch()
    ensemble.temperature.copy_(torch.tensor([1.25, 0.5]))
    ensemble.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for loaded in (load_model(str(tmp_path)), UrgencyEnsemble.from_pretrained(tmp_path)):
        assert isinstance(loaded, UrgencyEnsemble)
        assert (loaded.ensemble, loaded.transform) == (ensemble.ensemble, {"unit": "call"})
        assert loaded.widths == {"audio": 10, "text": 7}
        for task, logits in ensemble(batch).items():
            torch.testing.assert_close(loaded(batch)[task], logits, rtol=0, atol=0)
        torch.testing.assert_close(loaded.temperature, ensemble.temperature)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda saved: saved["members"][0].update(weight=0.9), "the members' weights must sum to 1 but sum to 1.4"),
        (lambda saved: saved["members"][0].update(weight=float("nan")), r"ensemble\.members\.0\.weight"),
        (lambda saved: saved.update(members=[]), r"ensemble\.members"),
        (lambda saved: saved["members"][1]["model"].update(gate="new"), r"ensemble\.members\.1\.model\.gate"),
    ],
)
def test_a_config_that_is_none_of_an_ensemble_is_one_line(tmp_path: Path, change: Any, words: str) -> None:
    make_ensemble().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    change(saved["ensemble"])
    path.write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(RequestError, match=words) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["members.2.urgency.weight", "members.1.temperature"])
def test_a_member_that_is_broken_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    make_ensemble().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {name: torch.full_like(weights[name], float("nan"))}, tmp_path / "model.safetensors")
    with pytest.raises(RequestError, match=f"holds NaN or infinite values in {name}"):
        load_model(str(tmp_path))
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(RequestError, match=f"lacks {name}"):
        load_model(str(tmp_path))
