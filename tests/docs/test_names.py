"""What docstrings and comments call by its module's name is in that module: `loss.corn`, `schema.ACOUSTIC_FEATURES`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from urgency_ray.config import iter_fields

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("urgency_ray", "jobs", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
PACKAGE = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
    for path in SOURCES
    if path.is_relative_to(ROOT / "urgency_ray")
}
ENDINGS = ("py", "json", "yaml", "csv", "npz", "npy", "parquet", "txt", "toml", "log", "html", "zip", "wav")
FIELDS = {field for field, _ in iter_fields()}


def names_of(node: Any) -> Iterator[Any]:
    """What the body of a module or class defines; of a class also its methods and fields, as `Class.name`."""
    for part in node.body:
        if isinstance(part, ast.ClassDef):
            yield part.name
            yield from (f"{part.name}.{name}" for name in names_of(part))
        elif isinstance(part, ast.FunctionDef):
            yield part.name
        elif isinstance(part, ast.Assign | ast.AnnAssign):
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(part, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in part.names)


KNOWN = {f".{module}.{name}" for module, tree in PACKAGE.items() for name in names_of(tree)} | {
    f".{module}" for module in PACKAGE
}


def lost_names(source: Any) -> Iterator[Any]:
    """The dotted names in backticks that begin like a module, or end like a class or a constant, and are nowhere."""
    tree = ast.parse(source)
    variables = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    variables |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    foreign = {alias.asname or alias.name for node in imports for alias in node.names} - {"urgency_ray"}
    foreign -= {part for module in PACKAGE for part in module.split(".")}
    beginnings = {part for module in PACKAGE for part in module.split(".")[1:]}
    for name in sorted(set(re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)(?:\(\))?`", source))):
        first, last = name.split(".")[0], name.split(".")[-1]
        if name in FIELDS or last in ENDINGS or first in foreign or (first in variables and last.islower()):
            continue
        # A module's own name may be cut short at the front: `loss.corn`.
        if (first in beginnings or not last.islower()) and not any(known.endswith(f".{name}") for known in KNOWN):
            yield name


def test_it_finds_names_of_modules_that_are_gone() -> None:
    source = (
        "# `train.calibrate`, `attention.CALL_OUTPUT_SCHEMA`, `stages.Nothing`, but not `loss.corn`, `train.epochs`, `a.csv`"
    )
    assert list(lost_names(source)) == ["attention.CALL_OUTPUT_SCHEMA", "stages.Nothing", "train.calibrate"]
    assert list(lost_names("def f(model):\n    '''Uses `model.config` and `model.Missing`.'''")) == ["model.Missing"]


def test_every_name_of_a_module_s_own_is_in_that_module() -> None:
    lost = {
        path.relative_to(ROOT).as_posix(): names for path in SOURCES if (names := list(lost_names(path.read_text("utf-8"))))
    }
    assert lost == {}


def test_every_file_of_the_package_that_is_named_is_there() -> None:
    files = {path.name for path in SOURCES}
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        for name in re.findall(r"\b([a-z_]+\.py)\b", path.read_text("utf-8"))
    }
    assert {(path, name) for path, name in named if name not in files} == set()
