"""What two things must agree on before they may meet: the rows of one run folder, a model and the embeddings of new calls.

A `Fingerprint` is kept as JSON in the schema of each embeddings file, in extract.json and in a model's config.json. It holds
what decides an embedding's value and nothing else: where files lie, or how many are read at once, is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import pyarrow as pa
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from urgency_ray import __version__
from urgency_ray.config import ENCODER_SECTIONS, Config, Role, fields_of
from urgency_ray.errors import RequestError, first_fault
from urgency_ray.schema import METADATA_KEY
from urgency_ray.versions import is_newer

Fields = dict[str, Any]
"""A section's fields by name, with the plain values of YAML and JSON."""

_SINCE_0_2_0: Fields = {"channel": "mean", "min_call_sec": 0.1, "pcm_rate_hz": None, "require_text": True, "text_rules": 1}
"""Fields of the data section that are left out where they are so: what older versions made, they made so."""
_OF_ENCODERS_SINCE_0_2_0: Fields = {"layers": "last"}
"""Likewise of the encoder sections, with their defaults."""

IMPORTED: Fields = {"name": "imported"}
"""Stands for an encoder of which nothing is known."""


class Fingerprint(BaseModel):
    """What made an embedding.

    Beside these it has the fields of the data section that decide what is embedded (`unit`, `speakers`, ...), the newer ones
    where they are not at their default. Those of another version are kept, too, and compared.

    Attributes:
        audio_encoder, text_encoder: the section's fields that decide a vector, and `weights`: a commit on the Hub, a digest of
            a folder, or `built-in`.
        transcriber: the same of what wrote words down; None, and left out, where nothing did.
        code_version: that of urgency_ray. It says who made it and decides nothing: where a version makes another vector of a
            call than the one before it did, a field of the config says which (`data.text_rules`).
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    audio_encoder: Fields
    text_encoder: Fields
    transcriber: Fields | None = None
    code_version: str

    @classmethod
    def of(cls, config: Config, weights: Mapping[str, str], code_version: str) -> Self:
        """That of the embeddings that `config` makes with the `weights` of each of its `making_sections`."""
        sections = deciding_fields(config)
        encoders = {name: encoder_fields(sections[name], weights[name]) for name in config.making_sections}
        data = {key: value for key, value in sections["data"].items() if key not in _SINCE_0_2_0 or value != _SINCE_0_2_0[key]}
        return cls(**data, **encoders, code_version=code_version)

    @classmethod
    def of_schema(cls, schema: pa.Schema) -> Self | None:
        """That in the metadata of an embeddings file, or None where it does not say (imported embeddings).

        Raises:
            RequestError: what it says is no fingerprint, or that of a newer version.
        """
        raw = (schema.metadata or {}).get(METADATA_KEY)
        if raw is None:
            return None
        try:
            found = cls.model_validate_json(raw)
            made = Version(found.code_version)
        except ValidationError as error:
            said = first_fault(error, "fingerprint")
            raise RequestError(f"embeddings: {said}: not of urgency_ray, or of a newer version") from None
        except InvalidVersion as error:
            raise RequestError(f"embeddings: fingerprint.code_version: {error}: not of urgency_ray") from None
        if is_newer(made):
            raise RequestError(f"embeddings: were made by urgency_ray {made}, this is {__version__}: update")
        return found

    @model_serializer(mode="wrap")
    def _in_order(self, dump: SerializerFunctionWrapHandler) -> Fields:
        # As version 0.2.0 wrote them: those of the data section first.
        tree: Fields = dump(self)
        if self.transcriber is None:
            tree.pop("transcriber", None)
        return {name: tree[name] for name in sorted(tree, key=lambda name: name in type(self).model_fields)}

    def settings(self) -> Fields:
        """All fields, also those that are left out."""
        tree = _SINCE_0_2_0 | self.model_dump()
        known = [name for name in ENCODER_SECTIONS if tree[name] != IMPORTED]
        return tree | {name: _OF_ENCODERS_SINCE_0_2_0 | tree[name] for name in known}

    def weights(self, section: str) -> str:
        """What identifies the weights of an encoder or the transcriber, by its section's name; empty where it is unknown."""
        found: Fields = getattr(self, section) or {}
        return str(found.get("weights", ""))

    def without_transcriber(self) -> Self:
        """The same of rows whose words were there."""
        return self.model_copy(update={"transcriber": None})

    def differences(self, wanted: Fingerprint) -> dict[str, str]:
        """What differs in what they make, by dotted field: `spectral there, facebook/data2vec-audio-base here`."""
        found, ours = (dict(_flatten(made.settings())) for made in (self, wanted))
        return {
            field: f"{found.get(field)} there, {ours.get(field)} here"
            for field in sorted((found.keys() | ours.keys()) - {"code_version"})
            if found.get(field) != ours.get(field)
        }


class Transform(BaseModel):
    """What a model remembers of the rows that it was trained on, so that new calls are treated in the same way.

    Attributes:
        data, audio_encoder, text_encoder: fields of these sections that decide an embedding. Of version 0.2.0 also `data.root`
            and the encoders' `batch_size`.
        transcriber: the same where one was used; else empty.
        split: the whole section, for `evaluate`.
        fingerprint: that of the embeddings; None where they were imported.
    """

    model_config = ConfigDict(frozen=True)

    data: Fields
    audio_encoder: Fields
    text_encoder: Fields
    transcriber: Fields = {}
    split: Fields
    fingerprint: Fingerprint | None

    @classmethod
    def of(cls, config: Config, fingerprint: Fingerprint | None) -> Self:
        """That of the rows of a run, as `config` resolved describes them.

        It goes where the model goes: not where calls lie (`data.root`), but an encoder's name, and where that is a folder, its
        path. It is all that says where `predict`, on the same machine, finds weights that no hub has.
        """
        sections = deciding_fields(config) | ({} if config.transcriber.is_used else {"transcriber": {}})
        return cls(**sections, split=config.split.model_dump(), fingerprint=fingerprint)

    @classmethod
    def of_model(cls, kept: Mapping[str, Any]) -> Self:
        """What a model's config.json keeps.

        Raises:
            RequestError: it is none.
        """
        try:
            return cls.model_validate(kept)
        except ValidationError as error:
            said = first_fault(error, "transform")
            raise RequestError(f"--model: config.json: {said}; take another copy of it") from None

    def fields(self) -> Fields:
        """The fields that decide an embedding and their values, dotted."""
        known = fields_of(Role.EMBEDDING)
        flat = dict(_flatten(self.model_dump(include={"data", *ENCODER_SECTIONS, "transcriber"})))
        flat = {f"data.{key}": value for key, value in _SINCE_0_2_0.items()} | flat
        return {field: flat[field] for field in known if field in flat}

    def without_transcriber(self) -> Self:
        """The same for calls whose words are there, or are not wanted."""
        made_by = None if self.fingerprint is None else self.fingerprint.without_transcriber()
        return self.model_copy(update={"transcriber": {}, "fingerprint": made_by})


def deciding_fields(config: Config) -> dict[str, Fields]:
    """The fields of a config that decide an embedding, by section."""
    tree = config.model_dump()
    sections: dict[str, Fields] = {"data": {}, **{name: {} for name in ENCODER_SECTIONS}, "transcriber": {}}
    for dotted in fields_of(Role.EMBEDDING):
        section, field = dotted.split(".")
        sections[section][field] = tree[section][field]
    return sections


def encoder_fields(section: Fields, weights: str) -> Fields:
    """What a fingerprint says of an encoder: the deciding fields of its section, and what identifies its weights."""
    usual = _OF_ENCODERS_SINCE_0_2_0.items()
    return {key: value for key, value in section.items() if (key, value) not in usual} | {"weights": weights}


def refuse_other(run_dir: str, found: Fingerprint | None, wanted: Fingerprint) -> None:
    """Compare what made the embeddings that are there with what would make the next ones.

    Raises:
        RequestError: they differ; the text names each difference.
    """
    differences = found.differences(wanted) if found is not None else {"fingerprint": "none there"}
    if differences:
        what = "; ".join(f"{field}: {words}" for field, words in differences.items())
        raise RequestError(f"--run-dir {run_dir}: already holds other embeddings ({what}); choose another run folder")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
