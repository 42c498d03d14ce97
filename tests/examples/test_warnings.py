from typing import Any

import numpy as np
import pandas as pd
import pytest

from urgency_ray.errors import RequestError
from urgency_ray.examples.dataset import Examples
from urgency_ray.examples.warnings import embedding_warnings


def make_examples(audio: Any, text: Any) -> Examples:
    size = len(audio)
    labels = np.zeros(size, np.int64)
    acoustic = np.zeros((size, 5), np.float32)
    return Examples(pd.DataFrame(), np.asarray(audio, np.float32), np.asarray(text, np.float32), acoustic, labels, labels, None)


def draw(scale: float = 1.0, offset: float = 0.0) -> Any:
    return scale * (np.random.default_rng(0).standard_normal((60, 8)) + offset)


@pytest.mark.parametrize("standardized", [True, False])
def test_embeddings_that_differ_are_not_named(standardized: bool) -> None:
    # As of an encoder with L2 norm, and as of levels in dB.
    unit = draw() / np.linalg.norm(draw(), axis=1, keepdims=True)
    assert embedding_warnings(make_examples(unit, draw(10.0, -40.0)), standardized=standardized) == []


@pytest.mark.parametrize("standardized", [True, False])
def test_embeddings_that_are_all_the_same_or_zero_say_nothing(standardized: bool) -> None:
    same = np.tile(draw()[:1], (60, 1)) + 1e-7 * draw()
    assert embedding_warnings(make_examples(same, np.zeros((60, 4))), standardized=standardized) == [
        "all audio embeddings are the same, or nearly: audio says nothing",
        "all text embeddings are zero: text says nothing",
    ]


@pytest.mark.parametrize(("scale", "size"), [(1e-30, "1e-30"), (1e6, "1e+06")])
def test_a_size_that_a_model_cannot_learn_from_is_named_with_what_helps(scale: float, size: str) -> None:
    examples = make_examples(draw(), draw(scale))
    (line,) = embedding_warnings(examples, standardized=False)
    assert line == (
        f"the text embeddings are of size {size}: a model hardly learns from them as they are; "
        "set model.standardize_embeddings to true"
    )
    assert embedding_warnings(examples, standardized=True) == []


def test_a_size_that_overflows_every_model_is_refused_unless_it_is_standardised() -> None:
    examples = make_examples(draw(1e30), draw())
    with pytest.raises(RequestError, match=r"standardize_embeddings: false, but the audio embeddings are of size 1e\+30"):
        embedding_warnings(examples, standardized=False)
    assert embedding_warnings(examples, standardized=True) == []
