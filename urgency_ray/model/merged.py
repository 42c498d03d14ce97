"""The members of an ensemble in one pass: their first layers are one product, those of one shape go through the rest together.

Standardisation is folded into the first layers, so that the inputs are read once for all members, not once for each.

Shapes: B examples, R embedding rows, C classes, D inputs, K members of a shape, H outputs of a member's first layer (a linear
member's are its logits, a stacked one's its scores), O those of all members side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from urgency_ray.model.batch import Batch
from urgency_ray.model.call_attention import Turns, mean_over_calls
from urgency_ray.model.classifier import Concat, CornHead, Standardize, UrgencyClassifier
from urgency_ray.model.score_surface import NUM_SCORES, ScoreSurface, bumps

MODALITIES = ("audio", "text")


class Said(NamedTuple):
    """What K members say of a batch.

    Attributes:
        places: of the members in their ensemble, (K,).
        logits: by task, (K, B, C).
        weights: of the utterances, (K, R), where a call is several; else None.
    """

    places: list[int]
    logits: dict[str, Tensor]
    weights: Tensor | None


class MergedMembers:
    """What classifiers say, by fewer and larger products than one by one; in evaluation mode, and without gradients.

    Attributes:
        others: places of those that are not merged: a text encoder is part of them, or they mix layers before their first one.
    """

    def __init__(self, members: Sequence[UrgencyClassifier]) -> None:
        self.members = list(members)
        self.others = [
            place
            for place, member in enumerate(members)
            if member.config.text_encoder is not None or max(member.num_layers.values()) > 1
        ]
        shapes: dict[str, list[int]] = {}
        for place, member in enumerate(members):
            if place not in self.others:
                shapes.setdefault(_shape(member), []).append(place)
        self.groups = [_Group(places, [members[place] for place in places]) for places in shapes.values()]
        merged = [member for group in self.groups for member in group.members]
        self.first = {name: _FirstLayers(merged, name) for name in MODALITIES if any(_uses(m, name) for m in merged)}
        self.sources = list(nn.ModuleList(members).state_dict(keep_vars=True).values())
        self.changes = self._count_changes()

    def is_current(self, members: Sequence[UrgencyClassifier]) -> bool:
        """Whether these are the members, and none of their weights has changed."""
        return [*map(id, members)] == [*map(id, self.members)] and self._count_changes() == self.changes

    def explain(self, batch: Batch) -> list[Said] | None:
        """What the members say; None where an input is not finite, which is for each of them to judge."""
        projected = {name: layers(batch) for name, layers in self.first.items()}
        if not all(bool(values.sum().isfinite()) for values in projected.values()):
            return None
        said, starts = [], dict.fromkeys(projected, 0)
        for group in self.groups:
            own = []
            for name in starts:
                if _uses(group.members[0], name):
                    start, starts[name] = starts[name], starts[name] + len(group.places) * group.width
                    own.append(projected[name][:, start : starts[name]].view(-1, len(group.places), group.width))
            said.append(group.decide(own, batch.turns))
        return said

    def _count_changes(self) -> list[tuple[int, int]]:
        # A tensor that was made in inference mode does not count them.
        return [(source.data_ptr(), 0 if source.is_inference() else source._version) for source in self.sources]


class _FirstLayers:
    """What members multiply a modality's inputs by, once these are standardised, side by side: (R, O) before activations.

    Args:
        members: of which those count that use the modality.
        name: of the modality.
    """

    def __init__(self, members: Sequence[UrgencyClassifier], name: str) -> None:
        using = [member for member in members if _uses(member, name)]
        layers = [_first_layer(member, name) for member in using]
        self.name = name
        self.embedding = _Inputs([getattr(member, f"standardize_{name}") for member in using], [layer[0] for layer in layers])
        self.acoustic = _Inputs([member.standardize_acoustic for member in using], [layer[1] for layer in layers])
        bias = torch.cat([layer[2] for layer in layers]).double() + self.embedding.offset + self.acoustic.offset
        self.bias = bias.float()

    def __call__(self, batch: Batch) -> Tensor:
        out = self.bias
        if self.name == "text":
            return torch.addmm(out, self.embedding.shifted(batch.text), self.embedding.weight)
        # Any of the features can be missing, and then counts as the mean: what its shift took is given back.
        missing = batch.acoustic.isnan()
        known = self.acoustic.shifted(batch.acoustic).masked_fill(missing, 0.0)
        out = torch.addmm(out, known, self.acoustic.weight)
        if missing.any():
            out = torch.addmm(out, missing.float(), self.acoustic.gap)
        return torch.addmm(out, self.embedding.shifted(batch.audio), self.embedding.weight)


class _Inputs:
    """Layers of several members over the same inputs with their standardisation in them: w (x - mean) / std.

    It is taken as w / std (x - shift) + offset. The shift, the members' mean mean, is 0 where the means are too small beside
    the deviations for the difference to cost digits.

    Args:
        standardized: the members' statistics, of D inputs.
        weights: of each member, (H, D).

    Attributes:
        weight: (D, O).
        gap: (D, O), what an input adds that is at its member's mean.
        offset: (O,), float64.
    """

    def __init__(self, standardized: Sequence[Standardize], weights: Sequence[Tensor]) -> None:
        means, stds = (torch.stack([getattr(each, part) for each in standardized]).double() for part in ("mean", "std"))
        self.shift = means.mean(dim=0) if (means.abs() > stds).any() else torch.zeros_like(means[0])
        scaled = [weight.double() / std for weight, std in zip(weights, stds, strict=True)]
        gaps = [weight * (mean - self.shift) for weight, mean in zip(scaled, means, strict=True)]
        self.is_shifted = bool(self.shift.any())
        self.shift = self.shift.float()
        self.weight = torch.cat(scaled).T.float().contiguous()
        self.gap = torch.cat(gaps).T.float().contiguous()
        self.offset = -torch.cat(gaps).sum(dim=1)

    def shifted(self, values: Tensor) -> Tensor:
        """(R, D) to (R, D)."""
        return values - self.shift if self.is_shifted else values


class _Group:
    """Members of one shape, behind their first layers.

    Attributes:
        places: of the members in their ensemble.
        width: outputs of a member's first layer (H).
    """

    def __init__(self, places: list[int], members: list[UrgencyClassifier]) -> None:
        self.places, self.members = places, members
        first = members[0]
        self.is_stacked = isinstance(first.head, ScoreSurface)
        self.width = first.urgency.out_features if first.config.is_linear else first.config.hidden_dim
        if self.is_stacked:
            self.width, self.surface = NUM_SCORES, _Layers([member.urgency for member in members])
        names = [] if first.config.is_fitted else [name for name in MODALITIES if _uses(first, name)]
        self.activations = [_Activations([getattr(member, f"project_{name}") for member in members]) for name in names]
        self.heads = _Heads(members) if isinstance(first.trunk, Concat) else None

    def decide(self, projected: list[Tensor], turns: Turns | None) -> Said:
        """What they say of what their first layers gave: of each modality in use (R, K, H)."""
        if self.members[0].config.is_linear:
            summed, even = _over_calls(torch.stack(projected).sum(dim=0), turns)
            return Said(self.places, {"urgency": summed.movedim(1, 0)}, even)
        if self.is_stacked:
            scores, even = _over_calls(torch.cat(projected, dim=-1), turns)
            heights = bumps(scores.view(*scores.shape[:2], -1, NUM_SCORES)).flatten(2)
            return Said(self.places, {"urgency": self.surface(heights)}, even)
        tokens = [activations(values) for activations, values in zip(self.activations, projected, strict=True)]
        if self.heads is not None:
            fused, even = _over_calls(torch.cat(tokens, dim=-1), turns)
            return Said(self.places, self.heads(fused), even)
        # What attends takes its time in products and elementwise, K times as long for K members: side by side saves nothing.
        told: list[dict[str, Tensor]] = []
        weights: list[Tensor] = []
        for place, member in enumerate(self.members):
            assert member.trunk is not None, "what has no trunk is linear or stacked"
            logits, attended = member.decide(member.trunk(torch.stack([values[:, place] for values in tokens], dim=1)), turns)
            told.append(logits)
            weights += [] if attended is None else [attended]
        by_task = {task: torch.stack([logits[task] for logits in told]) for task in told[0]}
        return Said(self.places, by_task, torch.stack(weights) if weights else None)


class _Activations:
    """What follows the linear layers of several members' projections: layer norm and GELU."""

    def __init__(self, projections: Sequence[nn.Sequential]) -> None:
        norms: list[Any] = [projection[1] for projection in projections]
        self.weight, self.bias = (torch.stack([getattr(norm, part).detach() for norm in norms]) for part in ("weight", "bias"))
        self.eps: float = norms[0].eps

    def __call__(self, values: Tensor) -> Tensor:
        """(R, K, H) to (R, K, H)."""
        normed = nn.functional.layer_norm(values, values.shape[-1:], eps=self.eps)
        return nn.functional.gelu(torch.addcmul(self.bias, normed, self.weight))


class _Layers:
    """Linear layers of several members, each for its own rows."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.weight = torch.stack([layer.weight.detach().T for layer in layers])
        self.bias = torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1)

    def __call__(self, values: Tensor) -> Tensor:
        """(B, K, D) to (K, B, H)."""
        return torch.baddbmm(self.bias, values.movedim(1, 0), self.weight)


class _Heads:
    """What follows the trunk in several members."""

    def __init__(self, members: Sequence[UrgencyClassifier]) -> None:
        heads: list[Any] = [member.head for member in members if isinstance(member.head, nn.Sequential)]
        self.hidden = (_Layers([head[0] for head in heads]), _Activations(heads)) if heads else None
        first = members[0]
        tasks = ("urgency",) if first.sentiment is None else ("urgency", "sentiment")
        self.tasks = {task: _Layers([getattr(member, task) for member in members]) for task in tasks}
        self.is_corn = isinstance(first.urgency, CornHead)

    def __call__(self, fused: Tensor) -> dict[str, Tensor]:
        """(B, K, D) to the logits of each task (K, B, C)."""
        if self.hidden is not None:
            layers, activations = self.hidden
            fused = activations(layers(fused).movedim(0, 1))
        logits = {task: layers(fused) for task, layers in self.tasks.items()}
        return logits | {"urgency": CornHead.chain(logits["urgency"])} if self.is_corn else logits


def _over_calls(values: Tensor, turns: Turns | None) -> tuple[Tensor, Tensor | None]:
    """(R, K, D), of the rows, to (B, K, D) and weights (K, R): the means of the calls, where a call is several rows."""
    if turns is None:
        return values, None
    means, even = mean_over_calls(values.flatten(1), turns)
    return means.view(-1, *values.shape[1:]), even.expand(values.shape[1], -1)


def _shape(member: UrgencyClassifier) -> str:
    """The same for members whose layers are alike: what only training knows does not count."""
    alike = member.config.model_copy(update={"dropout": 0.0, "encoder_dropout": 0.0, "standardize_embeddings": True})
    return f"{'linear' if alike.is_linear else alike.name} {alike.model_dump_json(exclude={'name'})} {member.sentiment is None}"


def _uses(member: UrgencyClassifier, name: str) -> bool:
    return bool(member.hears if name == "audio" else member.reads)


def _first_layer(member: UrgencyClassifier, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of a member that uses the modality: weights of the embedding (H, D), of the acoustic features (H, 5), and bias (H,)."""
    if member.config.is_linear:
        # One layer over all inputs side by side, audio first; it has one bias.
        dim = member.urgency.in_features - member.widths["text"] * member.reads
        weight = member.urgency.weight[:, :dim] if name == "audio" else member.urgency.weight[:, dim:]
        bias = member.urgency.bias if name == "audio" or not member.hears else torch.zeros_like(member.urgency.bias)
    elif isinstance(member.head, ScoreSurface):
        own: Any = member.head.scores[0 if name == "audio" else -1]
        weight, bias = own.weight, own.bias
    else:
        layer: Any = (member.project_audio if name == "audio" else member.project_text)[0]
        weight, bias = layer.weight, layer.bias
    embedding, acoustic = weight[:, : member.widths[name]], weight[:, member.widths[name] :]
    missing = len(member.standardize_acoustic.mean) - acoustic.shape[1]
    return embedding.detach(), nn.functional.pad(acoustic.detach(), (0, missing)), bias.detach()
