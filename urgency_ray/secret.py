"""Keys in URIs (`s3://KEY:SECRET@bucket`): refused wherever a location is given, and blotted out of whatever is printed.

What a config, a run folder or a model says of where things lie is read by whoever may read these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray.errors import RequestError

# Somebody forgets to quote a slash in a secret; after a colon, digits and a slash are a port.
_SECRET = re.compile(r"(?<=://)[^/@\s:]*:(?!\d+/)[^@\s]+@")
_SUSPECTED = r"://[^/@\s]*:[^@\s]*@"
"""In Arrow's dialect, which cannot tell a port."""
BLOT = "***@"


def blot(text: str) -> str:
    """A text without the keys in its URIs."""
    return _SECRET.sub(BLOT, text)


def refuse_secret(value: Any, name: str) -> None:
    """Refuse a location, or a tree of plain values that holds one, with a key in it.

    Args:
        value: a text, a mapping, a list; whatever else there is passes.
        name: the option, field or file that it was given by; those of a mapping's fields come behind it, dotted.

    Raises:
        RequestError: one is there; the text names it, and does not repeat it.
    """
    for dotted, text in _iter_texts(value, name):
        if _SECRET.search(text):
            raise RequestError(
                f"{dotted}: holds a key and its secret, which would be kept in files that others read: give {blot(text)} "
                "without what stands before the @, and the keys by environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; "
                "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) or by the machines' role"
            )


def refuse_listed_secrets(plan: pa.Table, name: str) -> None:
    """Refuse a plan that holds such a location.

    Args:
        plan: rows of `schema.MANIFEST_SCHEMA`.
        name: the option that says which calls there are.

    Raises:
        RequestError: as `refuse_secret` does.
    """
    for column in ("audio_container", "label_container", "detail"):
        if column in plan.column_names:
            texts = plan[column].filter(pc.fill_null(pc.match_substring_regex(plan[column], _SUSPECTED), False))
            refuse_secret(texts.to_pylist(), name)


def _iter_texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _iter_texts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _iter_texts(part, name)
