"""The Grafana dashboard asks for what urgency_ray tells Prometheus, and for all of it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from checkout import ROOT

from urgency_ray.telemetry import METERS

DASHBOARD = json.loads((ROOT / "configs" / "cluster" / "grafana.json").read_text(encoding="utf-8"))
LABELS = {meter.exported: {*meter.labels, "SessionName"} for meter in METERS}


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_it_asks_for_each_meter_by_its_name() -> None:
    assert {name for text in expressions() for name in re.findall(r"ray_\w+", text)} == LABELS.keys()


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_it_asks_by_labels_that_are_there(expression: str) -> None:
    (name,) = re.findall(r"ray_\w+", expression)
    asked = re.findall(r"(\w+)=~", expression) + re.findall(r"by \((\w+)\)", expression)
    assert set(asked) <= LABELS[name]
    # Only what grows has a rate; a score is as high as it is.
    assert ("rate(" in expression or "increase(" in expression) == name.endswith("_total")


def test_what_it_shows_is_laid_out_without_gaps_and_overlaps() -> None:
    taken: list[tuple[int, int]] = []
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        taken += [
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        ]
    assert len(taken) == len(set(taken)) == 24 * (1 + max(y for _, y in taken))


def test_each_place_of_a_variable_is_one_that_it_has() -> None:
    named: set[Any] = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__range", "__rate_interval"} == named
