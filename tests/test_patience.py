"""A store that is away for a moment is waited for; one that refuses has answered."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from urgency_ray import patience
from urgency_ray.errors import UnreachableError
from urgency_ray.patience import is_outage, patiently

AWAY = OSError("When reading 'k' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7")
REFUSED = OSError("When reading 'k' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: No response body.")


class Store:
    """Raises what it is given, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_asked = 0

    def __call__(self) -> str:
        self.num_asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "content"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves; the seconds of each sleep."""
    slept: list[float] = []
    monkeypatch.setattr(patience, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    return slept


def test_a_store_that_is_away_for_a_moment_is_asked_again_and_said_once(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(AWAY, AWAY, AWAY, AWAY, AWAY)
    with caplog.at_level(logging.WARNING):
        assert patiently("s3://b/k", store) == "content"
    assert clock == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert caplog.messages == ["warning: s3://b/k does not answer: trying again for 60 s"]


def test_after_a_minute_it_is_given_up_in_one_line(clock: list[float]) -> None:
    store = Store(*[AWAY] * 100)
    with pytest.raises(UnreachableError) as caught:
        patiently("s3://b/k", store)
    assert 50 < sum(clock) <= 60
    assert str(caught.value).startswith("s3://b/k: has not answered for 60 s: When reading")
    assert str(caught.value).endswith("what is done is kept: run the command again")


@pytest.mark.parametrize("error", [REFUSED, FileNotFoundError("k"), UnreachableError(str(AWAY)), ValueError(str(AWAY))])
def test_nothing_else_is_tried_again(clock: list[float], error: Exception) -> None:
    store = Store(error)
    with pytest.raises(type(error)):
        patiently("s3://b/k", store)
    assert store.num_asked == 1


@pytest.mark.parametrize(
    ("said", "outage"),
    [
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.", True),
        ("AWS Error UNKNOWN (HTTP status 503) during ListObjectsV2 operation", True),
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted", True),
        ("AWS Error UNKNOWN (HTTP status 400) during CompleteMultipartUpload operation", False),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation", False),
        ("AWS Error INVALID_ACCESS_KEY_ID during HeadObject operation", False),
    ],
)
def test_what_arrow_says_tells_an_outage_from_an_answer(said: Any, outage: bool) -> None:
    assert is_outage(OSError(said)) == outage
