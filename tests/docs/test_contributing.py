"""CONTRIBUTING.md's worked examples, applied to a copy of the package and checked; its recipe that shows no change."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE))


def blocks(text: Any, language: Any) -> Any:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def copy_package(folder: Any) -> Any:
    shutil.copytree(ROOT / "urgency_ray", folder / "urgency_ray", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(command: Any, package: Any, given: Any = None, **environment: Any) -> Any:
    """A command in the folder of a package, which its Python imports."""
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(
        command, check=False, cwd=package, env=environment, input=given, capture_output=True, text=True, errors="replace"
    )


def run_checks(package: Any, examples: Any = tuple(EXAMPLES)) -> Any:
    """The checks of some examples, one after the other in one process, since each would import torch anew."""
    checks = {example: blocks(EXAMPLES[example], "python")[0] for example in examples}
    program = f"for name, check in {checks!r}.items():\n    exec(compile(check, name, 'exec'), {{}})\n    print(name)"
    return run([sys.executable, "-c", program], package)


def apply(example: Any, package: Any) -> Any:
    (patch,) = blocks(EXAMPLES[example], "diff")
    # The folder lies in nobody's repository: git would else look for the files from the top of that.
    return run(["git", "apply", "--verbose", "-"], package, patch, GIT_CEILING_DIRECTORIES=str(package.parent))


def test_each_thing_that_is_added_often_has_its_example() -> None:
    assert list(EXAMPLES) == ["An encoder", "A model", "A loss", "A searched field"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_applies_to_the_code_as_it_is(example: Any, tmp_path: Path) -> None:
    applied = apply(example, copy_package(tmp_path))
    assert applied.returncode == 0, f"the code has moved away from CONTRIBUTING.md's example: {applied.stderr}"


def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    for example in EXAMPLES:
        assert apply(example, package).returncode == 0, example
    checked = run_checks(package)
    assert checked.stdout.split("\n")[:-1] == list(EXAMPLES), checked.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_s_check_fails_without_it(example: Any, tmp_path: Path) -> None:
    assert run_checks(copy_package(tmp_path), [example]).returncode == 1


@pytest.mark.slow
def test_all_examples_together_pass_the_linters(tmp_path: Path) -> None:
    package = copy_package(tmp_path)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, package)
    for name in ("jobs", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, package / name)
    for example in EXAMPLES:
        assert apply(example, package).returncode == 0, example
    for linter in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]):
        found = run([str(Path(sys.executable).parent / linter[0]), *linter[1:]], package)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.nightly
def test_the_recipe_for_a_change_that_changes_nothing_tells_one_that_does(tmp_path: Path) -> None:
    before, after, programs = tmp_path / "before", tmp_path / "after", tmp_path / "bin"
    programs.mkdir()
    (programs / "urgency-ray").write_text(f'#!/bin/sh\nexec {sys.executable} -m urgency_ray.cli "$@"\n', encoding="utf-8")
    (programs / "urgency-ray").chmod(0o755)
    for tree in (before, after):
        copy_package(tree)
        shutil.copytree(ROOT / "configs", tree / "configs")
    (recipe,) = blocks(TEXT, "bash")
    same = run_recipe(recipe, after, programs)
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.count("model: runs/same/model") == 2
    assert not [line for line in same.stdout.splitlines() if line.startswith(("<", ">"))]

    # A small change: the rows of an epoch in another order. The calls and the embeddings are there.
    loop = after / "urgency_ray" / "training" / "data.py"
    source = loop.read_text(encoding="utf-8")
    assert source.count("default_rng([seed, epoch])") == 1
    loop.write_text(source.replace("default_rng([seed, epoch])", "default_rng([seed, epoch, 1])"), encoding="utf-8")
    other = run_recipe(recipe, after, programs)
    assert other.returncode != 0
    assert re.search(r'^> +"train_loss"', other.stdout, re.MULTILINE)


def run_recipe(recipe: Any, folder: Any, programs: Any) -> Any:
    return run(["bash", "-euo", "pipefail", "-c", recipe], folder, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
