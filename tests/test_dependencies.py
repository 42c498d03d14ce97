import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = ("completion", "mlflow", "wandb")


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """What an installation has, and what its extras bring, which are imported where they are asked for."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    requirements = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    return {normalise(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def imported() -> set[str]:
    """The distributions whose modules the package imports, wherever in a file."""
    modules = set()
    for path in (ROOT / "urgency_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module is not None  # only `from . import` has none
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    return {normalise(distributions[module][0]) for module in modules - sys.stdlib_module_names - {"urgency_ray"}}


def test_what_is_imported_is_declared() -> None:
    assert imported() - declared() == set()


def test_what_is_declared_is_imported() -> None:
    assert declared() - imported() == set()


@pytest.mark.parametrize("module", ["training.worker", "search.trial"])
def test_a_process_that_trains_does_not_wait_for_imports_that_it_has_no_use_for(module: str) -> None:
    heavy = {"librosa", "mlflow", "optuna", "scipy.optimize", "scipy.stats", "sklearn", "tensorboard", "transformers"}
    code = f"import sys, urgency_ray.{module}; print(*({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []
