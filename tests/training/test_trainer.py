"""The digest of the code that names checkpoints: it follows what decides a weight, and nothing else."""

import shutil
from pathlib import Path

import pytest

from urgency_ray.training.trainer import PACKAGE, code_digest


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
