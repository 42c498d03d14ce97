"""A model's transform on the machine that trained it, on another, and of version 0.2.0."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import save_text_checkpoint

from urgency_ray.config import Config
from urgency_ray.embedding.transform import make_fingerprint, pin_arithmetic, repeat_transform
from urgency_ray.encoders.arithmetic import Arithmetic
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Transform


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    folder = Path(save_text_checkpoint(tmp_path, "electra"))
    (folder / "README.md").write_text("as downloaded", encoding="utf-8")
    return folder


@pytest.fixture
def transform(checkpoint: Any) -> Any:
    config = Config().replace({"text_encoder.name": str(checkpoint), "data.root": "/data/119", "data.unit": "utterance"})
    config = pin_arithmetic(config, 0, lambda question, on_gpu: [Arithmetic("float32", "")])
    return Transform.of(config, make_fingerprint(config)).model_dump()


def test_the_machine_that_trained_needs_no_encoder_named(transform: Any, checkpoint: Any) -> None:
    config = repeat_transform(Config(), transform)
    assert (config.text_encoder.name, config.data.unit) == (str(checkpoint), "utterance")


def test_a_document_beside_the_weights_may_change(transform: Any, checkpoint: Any) -> None:
    (checkpoint / "README.md").write_text("edited", encoding="utf-8")
    assert repeat_transform(Config(), transform).text_encoder.name == str(checkpoint)


def test_other_weights_at_the_same_place_are_refused(transform: Any, checkpoint: Any) -> None:
    with (checkpoint / "model.safetensors").open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(RequestError, match=r"^--model: its transform cannot be repeated here: text_encoder\.weights: sha256:"):
        repeat_transform(Config(), transform)


def test_on_another_machine_the_folder_is_asked_for_and_its_digest_decides(
    transform: Any, checkpoint: Any, tmp_path: Path
) -> None:
    moved = str(shutil.move(checkpoint, tmp_path / "elsewhere"))
    wanted = rf"^--model: its text encoder was the folder {checkpoint}, which is not here; give --text_encoder\.name a folder"
    with pytest.raises(RequestError, match=wanted):
        repeat_transform(Config(), transform)
    given = Config().replace({"text_encoder.name": moved})
    assert repeat_transform(given, transform).text_encoder.name == moved
    (Path(moved) / "model.safetensors").write_bytes((Path(moved) / "model.safetensors").read_bytes() + b"\n")
    with pytest.raises(RequestError, match=r"text_encoder\.weights: sha256:"):
        repeat_transform(given, transform)


@pytest.mark.parametrize("section", ["data", "text_encoder", "fingerprint", "split"])
def test_one_that_is_not_whole_is_one_line(transform: Any, section: str) -> None:
    broken = transform | {section: "x"}
    with pytest.raises(RequestError, match=rf"^--model: config\.json: transform\.{section}: .*; take another copy of it$"):
        repeat_transform(Config(), broken)


def test_where_calls_lay_is_not_kept(transform: Any) -> None:
    assert "/data/119" not in json.dumps(transform)


def test_a_model_of_version_0_2_0_predicts_while_its_encoder_s_folder_is_as_it_was(transform: Any, checkpoint: Any) -> None:
    # It kept data.root and batch_size, and digested all files.
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(checkpoint.iterdir())]
    transform["fingerprint"]["text_encoder"]["weights"] = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    transform["data"]["root"] = "/data/119"
    transform["text_encoder"]["batch_size"] = 32
    del transform["data"]["text_rules"], transform["fingerprint"]["text_rules"]
    config = repeat_transform(Config().replace({"data.root": "new"}), transform)
    assert (config.text_encoder.name, config.data.root) == (str(checkpoint), "new")
    assert config.data.text_rules == 1  # the words of new calls are to it what those of its training were
    (checkpoint / "README.md").write_text("edited", encoding="utf-8")
    with pytest.raises(RequestError, match=r"text_encoder\.weights: sha256:"):
        repeat_transform(Config(), transform)


def test_new_calls_may_be_headerless_where_those_of_the_training_were_not(transform: Any) -> None:
    assert repeat_transform(Config().replace({"data.pcm_rate_hz": 8000}), transform).data.pcm_rate_hz == 8000
    with pytest.raises(RequestError, match=r"^--data\.channel: left, but the model's embeddings were made with mean"):
        repeat_transform(Config().replace({"data.channel": "left"}), transform)
