"""docs/config.md, made of the config itself: `python -m urgency_ray.config.reference > docs/config.md`."""

from __future__ import annotations

import yaml
from pydantic.fields import FieldInfo

from urgency_ray.config.search_sections import (
    CategoricalDimension,
    DimensionBase,
    FloatDimension,
    IntDimension,
    SimplexDimension,
)
from urgency_ray.config.sections import Config
from urgency_ray.config.tree import Role, describe, iter_sections

HEAD = """# Config

Made of the program by `python -m urgency_ray.config.reference`; do not edit.

A config is YAML that states only what differs from the defaults below, section by section; `--section.field VALUE` overrides
it, and `config.yaml` in a run folder holds all of it, as it was used. A field that does not exist, or a value out of its range,
is refused before the work. What a field decides:

"""
DECIDES = {
    Role.EMBEDDING: "the embeddings, or which rows there are: part of the fingerprint, so a run folder keeps to it",
    Role.RECIPE: "the model's weights; a search may vary it",
    Role.SETUP: "the model's weights; one value for all trials of a search",
    Role.SEARCH: "what a search tries, and by what it compares; `tune --resume` keeps to it",
    Role.EXTENT: "how far a search goes; it may grow when one is resumed",
    Role.REPORT: "what is scored and shown beside the model",
    Role.SPEED: "where and how fast the work runs, never its result",
    Role.PLACE: "where files or a cluster are, and who is told",
    Role.CORPUS: "a synthetic corpus",
}
DIMENSIONS: dict[str, type[DimensionBase]] = {
    "float": FloatDimension,
    "int": IntDimension,
    "categorical": CategoricalDimension,
    "simplex": SimplexDimension,
}


def make_reference() -> str:
    """The page, in Markdown."""
    lines = [HEAD + "\n".join(f"- *{role}*: {words}." for role, words in DECIDES.items())]
    for name, section in iter_sections(Config):
        lines.append(f"## {name}")
        fields = section.model_fields.items()
        lines.append("\n".join(_describe_field(field, info, section.role_of(field)) for field, info in fields))
    lines.append("## Dimensions of tune.space")
    for kind, dimension in DIMENSIONS.items():
        described = [_describe_field(field, info, None) for field, info in dimension.model_fields.items() if field != "type"]
        lines.append(f"`type: {kind}`\n\n" + "\n".join(described))
    return "\n\n".join(lines) + "\n"


def _describe_field(name: str, field: FieldInfo, role: Role | None) -> str:
    default = "required" if field.is_required() else f"default `{_yaml(field.get_default(call_default_factory=True))}`"
    facts = [describe(field), default, *([] if role is None else [f"*{role}*"])]
    return f"- **`{name}`** ({'; '.join(facts)}): {' '.join((field.description or '').split())}"


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    print(make_reference(), end="")
