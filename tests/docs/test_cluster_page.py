"""docs/cluster.md: each command is run by a test, or cannot be; each test that it names is there; its meters are those told."""

import ast
import re
from typing import Any

import pytest
from checkout import ROOT, RUNTIME_ENV
from manifests import STAGES

from urgency_ray.telemetry import METERS

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
SHOWN = [line for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()]
RUN = {
    "job python jobs/": "tests/test_jobs.py::test_each_job_runs_under_ray_job_submit",
    "kubectl kustomize ": "tests/deploy/test_manifests.py::test_kubectl_makes_of_it_what_is_tested_here",
}
"""Beginnings of commands that a test gives as they stand there, but for the places."""
NOT_RUN = {
    "export ": "sets the environment of what follows",
    "alias job=": "names the command of test_jobs",
    "docker build ": "takes a Docker daemon; the steps of the Dockerfile are run by tests/deploy/test_image.py",
    "kubectl create secret ": "takes a Kubernetes cluster",
    "kubectl apply -k ": "takes a Kubernetes cluster; what is applied is checked by tests/deploy/test_manifests.py",
    "kubectl get ": "takes a Kubernetes cluster",
    "kubectl delete ": "takes a Kubernetes cluster",
    "ray get-auth-token ": "writes a token into the home of whoever runs the tests",
    "ray up ": "starts machines; the file is checked by tests/deploy/test_ray_up.py",
    "ray dashboard ": "takes these machines",
    "ray down ": "takes these machines",
}
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)) | {tuple(test.split("::")) for test in RUN.values()})


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_is_run_by_a_test_or_cannot_be(line: str) -> None:
    assert len([start for start in (*RUN, *NOT_RUN) if line.startswith(start)]) == 1


@pytest.mark.parametrize("start", [*RUN, *NOT_RUN])
def test_what_is_said_of_commands_is_of_some(start: str) -> None:
    assert any(line.startswith(start) for line in SHOWN)


def test_jobs_are_submitted_as_in_their_test() -> None:
    assert f"alias job='ray job submit {' '.join(RUNTIME_ENV)} --'" in SHOWN
    assert sorted(re.findall(r"^job python jobs/(\w+)\.py ", "\n".join(SHOWN), re.MULTILINE)) == STAGES


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_is_there(file: str, test: str) -> None:
    tree: Any = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_fault_has_its_test() -> None:
    (table,) = re.findall(r"^## What breaks.*?\n\n(.*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert len(rows) > 10
    assert all(len(row) == 4 and re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+`(, )?)+", row[3]) for row in rows)


def test_the_meters_are_those_that_are_told() -> None:
    assert set(re.findall(r"`(ray_\w+)`", TEXT)) == {meter.exported for meter in METERS}


def test_each_file_that_is_named_is_there() -> None:
    for name in re.findall(r"`((?:configs|base)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists() or (ROOT / "configs" / "cluster" / "kuberay" / name).exists(), name
