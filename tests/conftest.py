"""One small Ray session and one small corpus for all tests; each stage's result is made once and handed on."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest

from urgency_ray import cluster

if TYPE_CHECKING:
    from shared_runs import Extracted, KnownCorpus, Share, Trained

    from urgency_ray.config import Config

# A model's name must never send a test to the network, nor may a cluster of somebody else's be joined.
os.environ["HF_HUB_OFFLINE"] = "1"
# MLflow keeps runs in a folder for those alone who ask for it; a server of its own takes a test's time.
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ.pop("RAY_ADDRESS", None)
# As the command line does, before PyTorch is imported.
cluster.set_environment()

ROOT = Path(__file__).parent.parent
SPOKEN_CALLS = ROOT.parent / "shared" / "data" / "spoken_calls"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: tiny batches are faster so, and sums always in the same order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    import ray

    from urgency_ray.config import RayConfig

    cluster.connect(RayConfig(num_cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def demo_config() -> Config:
    """configs/demo.yaml's encoders and search, and one small fusion model by UrgencySense's losses, its training cut short."""
    from urgency_ray.config import load_config

    model = {"name": "cross_attention", "hidden_dim": "64", "num_layers": "1", "num_heads": "4", "feedforward_dim": "128"}
    loss = {"kl_weight": "0.25", "focal_weight": "0.4", "cross_entropy_weight": "0.35"}
    one = {
        "members": "null",
        "linear_member": "false",
        "discriminant_member": "false",
        "stacked_member": "false",
        "select_by": "urgency_macro_f1",
    }
    # Baselines take as long as these trainings: what is said of them asks for them.
    recipe = {
        "weight_decay": "0.01",
        "schedule": "cosine_warm_restarts",
        "epochs": "4",
        "ablation": "false",
        "baselines": "false",
    }
    sections = {"model": model | {"head_dim": "64"}, "loss": loss, "train": one | recipe}
    fields = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return load_config(ROOT / "configs" / "demo.yaml", fields | {"extract.rows_per_block": "16", "tune.ensemble": "null"})


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Share:
    """`share(name, command, call, copy_of=None)`: (location, result) of `command`, run once for all of xdist's processes.

    `call(location)` runs it on a folder that is not there yet, or is a copy of `copy_of`. Whoever asks first does, the others
    wait. What came of it lies in a folder of them all: read only.
    """
    from filelock import FileLock
    from pydantic import TypeAdapter

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def share(name: Any, command: Any, call: Any, copy_of: Any = None) -> Any:
        kind = TypeAdapter(get_type_hints(command)["return"])
        note = shared / f"{name}.json"
        with FileLock(shared / f"{name}.lock"):
            if not note.exists():
                location = str(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared), "run"))
                if copy_of is not None:
                    shutil.copytree(copy_of, location)
                result = json.dumps(kind.dump_python(call(location), mode="json", exclude_unset=True))
                note.write_text(json.dumps([location, result]), encoding="utf-8")
        location, result = json.loads(note.read_text(encoding="utf-8"))
        return location, kind.validate_json(result)

    return share


@pytest.fixture(scope="session")
def corpus(share: Share) -> KnownCorpus:
    """A folder with a synthetic corpus of 100 calls, some of them flawed, and what is known of it; read only."""
    from urgency_ray.config import SynthesizeConfig
    from urgency_ray.synthesize.corpus import synthesize

    config = SynthesizeConfig(num_calls=100, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.1)
    root, known = share("corpus", synthesize, lambda root: synthesize(root, config))
    return Path(root), known


@pytest.fixture(scope="session")
def speller(share: Share) -> str:
    """The folder of a CTC model that spells the tones of `tone_speller.speak`; read only."""
    from tone_speller import train_speller

    return share("speller", train_speller, lambda location: train_speller(Path(location)))[1]


@pytest.fixture(scope="session")
def extracted(ray_session: None, corpus: KnownCorpus, demo_config: Config, share: Share) -> Extracted:
    """(run folder, summary, config) of an extracted corpus; read only."""
    from urgency_ray.commands.extract import extract

    config = demo_config.replace({"data.root": str(corpus[0])})
    return *share("extracted", extract, lambda run_dir: extract(config, run_dir)), config


@pytest.fixture(scope="session")
def utterances(extracted: Extracted, share: Share) -> Extracted:
    """(run folder, summary, config) of the same corpus, extracted by utterance, some too short; read only."""
    from urgency_ray.commands.extract import extract

    config = extracted[2].replace({"data.unit": "utterance", "data.min_utterance_sec": 0.6})
    return *share("utterances", extract, lambda run_dir: extract(config, run_dir)), config


@pytest.fixture(scope="session")
def trained(extracted: Extracted, share: Share) -> Trained:
    """(run folder, metrics, config) of a copy of `extracted`, trained with ablation; read only."""
    from urgency_ray.commands.train import train

    config = extracted[2].replace({"train.ablation": True})
    return *share("trained", train, lambda run_dir: train(config, run_dir), copy_of=extracted[0]), config


@pytest.fixture
def steady_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dtype: auto` is float32 in this process on every machine, for tests that compare digits."""
    from urgency_ray.encoders import hub
    from urgency_ray.encoders.arithmetic import Arithmetic

    monkeypatch.setattr(hub, "best_arithmetic", lambda device: Arithmetic("float32", "a test"))
