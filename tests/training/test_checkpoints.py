"""Which checkpoints a training goes on from: what decides a weight, the code's digest too, and nothing else, names them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from urgency_ray import storage
from urgency_ray.config import Config
from urgency_ray.training.checkpoints import PACKAGE, Checkpoints, Identity, code_digest, identify


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "urgency_ray", ignore=shutil.ignore_patterns("__pycache__")))


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# an edit\n", encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["training/fit.py", "training/data.py", "model/layers.py", "examples/splits.py", "scoring/metrics.py"]
)
def test_an_edit_of_what_decides_a_weight_begins_afresh(package: Path, name: str) -> None:
    before = code_digest(package)
    edit(package / name)
    assert code_digest(package) != before


@pytest.mark.parametrize(
    "name", ["cli.py", "commands/train.py", "report/page.py", "embedding/pipeline.py", "scoring/blocks.py"]
)
def test_an_edit_of_anything_else_goes_on_from_the_checkpoints(package: Path, name: str) -> None:
    before = code_digest(package)
    edit(package / name)
    assert code_digest(package) == before


def test_a_module_that_is_new_or_has_another_name_counts(package: Path) -> None:
    before = code_digest(package)
    (package / "model" / "other.py").write_text("", encoding="utf-8")
    new = code_digest(package)
    (package / "model" / "other.py").rename(package / "model" / "another.py")
    assert len({before, new, code_digest(package)}) == 3


def make_identity(**changes: Any) -> Identity:
    config = Config().replace({field: value for field, value in changes.items() if "." in field})
    others = {field: value for field, value in changes.items() if "." not in field}
    return identify({"fused": config}, ["rows"], []).model_copy(update=others)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.learning_rate": 0.25}, "train.learning_rate was 3e-05, is 0.25"),
        ({"data": ["others"]}, "the embeddings, labels or splits have changed"),
        ({"code": "edited"}, "the code of urgency_ray has changed"),
        ({"weights": ["other"]}, "the initial weights have changed"),
        ({"configs": {"audio": {}}}, "it trained fused, this trains audio"),
    ],
)
def test_a_training_that_cannot_go_on_from_an_interrupted_one_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], words: str
) -> None:
    Checkpoints(str(tmp_path), make_identity()).begin()
    Checkpoints(str(tmp_path), make_identity(**changes)).begin()
    (record,) = caplog.records
    line = f"warning: an interrupted training cannot be gone on with ({words}): training starts over"
    assert record.getMessage() == line


def test_the_same_training_and_one_that_comes_after_a_whole_one_begin_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Checkpoints(str(tmp_path), make_identity())
    first.begin()
    # What decides the speed alone does not count.
    Checkpoints(str(tmp_path), make_identity(**{"train.cpus_per_worker": 2.0})).begin()
    assert not first.is_ended()
    storage.write_text(first.result("fused"), "")
    assert first.is_ended()
    other = Checkpoints(str(tmp_path), make_identity(code="edited"))
    other.begin()
    assert caplog.records == []
    other.discard_others()
    assert storage.list_folders(str(tmp_path)) == [other.name]
    other.discard()
    assert storage.list_folders(str(tmp_path)) == []
