"""What made embeddings: what is kept of it, and when two are the same."""

import json

import pytest

from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint, refuse_other

WEIGHTS = {"audio_encoder": "built-in", "text_encoder": "built-in"}
NEWER = {"data.channel": "left", "data.min_call_sec": 1.0, "data.pcm_rate_hz": 8000, "data.require_text": False}


def made_by(**overrides: object) -> Fingerprint:
    return Fingerprint.of(Config().replace(overrides), WEIGHTS, "0.2.0")


def test_at_their_defaults_fields_that_0_2_0_did_not_have_are_left_out() -> None:
    data = {"unit", "speakers", "require_urgency", "min_utterance_sec", "max_call_sec"}
    assert made_by().model_dump().keys() == {*data, "audio_encoder", "text_encoder", "code_version"}
    assert made_by().settings().keys() - made_by().model_dump().keys() == {field.removeprefix("data.") for field in NEWER}


@pytest.mark.parametrize(("field", "value"), NEWER.items())
def test_otherwise_they_are_kept_and_compared(field: str, value: object) -> None:
    name = field.removeprefix("data.")
    other = Fingerprint.model_validate(json.loads(made_by(**{field: value}).model_dump_json()))
    assert other.model_dump()[name] == value
    with pytest.raises(RequestError, match=rf"\({name}: .* there, {value} here\)"):
        refuse_other("runs/a", made_by(), other)
    refuse_other("runs/a", other, made_by(**{field: value}))
