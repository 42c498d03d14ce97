from typing import Any

import numpy as np
import pytest
import torch

from urgency_ray.config import ModelConfig
from urgency_ray.examples.utterances import Utterances
from urgency_ray.model import Batch, UrgencyClassifier, UrgencyEnsemble
from urgency_ray.model.call_attention import batch_turns
from urgency_ray.model.merged import MergedMembers

SMALL: dict[str, Any] = {"hidden_dim": 16, "num_heads": 2, "num_layers": 1, "feedforward_dim": 24, "head_dim": 12}
ROWS = 50


def make_batch(by_call: bool = False) -> Batch:
    """Inputs far from 0 beside their deviations; of the acoustic features some are missing."""
    generator = torch.Generator().manual_seed(0)
    audio, text, acoustic = (torch.randn(ROWS, dim, generator=generator) for dim in (10, 7, 5))
    acoustic[::3, 2] = torch.nan
    batch = Batch(100.0 + audio, 0.1 * text - 3.0, 1e-4 * acoustic)
    if not by_call:
        return batch
    offsets = np.array([0, 1, 10, ROWS])
    spans = np.zeros((ROWS, 2), np.float32)
    utterances = Utterances(offsets=offsets, speaker=np.zeros(ROWS, np.int64), span=spans)
    return batch._replace(turns=batch_turns(utterances, np.arange(3), torch.device("cpu")))


def make_members(kind: dict[str, Any], number: int, with_sentiment: bool = False) -> list[UrgencyClassifier]:
    """Models of one shape, each of its own weights, temperature and, where it standardises, of slightly other statistics."""
    members = []
    for seed in range(number):
        torch.manual_seed(seed)
        config = ModelConfig(**SMALL | kind, dropout=0.1 + seed / 10)
        member = UrgencyClassifier(config, 10, 7, with_sentiment).eval()
        for standardize, mean, std in (
            (member.standardize_audio, 100.0, 1.0),
            (member.standardize_text, -3.0, 0.1),
            (member.standardize_acoustic, 0.0, 1e-4),
        ):
            if config.standardizes or standardize is member.standardize_acoustic:
                standardize.mean.copy_(mean + std * torch.randn(len(standardize.mean)) / 10)
                standardize.std.copy_(std * (0.9 + torch.rand(len(standardize.std)) / 5))
        member.temperature.copy_(torch.tensor([1.0 + seed / 4, 2.0]))
        members.append(member)
    return members


def join(members: list[UrgencyClassifier]) -> UrgencyEnsemble:
    size = len(members)
    return UrgencyEnsemble.of(members, range(size), [(1 + place) / (size * (size + 1) / 2) for place in range(size)])


MIXED: list[dict[str, Any]] = [{"name": "concat", "standardize_embeddings": True}, {"name": "linear"}, {"name": "discriminant"}]
STACKED: dict[str, Any] = {"name": "stacked"}


@pytest.mark.parametrize(
    "kinds",
    [
        MIXED,
        [{"name": "concat", "head_dim": None, "standardize_embeddings": True}, {"name": "linear", "acoustic_features": False}],
        [{"name": "cross_attention", "standardize_embeddings": True}, {"name": "cross_modal", "standardize_embeddings": True}],
        [{"name": "concat", "urgency_head": "corn", "standardize_embeddings": True, "modalities": "audio"}],
        [{"name": "concat", "modalities": "text", "standardize_embeddings": True}, {"name": "linear", "modalities": "text"}],
        [{"name": "cross_attention", "modalities": "audio"}, {"name": "linear", "modalities": "audio"}],
        [{"name": "concat", "hidden_dim": 24, "standardize_embeddings": True}, *MIXED],
        [*MIXED, STACKED, STACKED | {"acoustic_features": False}],
        [STACKED | {"modalities": "text"}, {"name": "linear", "modalities": "text"}],
        [STACKED | {"modalities": "audio"}],
    ],
    ids=str,
)
@pytest.mark.parametrize("by_call", [False, True])
def test_what_merged_members_say_is_what_each_says_for_itself(kinds: list[dict[str, Any]], by_call: bool) -> None:
    members = [member for kind in kinds for member in make_members(kind, 3)]
    ensemble, batch = join(members), make_batch(by_call)
    expected = sum(
        float(part.weight) * member.probabilities(member(batch))["urgency"].double()
        for part, member in zip(ensemble.ensemble.members, members, strict=True)
    )
    with torch.inference_mode():
        found = ensemble.probabilities(ensemble(batch))["urgency"]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_sentiment_and_the_weights_of_utterances_are_merged_too() -> None:
    members = [*make_members({"name": "hierarchical"}, 2, True), *make_members({"name": "concat"}, 2, True)]
    ensemble, batch = join(members), make_batch(by_call=True)
    wanted, attended = ensemble.explain(batch)
    with torch.inference_mode():
        found, weights = ensemble.explain(batch)
    assert weights is not None and attended is not None
    torch.testing.assert_close(weights, attended.detach())
    for task in ("urgency", "sentiment"):
        torch.testing.assert_close(found[task], wanted[task].detach())


def test_the_inputs_are_multiplied_once_for_all_members() -> None:
    merged = MergedMembers([member for kind in MIXED for member in make_members(kind, 5)])
    assert [group.places for group in merged.groups] == [[*range(5)], [*range(5, 15)]]
    # Five members of 16 outputs, and ten of one for each class.
    assert merged.first["audio"].embedding.weight.shape == (10, 5 * 16 + 10 * 3)


def test_a_weight_that_changes_is_noticed() -> None:
    members, batch = make_members({"name": "concat"}, 2), make_batch()
    ensemble = join(members)
    with torch.inference_mode():
        before = ensemble(batch)["urgency"]
        torch.nn.init.constant_(members[0].urgency.bias, 3.0)
        members[1].temperature.fill_(5.0)
        found = ensemble(batch)["urgency"]
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, ensemble(batch)["urgency"].detach())


def test_an_embedding_that_is_not_finite_counts_as_it_does_for_one_member() -> None:
    ensemble, batch = join(make_members({"name": "linear"}, 2)), make_batch()
    batch.audio[3, 4] = torch.nan
    with torch.inference_mode():
        found = ensemble(batch)["urgency"]
    torch.testing.assert_close(found, ensemble(batch)["urgency"].detach())
    assert found.isfinite().all()


def test_weights_learn_through_the_members_themselves() -> None:
    members = make_members({"name": "concat"}, 2)
    join(members)(make_batch())["urgency"].sum().backward()
    assert all(weight.grad is not None for member in members for weight in member.parameters())
