"""What `urgency-ray doctor` says of a machine, a config and a corpus."""

import re
from pathlib import Path
from typing import Any

import pytest
from shared_runs import KnownCorpus

from urgency_ray.cli import main


def test_it_names_the_machine_and_what_extract_will_take(
    ray_session: None, corpus: KnownCorpus, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data.root", str(corpus[0])]) == 0
    lines = capfd.readouterr().out.splitlines()
    topics = {line.split()[0] for line in lines}
    assert topics >= {"versions", "cluster", "memory", "audio", "text", "calls", "sample", "extract"}
    (found,) = (line for line in lines if line.startswith("extract"))
    told = re.search(r"on 2 CPUs: (\d+) calls, ([\d.]+) hours of audio \(([\d.]+) to ([\d.]+), 95 %\) at ([\d.e+]+) x", found)
    assert told is not None, found
    calls, hours, low, high, speed = map(float, told.groups())
    assert 0 < low < hours < high
    assert speed > 1
    # Some of the corpus' calls can be known for rejects before they are read.
    assert 80 <= calls <= corpus[1].num_calls


def test_a_larger_cluster_is_estimated_from_this_one(
    ray_session: None, corpus: KnownCorpus, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data.root", str(corpus[0]), "--cpus", "64"]) == 0
    assert "on 64 CPUs:" in capfd.readouterr().out


def test_what_would_fail_is_a_problem_and_exit_1(ray_session: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--audio_encoder.name", str(tmp_path / "gone"), "--data.root", str(tmp_path)]) == 1
    printed = capfd.readouterr()
    assert printed.out.count("PROBLEM: ") >= 1
    assert "no such folder" in printed.out
    assert printed.err.startswith("error: extract would fail: ")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_number_of_cpus_is_a_whole_one(value: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"--cpus={value}"]) == 2
    assert capfd.readouterr().err == f"error: --cpus: must be a whole number > 0 but got {value!r}\n"
