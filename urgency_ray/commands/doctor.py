"""`urgency-ray doctor`: what this machine or cluster offers, whether a config would run on it, and how long extract takes."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import ray

from urgency_ray import __version__, cluster
from urgency_ray.calls.plan import describe_plan, plan_calls
from urgency_ray.calls.sample import sample_transcripts
from urgency_ray.config import Config
from urgency_ray.embedding.costs import Costs, Estimate, estimate, measure_costs, spread
from urgency_ray.embedding.pipeline import plan_actors
from urgency_ray.embedding.transform import encoders_on_gpus, make_fingerprint, pin_arithmetic, pin_revisions
from urgency_ray.encoders.load import is_built_in
from urgency_ray.encoders.probe import check_vocabulary, probe_audio_encoder, probe_text_encoder, probe_transcriber
from urgency_ray.errors import RequestError, UnreachableError, WorkError

Found = TypeVar("Found")

SAMPLE_CALLS = 20
VERSIONS = ("ray", "torch", "transformers", "pyarrow", "scikit-learn", "optuna")
SHARED_MEMORY = Path("/dev", "shm")
LEAST_SHM = 2 * 2**30
"""Bytes of it below which Ray keeps its objects on the disk."""
PIPELINE_START_SEC = 4.0
"""From the encoders' processes being there to the first rows, and from the last to the end: planning, writing, accounts."""


class Doctor:
    """Prints a line for each thing it looks at, and remembers what would make extract fail."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def say(self, topic: str, words: str) -> None:
        """Print one line."""
        print(f"{topic:<11}{words}")

    def warn(self, topic: str, words: str) -> None:
        """Print one line of what would make it fail."""
        self.problems.append(words)
        self.say(topic, f"PROBLEM: {words}")

    def look(self, topic: str, work: Callable[[], Found]) -> Found | None:
        """What `work` gives; None, and a problem, where the request is at fault."""
        try:
            return work()
        except (RequestError, UnreachableError) as error:
            self.warn(topic, str(error))
            return None


def doctor(config: Config, *, cpus: int | None = None, gpus: int | None = None) -> None:
    """Print what is found and estimated.

    Args:
        config: the whole config; without data.root and data.manifest, no calls are looked at.
        cpus, gpus: of another cluster, to estimate for; None are those that are there.

    Raises:
        WorkError: extract would fail.
    """
    finding = Doctor()
    started = time.perf_counter()
    cluster.connect(config.ray)
    connect_sec = time.perf_counter() - started
    _describe_machine(finding)
    settled = _check_models(finding, config)
    manifest = _check_calls(finding, config)
    if settled is not None and manifest is not None:
        _check_extract(finding, settled, manifest, cpus=cpus, gpus=gpus, connect_sec=connect_sec)
    if finding.problems:
        raise WorkError(f"extract would fail: {finding.problems[0]}" + _more(len(finding.problems) - 1))


def _more(number: int) -> str:
    return f" (and {number} more above)" if number else ""


def _describe_machine(finding: Doctor) -> None:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    finding.say("versions", f"urgency_ray {__version__}, Python {platform.python_version()}, {versions}")
    nodes = cluster.nodes()
    cpus, gpus = sum(node.cpus for node in nodes), cluster.num_gpus()
    finding.say("cluster", f"{_count(len(nodes), 'node')}, {_count(cpus, 'CPU')}, {_count(gpus, 'GPU')}")
    total = _node_memory()
    for_ray: float = ray.cluster_resources().get("memory", 0.0)  # type: ignore[no-untyped-call]
    finding.say("memory", f"{total / 2**30:.1f} GiB on this node, {for_ray / 2**30:.1f} GiB for Ray")
    if SHARED_MEMORY.is_dir():
        shm = shutil.disk_usage(SHARED_MEMORY).total
        few = "" if shm >= LEAST_SHM else ": Ray keeps its objects on the disk; give a container --shm-size 2g or more"
        finding.say(str(SHARED_MEMORY), f"{shm / 2**30:.1f} GiB{few}")


def _node_memory() -> int:
    """Bytes of memory of the node of this process."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def _check_models(finding: Doctor, config: Config) -> Config | None:
    """`config` with its commits and arithmetic settled, None where a model cannot be used."""
    probes: dict[str, Callable[[str], None]] = {
        "audio_encoder": functools.partial(probe_audio_encoder, config.audio_encoder),
        "text_encoder": functools.partial(probe_text_encoder, config.text_encoder),
    }
    if config.transcriber.is_used:
        probes["transcriber"] = functools.partial(probe_transcriber, config.transcriber)
    settled = finding.look("models", lambda: pin_arithmetic(pin_revisions(config), cluster.num_gpus(), cluster.ask_nodes))
    for key, probe in probes.items():
        section = getattr(settled or config, key)
        topic = {"audio_encoder": "audio", "text_encoder": "text"}.get(key, key)
        if is_built_in(section):
            finding.say(topic, f"{section.name}, built in")
            continue
        device = "cuda" if config.extract.use_gpu is not False and _sees_gpu() else "cpu"
        started = time.perf_counter()
        if finding.look(topic, lambda probe=probe, device=device: probe(device) or True):  # type: ignore[misc]
            seconds = time.perf_counter() - started
            finding.say(topic, f"{section.name}: proved itself in {seconds:.1f} s, computes in {section.dtype}")
    return settled if not finding.problems else None


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _check_calls(finding: Doctor, config: Config) -> pa.Table | None:
    if config.data.root is None and config.data.manifest is None:
        finding.say("calls", "none looked at: give --data.root or --data.manifest")
        return None
    manifest = finding.look("calls", lambda: plan_calls(config.reading))
    if manifest is None:
        return None
    for line in describe_plan(manifest):
        finding.say("calls", line)
    if not is_built_in(config.text_encoder) and not finding.problems:
        texts = sample_transcripts(manifest, config.data, SAMPLE_CALLS)
        finding.look("text", lambda: check_vocabulary(config.text_encoder, texts))
    return manifest


def _check_extract(
    finding: Doctor, config: Config, manifest: pa.Table, *, cpus: int | None, gpus: int | None, connect_sec: float
) -> None:
    """Embed a sample with as many processes as extract would have on this node, and say what all calls will cost."""
    nodes = cluster.nodes()
    here_cpus, here_gpus = sum(node.cpus for node in nodes), cluster.num_gpus()
    on_gpus = encoders_on_gpus(config, here_gpus)
    if gpus and not on_gpus and not all(is_built_in(getattr(config, key)) for key in config.making_sections):
        finding.say("extract", f"no estimate for {gpus} GPUs: there is none here to be measured")
        return
    audio = plan_actors(config, [node.cpus for node in nodes], here_gpus)[0]
    workers = 1 if on_gpus else max(1, min(math.ceil(audio.num_actors / len(nodes)), int(here_cpus // audio.threads)))
    parts = spread(manifest, SAMPLE_CALLS, workers)
    if not parts:
        finding.warn("calls", "not one of the planned calls can be read; extract.json would say why of each")
        return
    measured, start_sec = _measure(config, parts, "cuda" if on_gpus else "cpu", audio.threads)
    rejected = Counter[str]()
    for costs in measured:
        rejected.update(costs.rejected)
    embedded = sum(len(costs.call_sec) for costs in measured)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()))
    finding.say(
        "sample", f"{embedded} of {embedded + rejected.total()} calls embedded" + (f", rejected: {reasons}" if reasons else "")
    )
    num_readable = manifest["reason"].null_count
    wanted_cpus = float(cpus or here_cpus)
    result = estimate(
        measured,
        num_readable,
        cpus=wanted_cpus,
        cpus_measured=len(measured) * audio.threads,
        gpus=(gpus if gpus is not None else here_gpus) if on_gpus else 0,
        start_sec=connect_sec + start_sec + max(costs.load_sec for costs in measured) + PIPELINE_START_SEC,
    )
    if result is None:
        finding.warn("extract", f"not one call of the sample could be embedded ({reasons})")
        return
    machine = _count(wanted_cpus, "CPU") + (f" and {_count(gpus or here_gpus, 'GPU')}" if on_gpus else "")
    finding.say("extract", _describe(result, num_readable, machine))
    peak = max(costs.peak_bytes for costs in measured) * audio.num_actors / len(nodes)
    total = _node_memory()
    words = f"about {peak / 2**30:.1f} GiB for {_count(math.ceil(audio.num_actors / len(nodes)), 'encoder process')} of a node"
    if peak > total:
        finding.warn("memory", f"{words}, and this one has {total / 2**30:.1f}; set extract.num_audio_encoders lower")
    else:
        finding.say("memory", words)


def _measure(config: Config, parts: list[Any], device: str, threads: int) -> tuple[list[Costs], float]:
    """What each part cost, in processes side by side, and the seconds until the first of them was at work."""
    fingerprint = make_fingerprint(config)

    def work(part: pa.Table) -> tuple[float, Costs]:
        return time.time(), measure_costs(part, config, fingerprint, device=device, threads=threads)

    remote: Any = ray.remote(num_cpus=0, num_gpus=1 if device == "cuda" else 0, max_calls=1)(work)
    asked = time.time()
    answers = ray.get([remote.remote(part) for part in parts])
    return [costs for _, costs in answers], max(0.0, min(begun for begun, _ in answers) - asked)


def _describe(found: Estimate, num_calls: int, machine: str) -> str:
    low, high = found.audio_hours_interval
    return (
        f"about {_duration(found.wall_sec)} on {machine}: {num_calls:,} calls, {found.audio_hours:.3g} hours of audio "
        f"({low:.3g} to {high:.3g}, 95 %) at {found.audio_sec_per_sec:.3g} x real time; writes about "
        f"{found.written_bytes / 2**20:,.1f} MiB"
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
