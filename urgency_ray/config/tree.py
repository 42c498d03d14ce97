"""A tree of sections: from YAML and dotted overrides to frozen, validated sections, and every fault in words.

`root` is always the class that holds the sections: what is written here is about fields of any name. An unknown key, a wrong
type or a value out of range raises `RequestError`, whose text names the field, what it takes and what it got.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import annotated_types
import yaml
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from urgency_ray import __version__
from urgency_ray.errors import RequestError
from urgency_ray.secret import refuse_secret
from urgency_ray.versions import is_newer

VERSION_LINE = "# urgency_ray {}\n"
"""First line of a config that this program has written; the first versions wrote none."""


class Role(StrEnum):
    """What a field decides, stated beside it (`Annotated[int, Role.SPEED]`), or once for all fields of a section."""

    EMBEDDING = "embedding"  # the value of an embedding, or which rows there are: part of the fingerprint
    RECIPE = "recipe"  # a trained weight; a search may vary it
    SETUP = "setup"  # a trained weight; all trials of a search share it
    SEARCH = "search"  # what a search tries, and by what it compares
    EXTENT = "extent"  # how far a search goes: it goes on when this grows
    REPORT = "report"  # what is scored and reported beside the model itself
    SPEED = "speed"  # where work runs, in what portions, how often it is tried: never the result
    PLACE = "place"  # where files, or a cluster, are: a path or an address of this machine, not of the work
    CORPUS = "corpus"  # a synthetic corpus


class Section(BaseModel):
    """Base of all sections: immutable, strict about types, closed to unknown keys; field docs are the strings below fields.

    `class LossConfig(Section, role=Role.RECIPE)` gives the role to all fields that do not state another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)
    role: ClassVar[Role | None] = None

    def __init_subclass__(cls, role: Role | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.role = role

    @classmethod
    def role_of(cls, field: str) -> Role:
        """The role of one of the fields."""
        own = [part for part in cls.model_fields[field].metadata if isinstance(part, Role)]
        found = own[0] if own else cls.role
        assert found is not None, f"{cls.__name__}.{field} states no role"
        return found


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
Cpus = Annotated[float, Field(gt=0.0, le=256.0)]
Folds = Annotated[int, Field(ge=2, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

Root = TypeVar("Root", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML 1.2: its floats (PyYAML's YAML 1.1 reads `3e-5` as a string), and no key twice (PyYAML keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as the base class makes it."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """A YAML document as plain values, with the numbers of YAML 1.2."""
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def iter_sections(root: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Every section by name, in order."""
    for name, section in root.model_fields.items():
        assert isinstance(section.annotation, type) and issubclass(section.annotation, Section)
        yield name, section.annotation


def iter_fields(root: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Every field as (`section.field`, its pydantic FieldInfo), in the order of the sections."""
    for name, section in iter_sections(root):
        yield from ((f"{name}.{field}", info) for field, info in section.model_fields.items())


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a tree of sections and their values, dotted; a section may be null, as in YAML without fields."""
    return {f"{section}.{field}": value for section, fields in tree.items() for field, value in (fields or {}).items()}


def describe(field: FieldInfo) -> str:
    """What a field takes, in words: `an integer >= 1, or null`."""
    return _describe(field.annotation, field.metadata)


def _describe(annotation: Any, metadata: list[Any]) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *extra = typing.get_args(annotation)
        nested = [m for e in extra for m in (e.metadata if isinstance(e, FieldInfo) else [e])]
        return _describe(inner, [*nested, *metadata])
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(_describe(part, metadata if part is not type(None) else []) for part in typing.get_args(annotation))
    if origin is list:
        return f"a list, each {_describe(typing.get_args(annotation)[0], [])}"
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    bounds = []
    for bound in metadata:
        for sign, kind in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if isinstance(bound, getattr(annotated_types, kind.capitalize())):
                bounds.append(f"{sign} {getattr(bound, kind):.12g}")
    return " ".join([words.get(annotation, "a mapping"), " and ".join(bounds)]).strip()


def parse(root: type[Root], tree: Any, source: str = "config") -> Root:
    """Validate a tree of plain values.

    Raises:
        RequestError: with a line for each fault: field, what it takes, what it got.
    """
    if not isinstance(tree, dict):
        raise RequestError(f"{source}: must be a mapping of sections but got {type(tree).__name__}")
    try:
        refuse_secret(tree, "")
    except RequestError as error:
        raise RequestError(f"{source}: {error}") from None
    try:
        return root.model_validate(tree)
    except ValidationError as error:
        lines = dict.fromkeys(_fault(root, dict(fault)) for fault in error.errors())
        raise RequestError("\n".join(f"{source}: {line}" for line in lines)) from None


def load(
    root: type[Root],
    path: str | Path | None,
    overrides: Mapping[str, str] | None = None,
    base: dict[str, Any] | None = None,
    *,
    read: Callable[[str], str] | None = None,
) -> Root:
    """Defaults, then the tree `base` or the YAML file at `path`, then `overrides` (`{"train.epochs": "5"}`, values in YAML).

    Args:
        path: a local file, or whatever `read` takes.
        overrides: texts by dotted field.
        base: sections, instead of a file.
        read: gives the text at `path`, where that is no local file.

    Raises:
        RequestError: the file is missing or not YAML, or a field is unknown or refused.
    """
    tree: Any = dict(base or {})
    if path is not None:
        try:
            text = read(str(path)) if read is not None else Path(path).read_text(encoding="utf-8")
            tree = parse_yaml(text) or {}
        except UnicodeDecodeError:
            raise RequestError(f"--config {path}: not UTF-8 text") from None
        except OSError as error:
            raise RequestError(f"--config {path}: {error.strerror or ' '.join(str(error).split())}") from None
        except yaml.YAMLError as error:
            raise RequestError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
        _refuse_newer(text, str(path))
        parse(root, tree, source=str(path))
    known = dict(iter_fields(root))
    for dotted, text in (overrides or {}).items():
        # A text is taken as it is: in YAML, a path with " #" would end there, and a commit such as 12e4567 be a number.
        is_text = dotted in known and known[dotted].annotation in (str, str | None)
        try:
            value = text if is_text and text != "null" else parse_yaml(text)
        except yaml.YAMLError:
            value = text
        put(root, tree, dotted, value)
    return parse(root, tree, source="command line" if overrides else str(path))


def _refuse_newer(text: str, source: str) -> None:
    """Refuse a config that a newer version wrote: a name that is known here may mean something else there."""
    written = re.match(VERSION_LINE.replace("{}", r"(\d+(?:\.\d+)+)").rstrip(), text)
    if written is not None and is_newer(Version(written[1])):
        raise RequestError(f"{source}: urgency_ray {written[1]} wrote it, this is {__version__}: update")


def put(root: type[Section], tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted field of a tree of plain values.

    Raises:
        RequestError: there is no such field.
    """
    known = dict(iter_fields(root))
    if dotted not in known:
        raise RequestError(describe_unknown(dotted, known))
    section, field = dotted.split(".")
    tree[section] = {**(tree.get(section) or {}), field: value}


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """That there is no field of this name, and which one was probably meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"{name}: no such field" + (f"; did you mean {near[0]}?" if near else "; --help lists the fields")


def _fault(root: type[Section], fault: dict[str, Any]) -> str:
    path = [str(part) for part in fault["loc"]]
    dotted = ".".join(path[:2])
    fields = dict(iter_fields(root))
    sections = list(root.model_fields)
    if fault["type"] == "extra_forbidden":
        if len(path) == 1:
            near = difflib.get_close_matches(path[0], sections, n=1)
            return f"{path[0]}: no such section" + (f"; did you mean {near[0]}?" if near else f"; one of {', '.join(sections)}")
        return describe_unknown(".".join(path), fields)
    if len(path) == 1 and path[0] in sections and fault["type"] in ("model_type", "dict_type"):
        return f"{path[0]}: must be a mapping of fields but got {fault['input']!r}"
    if fault["type"] == "value_error":
        return ": ".join(part for part in (".".join(path), str(fault["ctx"]["error"])) if part)
    if dotted in fields and dotted != "tune.space":
        return f"{dotted}: must be {describe(fields[dotted])} but got {fault['input']!r}"
    return f"{'.'.join(path)}: {fault['msg']} (got {fault['input']!r})"
