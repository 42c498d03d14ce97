"""What made embeddings: what is kept of it, and when two are the same."""

import json

import pytest

from urgency_ray import __version__
from urgency_ray.config import Config
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint, Transform, refuse_other
from urgency_ray.schema import embedding_schema

WEIGHTS = {"audio_encoder": "built-in", "text_encoder": "built-in"}
NEWER = {"data.channel": "left", "data.min_call_sec": 1.0, "data.pcm_rate_hz": 8000, "data.require_text": False}
AS_0_2_0: dict[str, object] = {"data.text_rules": 1}


def made_by(**overrides: object) -> Fingerprint:
    return Fingerprint.of(Config().replace(overrides), WEIGHTS, "0.2.0")


def test_at_their_defaults_fields_that_0_2_0_did_not_have_are_left_out() -> None:
    data = {"unit", "speakers", "require_urgency", "min_utterance_sec", "max_call_sec"}
    made = made_by(**AS_0_2_0)
    assert made.model_dump().keys() == {*data, "audio_encoder", "text_encoder", "code_version"}
    assert made.settings().keys() - made.model_dump().keys() == {field.removeprefix("data.") for field in NEWER | AS_0_2_0}


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("99.0.0", rf"^embeddings: were made by urgency_ray 99.0.0, this is {__version__}: update$"),
        ("soon", "^embeddings: fingerprint.code_version: Invalid version: 'soon': not of urgency_ray$"),
    ],
)
def test_embeddings_of_a_newer_version_are_refused(version: str, says: str) -> None:
    made = made_by().model_copy(update={"code_version": version})
    with pytest.raises(RequestError, match=says):
        Fingerprint.of_schema(embedding_schema(2, 1, made.model_dump()))


def test_those_of_an_older_one_and_of_another_patch_are_read() -> None:
    for version in ("0.1.0", __version__, f"{__version__}.post1"):
        made = made_by().model_copy(update={"code_version": version})
        assert Fingerprint.of_schema(embedding_schema(2, 1, made.model_dump())) == made


def test_rows_of_an_older_version_and_of_this_one_meet_where_their_fields_are_the_same() -> None:
    older = made_by().model_copy(update={"code_version": "0.1.0"})
    assert older != made_by() and not older.differences(made_by())
    refuse_other("runs/a", older, made_by())


def test_words_that_other_rules_left_do_not_meet_in_a_run_folder() -> None:
    with pytest.raises(RequestError, match=r"\(text_rules: 1 there, 2 here\)"):
        refuse_other("runs/a", made_by(**AS_0_2_0), made_by())
    refuse_other("runs/a", made_by(**AS_0_2_0), Fingerprint.model_validate_json(made_by(**AS_0_2_0).model_dump_json()))


@pytest.mark.parametrize(("field", "value"), NEWER.items())
def test_otherwise_they_are_kept_and_compared(field: str, value: object) -> None:
    name = field.removeprefix("data.")
    other = Fingerprint.model_validate(json.loads(made_by(**{field: value}).model_dump_json()))
    assert other.model_dump()[name] == value
    with pytest.raises(RequestError, match=rf"\({name}: .* there, {value} here\)"):
        refuse_other("runs/a", made_by(), other)
    refuse_other("runs/a", other, made_by(**{field: value}))


def transcribed(**overrides: object) -> Fingerprint:
    config = Config().replace({"transcriber.name": "models/asr"} | overrides)
    return Fingerprint.of(config, WEIGHTS | {"transcriber": "sha256:1"}, "0.2.0")


def test_a_transcriber_that_is_not_used_is_no_part_of_it() -> None:
    assert made_by(**{"transcriber.name": "models/asr", "transcriber.use": "never"}) == made_by()
    assert "transcriber" not in json.loads(made_by().model_dump_json())
    assert Transform.of(Config(), made_by()).model_dump()["transcriber"] == {}


@pytest.mark.parametrize(
    ("field", "value"), [("use", "always"), ("window_sec", 9.0), ("overlap_sec", 1.0), ("language", None), ("revision", "a1")]
)
def test_one_that_is_used_is_compared_with_all_that_decides_a_word(field: str, value: object) -> None:
    other = Fingerprint.model_validate(json.loads(transcribed(**{f"transcriber.{field}": value}).model_dump_json()))
    assert list(transcribed().differences(other)) == [f"transcriber.{field}"]
    assert not other.differences(transcribed(**{f"transcriber.{field}": value}))
    assert "transcriber.name" in made_by().differences(other)
    assert not made_by().differences(other.without_transcriber())


def test_how_many_windows_it_hears_at_once_is_no_part_of_it() -> None:
    assert transcribed(**{"transcriber.batch_size": 2}) == transcribed()
