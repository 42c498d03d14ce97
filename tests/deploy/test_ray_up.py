"""configs/cluster/ray_up.yaml by the checks of Ray's own launcher."""

import copy
from typing import Any

import jsonschema
import pytest
from checkout import ROOT
from manifests import load
from ray.autoscaler._private.util import prepare_config, validate_config

from urgency_ray import __version__

CLUSTER = load(ROOT / "configs" / "cluster" / "ray_up.yaml")


def test_ray_s_launcher_takes_it() -> None:
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))


def test_a_slip_in_it_would_be_found() -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config({**copy.deepcopy(CLUSTER), "idle_timeout": 5}))
    no_head = copy.deepcopy(CLUSTER)
    no_head["head_node_type"] = "haed"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(no_head))


def test_nodes_come_and_go_within_bounds() -> None:
    types: dict[str, Any] = CLUSTER["available_node_types"]
    workers = [kind for name, kind in types.items() if name != CLUSTER["head_node_type"]]
    assert all(kind["min_workers"] <= kind["max_workers"] for kind in workers)
    assert CLUSTER["max_workers"] == sum(kind["max_workers"] for kind in workers)
    # A command on a cluster without CPUs is refused.
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["cpu"]["min_workers"] > 0


def test_it_holds_no_secret_and_its_dashboard_is_not_open() -> None:
    text = (ROOT / "configs" / "cluster" / "ray_up.yaml").read_text(encoding="utf-8")
    assert "ACCESS_KEY" not in text
    assert "dashboard-host" not in text
    assert CLUSTER["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]


def test_images_are_of_this_version() -> None:
    images = CLUSTER["docker"]["image"], CLUSTER["available_node_types"]["gpu"]["docker"]["worker_image"]
    assert [image.partition(":")[2] for image in images] == [f"{__version__}-cpu", f"{__version__}-cuda"]
