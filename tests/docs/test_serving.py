"""The service of docs/serving.md, as it is shown there."""

import json
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shared_runs import Trained

from urgency_ray import UrgencyPipeline
from urgency_ray.run_folder import RunFolder

pytestmark = pytest.mark.slow

SHOWN = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
# A cluster of its own, which ends with its driver.
SERVE = """
import sys, ray
from ray import serve
ray.init(address="local", num_cpus=2, include_dashboard=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
from urgency_service import app
serve.run(app)
print("up", flush=True)
sys.stdin.read()
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_the_service_answers_as_the_pipeline_does(trained: Trained, tmp_path: Path) -> None:
    code, answer = (re.findall(rf"```{language}\n(.*?)```", SHOWN, re.DOTALL)[0] for language in ("python", "json"))
    model, words, port = RunFolder(trained[0]).model, "119입니다 불이 났어요", free_port()
    (tmp_path / "urgency_service.py").write_text(code.replace("runs/demo/model", model), encoding="utf-8")
    time_sec = np.arange(32_000) / 16_000
    soundfile.write(tmp_path / "call.wav", 0.3 * np.sin(2 * np.pi * 300 * time_sec), 16_000)
    content = (tmp_path / "call.wav").read_bytes()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVE, str(port)], cwd=tmp_path, text=True, **pipes) as service:  # type: ignore[call-overload]
        assert service.stdout is not None
        assert any(line == "up\n" for line in service.stdout), "the service did not start"
        query = urllib.parse.urlencode({"text": words})
        said = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/?{query}", data=content, timeout=60))
        broken = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/?{query}", data=b"RIFF", timeout=60))
    expected = UrgencyPipeline.from_pretrained(model)({"audio": content, "text": words})
    assert said["urgency"] == expected.urgency
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert broken["urgency"] is None
    assert broken["reason"] in ("not_audio", "truncated_audio")
    assert said.keys() == json.loads(answer).keys(), "the answer shown has the fields of a real one"
