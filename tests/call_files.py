"""Files and archives of calls that a test writes itself, and the plan of them."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from urgency_ray.calls.plan import plan_calls
from urgency_ray.config import DataConfig
from urgency_ray.schema import MANIFEST_SCHEMA


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_zip(path: Path, *names: str, content: bytes = b"x", method: int = zipfile.ZIP_STORED) -> Path:
    return put(path, zipped(dict.fromkeys(names, content), method))


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of members whose names are kept as they are."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method
            archive.writestr(info, content)
    return sink.getvalue()


def tarred(members: dict[str, bytes], **options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def plan(root: Path | str, **data: Any) -> dict[str, dict[str, Any]]:
    """The rows of the plan, by call_id."""
    table = plan_calls(DataConfig(root=str(root), **data))
    assert table.schema.equals(MANIFEST_SCHEMA)
    rows = table.to_pylist()
    assert [row["call_id"] for row in rows] == sorted({row["call_id"] for row in rows})
    return {row["call_id"]: row for row in rows}


def reasons(rows: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    assert all((row["reason"] is None) == (row["detail"] is None) for row in rows.values())
    return {call_id: row["reason"] for call_id, row in rows.items()}
