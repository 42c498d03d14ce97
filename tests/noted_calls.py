"""Which calls reach the encoders."""

from typing import Any

import pyarrow as pa
import pytest

from urgency_ray.embedding.pipeline import embed_calls


def note_embedded(monkeypatch: pytest.MonkeyPatch, command: str) -> list[list[str]]:
    """Ids of the calls that a command, `extract` say, has embedded from now on, a list for each time."""
    planned: list[list[str]] = []

    def embed_and_note(manifest: pa.Table, *arguments: Any) -> Any:
        planned.append(manifest["call_id"].to_pylist())
        return embed_calls(manifest, *arguments)

    monkeypatch.setattr(f"urgency_ray.commands.{command}.embed_calls", embed_and_note)
    return planned
