"""The page's words in Korean, by the English that stands in templates and charts."""

from __future__ import annotations

KOREAN: dict[str, str] = {}
