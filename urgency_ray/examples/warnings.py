"""What is wrong with the rows of a run before anything is trained on them: embeddings that say nothing, or are out of scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples

SAMPLE_ROWS = 4096
SAME = 1e-5
"""Embeddings none of whose numbers varies by more, relative to the whole vector's size, are one and the same."""
SCALE = (1e-3, 1e3)
"""Sizes (root mean square) that a model takes as they are."""
LARGEST = 1e12
"""Beyond it float32 overflows in the first layer."""


def embedding_warnings(examples: Examples, *, standardized: bool) -> list[str]:
    """A line for each modality whose embeddings are all the same, or of a size that a model cannot learn from.

    Args:
        examples: the rows of a run; of many, an even sample is looked at.
        standardized: whether the model standardises embeddings, so that their size does not matter.

    Raises:
        RequestError: the embeddings overflow any model that does not standardise them.
    """
    return [line for name in ("audio", "text") for line in _warnings(name, getattr(examples, name), standardized)]


def _warnings(name: str, embeddings: NDArray[np.float32], standardized: bool) -> Iterator[str]:
    rows = embeddings[:: max(1, len(embeddings) // SAMPLE_ROWS)].astype(np.float64)
    size = float(np.sqrt((rows**2).mean())) if rows.size else 0.0
    if not size:
        yield f"all {name} embeddings are zero: {name} says nothing"
        return
    if not standardized and size > LARGEST:
        raise RequestError(
            f"model.standardize_embeddings: false, but the {name} embeddings are of size {size:.0e}, which overflows: say true"
        )
    if len(rows) > 1 and rows.std(axis=0).max() <= SAME * np.linalg.norm(rows.mean(axis=0)):
        yield f"all {name} embeddings are the same, or nearly: {name} says nothing"
    elif not standardized and not SCALE[0] <= size <= SCALE[1]:
        yield (
            f"the {name} embeddings are of size {size:.0e}: a model hardly learns from them as they are; "
            "set model.standardize_embeddings to true"
        )
