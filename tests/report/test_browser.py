"""The pages in a real browser: nothing complains, nothing is asked for, charts are drawn, nothing runs out of a phone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from typing import Any

import predicted_runs
import pytest
from browser import CHROMIUM, Browser, open_browser
from test_calls import add_embeddings
from test_page import make_run

from urgency_ray.commands.compare import compare
from urgency_ray.config import Config, ReportConfig
from urgency_ray.report.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")

DRAWN = """[...document.querySelectorAll("svg.chart")].map(chart => {
    const box = chart.getBoundingClientRect();
    return [box.width, box.height, chart.querySelectorAll("path, use").length, chart.querySelectorAll("text").length];
})"""


TOO_WIDE = """[...document.querySelectorAll("main *")]
    .filter(node => !node.closest(".scroll, svg, pre") && node.getBoundingClientRect().right > innerWidth)
    .map(node => node.outerHTML.slice(0, 90))"""
SHADES = """["backgroundColor", "color"].map(
    name => getComputedStyle(document.body)[name].match(/\\d+/g).reduce((sum, part) => sum + Number(part), 0)
)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with every section, in Korean, and a comparison."""
    run = make_run(tmp_path_factory.mktemp("full"))
    add_embeddings(run)
    report = write_report(str(run), ReportConfig(language="ko", show_text=True))
    folder = tmp_path_factory.mktemp("compared")
    called = ([0, 0, 1, 0, 2, 0], [0, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 2])
    runs = [predicted_runs.make_run(folder / f"run{number}", classes) for number, classes in enumerate(called)]
    comparison = compare(Config().replace({"train.bootstrap_samples": 100}), runs)
    return {"report": Path(report), "comparison": Path(comparison)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


NAMES = ("report", "comparison")
NUM_CHARTS = {"report": 18, "comparison": 2}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_complains_and_nothing_is_asked_for(browser: Browser, pages: dict[str, Path], name: str) -> None:
    seen = browser.open(pages[name])
    assert seen.complaints == []
    assert seen.requests == []
    charts = browser.run(DRAWN)
    assert len(charts) == NUM_CHARTS[name]
    assert all(width > 150 and height > 80 and shapes > 2 and words > 2 for width, height, shapes, words in charts)


@pytest.mark.parametrize("name", NAMES)
def test_a_phone_shows_all_without_scrolling_aside(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=390, height=844)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    # What is too wide scrolls in a box of its own.
    assert browser.run(TOO_WIDE) == []


def test_dark_is_dark_and_light_is_light(browser: Browser, pages: dict[str, Path]) -> None:
    shades = []
    for dark in (False, True):
        browser.open(pages["report"], dark=dark)
        shades.append(browser.run(SHADES))
    (page, ink), (dark_page, dark_ink) = shades
    assert page > ink and dark_page < dark_ink


@pytest.mark.skipif(util.find_spec("axe_core_python") is None, reason="axe-core is not installed (pip install axe-core-python)")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_no_violation(browser: Browser, pages: dict[str, Path], name: str, dark: bool) -> None:
    browser.open(pages[name], dark=dark)
    script = next(Path(import_module("axe_core_python").__path__[0]).rglob("axe*.js"))
    browser.run(script.read_text(encoding="utf-8") + "; 1")
    found: list[dict[str, Any]] = browser.run("axe.run().then(found => found.violations)")
    assert {violation["id"]: violation["nodes"][0]["failureSummary"] for violation in found} == {}
