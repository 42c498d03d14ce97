"""Every word of the pages is in the table of each language, with the same places for figures and the same tags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_page import Page, make_run

from urgency_ray import report
from urgency_ray.config import ReportConfig
from urgency_ray.errors import Reason
from urgency_ray.report import charts, language, verdicts, words
from urgency_ray.report.calls import SLICED_BY
from urgency_ray.report.korean import KOREAN, REASONS
from urgency_ray.report.page import write_report
from urgency_ray.report.template import open_environment

FOLDER = Path(report.__path__[0])
LOOKED_UP_BY_VARIABLE = {
    *(text for measure in words.MEASURES for text in measure[2:]),
    *words.SELECTED_BY.values(),
    *words.BASELINES.values(),
    *verdicts.AGAINST_BASELINE.values(),
    *verdicts.COMPARED.values(),
    *SLICED_BY.values(),
    *charts.MODALITIES,
    *("val", "test", "training", "validation"),
    *("completed", "stopped", "failed"),
    *("audio encoder", "text encoder", "transcriber"),
    *("winner", "defaults", "ensemble", "linear", "discriminant", "stacked"),
}


def said_in_templates() -> Iterator[str]:
    environment = open_environment()
    for path in FOLDER.glob("*.j2"):
        for _, _, found in environment.extract_translations(path.read_text(encoding="utf-8")):  # type: ignore[attr-defined]
            yield from (text for text in (found if isinstance(found, tuple) else (found,)) if text)


def said_in_code() -> Iterator[str]:
    for path in FOLDER.glob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "say":
                texts = [call.args[0].body, call.args[0].orelse] if isinstance(call.args[0], ast.IfExp) else [call.args[0]]
                yield from (str(text.value) for text in texts if isinstance(text, ast.Constant))


SAID = sorted({*said_in_templates(), *said_in_code(), *LOOKED_UP_BY_VARIABLE})


def test_the_words_are_found() -> None:
    assert {"Result", "epoch", "Where they disagree", "picked", "95 %% interval %(low)s to %(high)s"} <= set(SAID)
    assert len(SAID) > 250


def test_each_word_has_its_korean_and_none_is_left_over() -> None:
    assert set(SAID) - set(KOREAN) == set()
    assert set(KOREAN) - set(SAID) == set()
    assert set(REASONS) == set(Reason)


@pytest.mark.parametrize("text", SAID)
def test_figures_tags_and_names_are_those_of_the_english(text: str) -> None:
    korean = KOREAN[text]
    places = r"%\(\w+\)s|%%"
    assert sorted(re.findall(places, korean)) == sorted(re.findall(places, text))
    assert "%" not in re.sub(places, "", korean)
    marked = r"</?(?:strong|code|b|i)\b|<code>.*?</code>"
    assert sorted(re.findall(marked, korean)) == sorted(re.findall(marked, text))


def test_a_page_in_korean_says_the_same_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    pages = {}
    for spoken in ("en", "ko"):
        html = Path(write_report(str(run), ReportConfig.model_validate({"language": spoken}))).read_text(encoding="utf-8")
        assert f'<html lang="{spoken}">' in html
        pages[spoken] = (Page(html).text, len(re.findall('<svg class="chart"', html)))
    assert pages["en"][1] == pages["ko"][1] > 8
    figures = [sorted(re.findall(r"\d\.\d{3}", text)) for text, _ in pages.values()]
    # The English says what a log loss of 1.099 is, and so on: both do.
    assert figures[0] == figures[1]
    korean = pages["ko"][0]
    assert "상을 하로 판정 (테스트)" in korean and "95 % 신뢰구간" in korean and "혼동 행렬" in korean
    left = set(re.findall(r"[A-Za-z]{4,}", re.sub(r"\w+[._/-][\w./-]+|◆", " ", korean)))
    assert not {"epoch", "trial", "called", "recall", "rows", "interval", "search", "Macro"} & left
    assert language.spoken() == "en"
