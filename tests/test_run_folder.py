"""The names of a run folder are those that docs/results.md lists, and its JSON files are read whole or refused in one line."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from urgency_ray.errors import RequestError
from urgency_ray.run_folder import RunFolder, SearchFolder, read_json, write_json

PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def names(folder: Any) -> Any:
    """What the properties of a folder call its files and folders."""
    properties = [name for name, value in vars(type(folder)).items() if isinstance(value, property)]
    found = {name: getattr(folder, name) for name in properties}
    return {posixpath.relpath(getattr(inner, "location", inner), folder.location) for inner in found.values()}


def test_the_names_are_those_of_the_readme_s_listing() -> None:
    block = re.search(r"# What a run folder holds\n\n```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    listed = re.findall(r"^(\S+?)/? {2,}", block.group(1), re.MULTILINE)
    assert set(listed) == names(RunFolder("s3://bucket/run"))
    assert len(listed) == len(set(listed))
    search = re.search(r"^tune/(.*?)^\S", block.group(1), re.MULTILINE | re.DOTALL)
    assert search is not None
    assert set(re.findall(r"[a-z]+(?:\.[a-z]+|(?=/))", search.group(1))) == names(SearchFolder("runs/demo/tune"))


def test_a_search_lies_in_its_run_folder() -> None:
    assert RunFolder("runs/demo").search == SearchFolder("runs/demo/tune")
    assert RunFolder("s3://bucket/run?region=x").search.metrics == "s3://bucket/run/tune/metrics.json?region=x"


class Score(BaseModel):
    macro_f1: float
    recall: float | None = None
    note: str | None = None


def test_json_is_written_in_the_order_of_the_type_with_what_was_set(tmp_path: Path) -> None:
    location = str(tmp_path / "scores.json")
    write_json(location, Score(note="상", recall=None, macro_f1=0.5))
    assert Path(location).read_text(encoding="utf-8") == '{\n "macro_f1": 0.5,\n "recall": null,\n "note": "상"\n}'
    rows = [Score(macro_f1=0.25), Score(macro_f1=1)]
    write_json(location, rows, indent=2)
    assert json.loads(Path(location).read_text(encoding="utf-8")) == [{"macro_f1": 0.25}, {"macro_f1": 1.0}]
    assert read_json(location, list[Score], "") == rows


def test_a_figure_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(str(tmp_path / "scores.json"), Score(macro_f1=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file; run train again"),
        (b"{[", "cannot be read: Invalid JSON: key must be a string at line 1 column 2"),
        (b"", "cannot be read: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b'"\xb1\xe2"', "cannot be read: not UTF-8 text"),
        (b"{}", "cannot be read: Input should be a valid"),
        (b'[{"macro_f1": 0.5}, {"f1": 0.5}]', "cannot be read: 1.macro_f1 is missing"),
        (b'[{"macro_f1": "high"}]', "cannot be read: 0.macro_f1: Input should be a valid number"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_with_file_field_and_advice(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    location = tmp_path / "scores.json"
    if content is not None:
        location.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_json(str(location), list[Score], "run train again")
    text = str(caught.value)
    assert text.startswith(f"{location}: {said}")
    assert text.endswith("run train again")
    assert "\n" not in text
