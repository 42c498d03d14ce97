"""What identifies a folder's weights: the files that loading reads, in the digest of version 0.2.0."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import save_audio_checkpoint, save_text_checkpoint
from transformers import AutoModel

from urgency_ray.config import AudioEncoderConfig, TextEncoderConfig
from urgency_ray.encoders.load import has_weights, resolve_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(save_text_checkpoint(tmp_path, "electra"))


def identify(folder: Path) -> Any:
    return resolve_weights(TextEncoderConfig(name=str(folder)))


def digest_as_0_2_0(folder: Path) -> Any:
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in sorted(folder.iterdir())]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


@pytest.mark.parametrize("name", ["electra", "data2vec"])
def test_a_saved_checkpoint_keeps_the_digest_of_version_0_2_0(tmp_path: Path, name: str) -> None:
    if name == "electra":
        folder = Path(save_text_checkpoint(tmp_path, name))
        found = identify(folder)
    else:
        folder = Path(save_audio_checkpoint(tmp_path, name))
        found = resolve_weights(AudioEncoderConfig(name=str(folder)))
    assert found == digest_as_0_2_0(folder)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE.txt",
        ".DS_Store",
        ".gitattributes",
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "training_args.bin",
        "trainer_state.json",
        "eval_results.json",
        "model.onnx",
        "tf_model.h5",
        "flax_model.msgpack",
        "pytorch_model.bin",  # beside safetensors, which transformers takes
        "onnx/model.safetensors",
    ],
)
def test_what_loading_does_not_read_is_no_part_of_it(checkpoint: Path, name: str) -> None:
    before = identify(checkpoint)
    path = checkpoint / name
    path.parent.mkdir(exist_ok=True)
    for content in ("one thing", "another"):
        path.write_text(content, encoding="utf-8")
        assert identify(checkpoint) == before
    assert AutoModel.from_pretrained(checkpoint) is not None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_what_loading_reads_is(checkpoint: Path, name: str) -> None:
    before = identify(checkpoint)
    with (checkpoint / name).open("ab") as stream:
        stream.write(b"\n")
    assert identify(checkpoint) != before


def test_pytorch_s_weights_count_where_there_are_no_others(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    before = identify(checkpoint)
    with (checkpoint / "pytorch_model.bin").open("ab") as stream:
        stream.write(b"\n")
    assert identify(checkpoint) != before


def test_shards_and_their_index_count(checkpoint: Path) -> None:
    model = AutoModel.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    model.save_pretrained(checkpoint, max_shard_size="20KB")
    shards = sorted(checkpoint.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    for path in (shards[-1], checkpoint / "model.safetensors.index.json"):
        before = identify(checkpoint)
        with path.open("ab") as stream:
            stream.write(b"\n")
        assert identify(checkpoint) != before


def test_a_digest_of_0_2_0_holds_while_all_files_are_as_they_were(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "README.md").write_text("as downloaded", encoding="utf-8")
    config, known = TextEncoderConfig(name=str(checkpoint)), digest_as_0_2_0(checkpoint)
    assert known != identify(checkpoint)
    assert has_weights(config, known)
    assert has_weights(config, identify(checkpoint))
    other = TextEncoderConfig(name=shutil.copytree(checkpoint, tmp_path / "copy").as_posix())
    assert has_weights(other, known)
    (checkpoint / "README.md").write_text("edited", encoding="utf-8")
    assert not has_weights(config, known)
    assert not has_weights(TextEncoderConfig(), known)
    assert has_weights(TextEncoderConfig(), "built-in")
