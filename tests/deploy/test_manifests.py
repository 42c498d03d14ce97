"""The RayJob of each stage: against KubeRay's and Kubernetes' own schemas, and what a cluster's owner asks of it."""

import copy
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from checkout import ROOT
from conftest import SPOKEN_CALLS
from manifests import KUBERAY, STAGES, groups, load, render

from urgency_ray import __version__, cli
from urgency_ray.config import load_config

SCHEMA = SPOKEN_CALLS.parent / "kuberay" / "rayjob_v1.schema.json"
IN_IMAGE = "/opt/urgency_ray/"


def close(schema: Any) -> Any:
    """An OpenAPI schema of a CRD as JSON schema that refuses unknown keys, as the API server would drop them."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close(value) for name, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if "properties" in schema and "additionalProperties" not in schema and isinstance(schema["properties"], dict):
        closed["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return closed


@pytest.fixture(scope="module")
def refuse() -> Any:
    """Raises where a RayJob is none."""
    if not SCHEMA.exists():
        pytest.skip(f"{SCHEMA} is not here")
    return jsonschema.Draft202012Validator(close(json.loads(SCHEMA.read_text(encoding="utf-8")))).validate


def test_each_job_has_a_folder() -> None:
    assert sorted(path.stem for path in (ROOT / "jobs").glob("*.py")) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_kuberay_takes_it(stage: str, refuse: Any) -> None:
    refuse(render(stage)["RayJob"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["backofLimit"], 2),
        (["rayClusterSpec", "rayversion"], "2.60.0"),
        (["rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"], "one"),
        (["rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "envfrom"], []),
        (["rayClusterSpec", "headGroupSpec", "template", "spec", "volumes", 0, "emptyDir", "size"], "1Gi"),
    ],
)
def test_a_slip_in_a_manifest_would_be_found(place: list[Any], value: Any, refuse: Any) -> None:
    job = copy.deepcopy(render("extract")["RayJob"])
    *above, last = ["spec", *place]
    inner = job
    for name in above:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        refuse(job)


@pytest.mark.parametrize("stage", STAGES)
def test_kubernetes_takes_its_pods_and_the_rest(stage: str) -> None:
    objects = render(stage)
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": stage}, **each["template"]}
        for each in groups(objects.pop("RayJob"))
    ]
    for each in [*pods, *objects.values()]:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_a_slip_in_a_pod_would_be_found() -> None:
    template = copy.deepcopy(groups(render("extract")["RayJob"])[0]["template"])
    template["spec"]["containers"][0]["envfrom"] = []
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slip"}, **template}
    with pytest.raises(kubernetes_validate.ValidationError, match="envfrom"):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("stage", STAGES)
def test_kubectl_makes_of_it_what_is_tested_here(stage: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    made = subprocess.run(["kubectl", "kustomize", KUBERAY / stage], check=True, capture_output=True, text=True).stdout
    assert {each["kind"]: each for each in yaml.safe_load_all(made)} == render(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_its_command_is_one_and_names_what_is_in_the_image_and_in_the_places(stage: str) -> None:
    objects = render(stage)
    command = objects["RayJob"]["spec"]["entrypoint"]
    python, script, *rest = shlex.split(command)
    assert (python, script) == ("python", f"{IN_IMAGE}jobs/{stage}.py")
    options, unknown = cli.build_parser().parse_known_args([stage, *rest])
    assert unknown == []
    recipe = None if options.config is None else ROOT / options.config.removeprefix(IN_IMAGE)
    assert load_config(recipe, {name: value for name, value in vars(options).items() if "." in name})
    places = objects["ConfigMap"]["data"]
    assert set(re.findall(r"\$(\w+)", command)) <= places.keys()
    # A job's folder is Ray's: what it writes must lie elsewhere.
    assert all("://" in place for name, place in places.items() if name != "AWS_REGION")


def test_the_workers_of_the_training_fit_its_nodes() -> None:
    job = render("train")["RayJob"]
    rest = shlex.split(job["spec"]["entrypoint"])[2:]
    options = cli.build_parser().parse_args(["train", *rest])
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert vars(options)["ray.min_gpus"] == vars(options)["train.num_workers"]
    assert int(vars(options)["train.num_workers"]) == group["minReplicas"] * gpus == group["maxReplicas"] * gpus


@pytest.mark.parametrize("stage", STAGES)
def test_nodes_come_and_go_within_bounds(stage: str) -> None:
    cluster = render(stage)["RayJob"]["spec"]["rayClusterSpec"]
    workers = cluster.get("workerGroupSpecs", [])
    # The driver's node has no CPUs for tasks: a stage that asks Ray for some has a node from the start.
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert bool(workers) == cluster["enableInTreeAutoscaling"] == (stage not in ("evaluate", "report"))
    for group in workers:
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_with_gpu_nodes_waits_for_them_lest_it_be_planned_for_cpus(stage: str) -> None:
    job = render(stage)["RayJob"]
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups(job)]
    assert any("nvidia.com/gpu" in each for each in limits) == ("--ray.min_gpus" in job["spec"]["entrypoint"])


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_runs_as_root_and_no_secret_stands_in_it(stage: str) -> None:
    job = render(stage)["RayJob"]
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for group in groups(job):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        for variable in container["env"]:
            is_secret = re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]) is not None
            assert ("value" in variable) != is_secret
            assert ("secretKeyRef" in variable.get("valueFrom", {})) == is_secret


@pytest.mark.parametrize("stage", STAGES)
def test_each_node_has_its_share_of_a_machine_and_memory_for_blocks(stage: str) -> None:
    for group in groups(render(stage)["RayJob"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        # Ray counts a node's memory by its limit: what was not asked for may not be there.
        assert container["resources"]["requests"] == container["resources"]["limits"]
        memory, shared = pod["volumes"][0]["emptyDir"], container["volumeMounts"][0]
        assert (memory["medium"], shared["mountPath"], shared["name"]) == ("Memory", "/dev/shm", pod["volumes"][0]["name"])
        # Ray's object store is three tenths of the memory, and falls back to the disk where /dev/shm is smaller.
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        assert 0.3 * limit <= int(memory["sizeLimit"].removesuffix("Gi")) < 0.5 * limit


def test_versions_are_those_that_are_tested() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    job = render("extract")["RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]
    images = [group["template"]["spec"]["containers"][0]["image"] for group in groups(job)]
    assert images == [f"urgency-ray:{__version__}-{kind}" for kind in ("cpu", "cpu", "cuda")]


def test_each_file_of_the_folder_is_known() -> None:
    """One that is added gets a test: of the manifests here, of the others by their names."""
    folder = KUBERAY.parent
    assert {path.name for path in folder.iterdir()} == {"kuberay", "grafana.json", "ray_up.yaml", "runtime_env.yaml"}
    assert {path.name for path in KUBERAY.rglob("*") if path.is_file()} == {"kustomization.yaml", "places.yaml", "rayjob.yaml"}
    assert Path(KUBERAY / "base" / "rayjob.yaml").exists()
    assert load(KUBERAY / "base" / "rayjob.yaml")["kind"] == "RayJob"
