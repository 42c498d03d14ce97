"""docs/config.md says of every field what the program does."""

import re
from pathlib import Path

from urgency_ray.config import iter_fields
from urgency_ray.config.reference import make_reference

PAGE = (Path(__file__).parents[2] / "docs/config.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_program_makes_of_its_fields() -> None:
    assert make_reference() == PAGE, "run python -m urgency_ray.config.reference > docs/config.md"


def test_every_field_is_there_with_its_default_range_and_doc() -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=\n\n##)", PAGE, re.DOTALL | re.MULTILINE))
    for dotted, field in iter_fields():
        section, name = dotted.split(".")
        (line,) = [line for line in sections[section].splitlines() if line.startswith(f"- **`{name}`**")]
        assert "default `" in line
        assert line.endswith(" ".join((field.description or "no doc").split()))
    assert "- **`epochs`** (an integer >= 1 and <= 100000; default `50`; *setup*): Most epochs to train." in sections["train"]
    assert "an integer >= 0 and < 4294967296; default `0`" in sections["split"]
