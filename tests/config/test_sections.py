from pathlib import Path
from typing import Any

import pytest

from urgency_ray import __version__
from urgency_ray.config import Config, describe, iter_fields, load_config, parse_config, parse_yaml
from urgency_ray.errors import RequestError


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train: {epochs: 7, learning_rate: 3e-4}\nmodel: {hidden_dim: 64}\n", encoding="utf-8")
    config = load_config(path, {"train.epochs": "9", "extract.use_gpu": "false", "audio_encoder.window_sec": "null"})
    assert (config.train.epochs, config.train.learning_rate, config.model.hidden_dim) == (9, 3e-4, 64)
    assert config.extract.use_gpu is False
    assert config.train.batch_size == Config().train.batch_size


@pytest.mark.parametrize("text", ["/data/119 #1", "0123", "12e4567", "a: b", "[1", "한국"])
def test_texts_on_the_command_line_are_taken_as_they_are(text: str) -> None:
    assert load_config(None, {"data.root": text}).data.root == text
    assert load_config(None, {"data.root": "null"}).data.root is None


def test_a_resolved_config_survives_yaml() -> None:
    config = Config().replace({"tune.space": {"loss": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight"]}}})
    assert parse_config(parse_yaml(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("text", "value"), [("3e-5", 3e-5), ("1E3", 1e3), ("-2.5e+2", -250.0), ("7", 7), ("1e", "1e"), ("a", "a")]
)
def test_yaml_numbers_are_those_of_yaml_1_2(text: str, value: float | int | str) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": "5"}, r"^train\.epoch: no such field; did you mean train\.epochs\?$"),
        ({"train.epochs": "five"}, r"train\.epochs: must be an integer >= 1 .* but got 'five'"),
        ({"train.epochs": "2.5"}, r"train\.epochs: must be an integer"),
        ({"train.epochs": "true"}, r"train\.epochs: must be an integer .* but got True"),
        ({"train.epochs": "0"}, r"must be an integer >= 1 and <= 100000 but got 0"),
        ({"train.learning_rate": ".nan"}, r"train\.learning_rate: must be a number > 0 but got nan"),
        (
            {"model.name": "transformer"},
            r"model\.name: must be one of cross_attention, concat, cross_modal, .*, discriminant, stacked but got",
        ),
        ({"model.hidden_dim": "100"}, r"hidden_dim 100 must be a multiple of num_heads 8"),
        ({"split.val_fraction": "0.6", "split.test_fraction": "0.4"}, r"split: val_fraction \+ test_fraction must be below 1"),
        ({"loss.kl_weight": "0", "loss.focal_weight": "0", "loss.cross_entropy_weight": "0"}, r"must be above 0"),
        ({"tune.space": "{train.lr: {type: float, low: 1, high: 2}}"}, r"tune\.space: train\.lr: no such field"),
        ({"extract.use_gpu": "maybe"}, r"extract\.use_gpu: must be true or false, or null but got 'maybe'"),
    ],
)
def test_a_wrong_value_names_the_field_and_what_it_takes(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {epochs: 5}", r"c\.yaml: trian: no such section; did you mean train\?"),
        ("train: 5", r"c\.yaml: train: must be a mapping of fields but got 5"),
        ("train: {epoch: 5}", r"c\.yaml: train\.epoch: no such field; did you mean train\.epochs\?"),
        ("- 1", r"c\.yaml: must be a mapping of sections but got list"),
        ("train: {", r"c\.yaml: not valid YAML"),
        ("train: {epochs: 5}\ntrain: {batch_size: 8}", r"c\.yaml: not valid YAML: train is given twice"),
        ("train: {epochs: 5, epochs: 6}", r"c\.yaml: not valid YAML: epochs is given twice"),
        ("!!python/object/apply:os.system ['true']", r"c\.yaml: not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--config .*nowhere\.yaml: No such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_every_fault_of_a_file_gets_a_line() -> None:
    with pytest.raises(RequestError) as caught:
        parse_config({"train": {"epochs": 0}, "model": {"dropout": 2.0}}, source="x.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_every_field_says_what_it_is_and_what_it_takes() -> None:
    for name, field in iter_fields():
        assert field.description, name
        assert describe(field), name


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.epochs = 3


def test_trials_share_one_gpu_or_have_whole_ones() -> None:
    assert Config().replace({"tune.gpus_per_trial": 0.25}).tune.gpus_per_trial == 0.25
    with pytest.raises(RequestError, match=r"tune: gpus_per_trial must be at most 1 or a whole number but got 1\.5"):
        Config().replace({"tune.gpus_per_trial": 1.5})


def test_what_a_newer_version_wrote_is_refused_whether_its_fields_are_known_or_not(tmp_path: Path) -> None:
    path, text = tmp_path / "config.yaml", Config().to_yaml()
    path.write_text(text, encoding="utf-8")
    assert load_config(path) == Config()
    fields = text.partition("\n")[2]
    for newer in (fields, fields.replace("train:\n", "train:\n  momentum: 0.9\n")):
        path.write_text(f"# urgency_ray 99.1.0\n{newer}", encoding="utf-8")
        with pytest.raises(RequestError, match=r"^\S*config\.yaml: urgency_ray 99\.1\.0 wrote it, this is .*: update$"):
            load_config(path)


@pytest.mark.parametrize(
    "first_line", ["# urgency_ray 0.1.0", f"# urgency_ray {__version__}.post1", "# urgency_ray soon", "# mine"]
)
def test_what_an_older_version_a_patch_or_a_user_wrote_is_read(first_line: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{first_line}\ntrain: {{epochs: 3}}\n", encoding="utf-8")
    assert load_config(path).train.epochs == 3
