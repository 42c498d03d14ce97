"""configs/cluster/kuberay as it is applied: a base, and the JSON patches of each stage."""

from pathlib import Path
from typing import Any

import jsonpatch
import yaml
from checkout import ROOT

KUBERAY = ROOT / "configs" / "cluster" / "kuberay"
STAGES = sorted(folder.name for folder in KUBERAY.iterdir() if folder.name != "base")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def render(stage: str) -> dict[str, Any]:
    """The objects of a stage by kind, as `kubectl kustomize` gives them."""
    overlay, base = load(KUBERAY / stage / "kustomization.yaml"), load(KUBERAY / "base" / "kustomization.yaml")
    assert overlay.keys() == {"apiVersion", "kind", "resources", "patches"} and overlay["resources"] == ["../base"]
    assert base.keys() == {"apiVersion", "kind", "resources"}
    objects = {each["kind"]: each for each in (load(KUBERAY / "base" / name) for name in base["resources"])}
    for patch in overlay["patches"]:
        kind = patch["target"]["kind"]
        objects[kind] = jsonpatch.apply_patch(objects[kind], yaml.safe_load(patch["patch"]))
    return objects


def groups(job: Any) -> list[Any]:
    """The head and the worker groups of a RayJob."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
