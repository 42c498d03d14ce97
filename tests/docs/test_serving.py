"""The service of docs/serving.md, as it is shown there."""

import json
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from shared_runs import Trained
from tone_speller import speak, wav_of

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


def test_the_service_answers_as_the_pipeline_does_with_words_and_without(
    trained: Trained, speller: str, tmp_path: Path
) -> None:
    service_code, transcribing = re.findall(r"```python\n(.*?)```", SHOWN, re.DOTALL)
    (answer,) = re.findall(r"```json\n(.*?)```", SHOWN, re.DOTALL)
    model, words, said, port = RunFolder(trained[0]).model, "119입니다 불이 났어요", "가나 다라마", free_port()
    code = service_code + transcribing
    for shown, real in (("runs/demo/model", model), ("kresnik/wav2vec2-large-xlsr-korean", speller)):
        code = code.replace(shown, real)
    (tmp_path / "urgency_service.py").write_text(code, encoding="utf-8")
    content = wav_of(speak(said))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVE, str(port)], cwd=tmp_path, text=True, **pipes) as service:  # type: ignore[call-overload]
        assert service.stdout is not None
        assert any(line == "up\n" for line in service.stdout), "the service did not start"

        def ask(content: bytes, **query: str) -> dict[str, Any]:
            address = f"http://127.0.0.1:{port}/?{urllib.parse.urlencode(query)}"
            found: dict[str, Any] = json.load(urllib.request.urlopen(address, data=content, timeout=60))
            return found

        with_words, without, broken = ask(content, text=words), ask(content), ask(b"RIFF", text=words)
    classify = UrgencyPipeline.from_pretrained(model)
    for found, text in ((with_words, words), (without, said)):
        expected = classify({"audio": content, "text": text})
        assert found["urgency"] == expected.urgency
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert with_words["probabilities"] != without["probabilities"]
    assert broken["urgency"] is None
    assert broken["reason"] in ("not_audio", "truncated_audio")
    assert with_words.keys() == json.loads(answer).keys(), "the answer shown has the fields of a real one"
