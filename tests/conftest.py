"""One small Ray session and one small corpus for all tests; each stage's result is made once and handed on."""

import os
import shutil
from pathlib import Path

import pytest

# A model's name must never send a test to the network, nor may a cluster of somebody else's be joined.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)

ROOT = Path(__file__).parent.parent
SPOKEN_CALLS = ROOT.parent / "shared" / "data" / "spoken_calls"


@pytest.fixture
def one_thread():
    """Torch on one thread: tiny batches are faster so, and sums always in the same order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def ray_session():
    import ray

    from urgency_ray import cluster
    from urgency_ray.config import RayConfig

    cluster.connect(RayConfig(num_cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def demo_config():
    """configs/demo.yaml with training cut short."""
    from urgency_ray.config import load_config

    return load_config(
        ROOT / "configs" / "demo.yaml", {"train.epochs": "4", "train.ablation": "false", "extract.rows_per_block": "16"}
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder with a synthetic corpus of 100 calls, some of them flawed, and what is known of it."""
    from urgency_ray.config import SynthesizeConfig
    from urgency_ray.synthesize.corpus import synthesize

    root = tmp_path_factory.mktemp("corpus") / "calls"
    config = SynthesizeConfig(num_calls=100, min_call_sec=4.0, max_call_sec=5.0, flaw_fraction=0.1)
    return root, synthesize(str(root), config)


@pytest.fixture(scope="session")
def extracted(ray_session, corpus, demo_config, tmp_path_factory):
    """(run folder, summary, config) of an extracted corpus; read only."""
    from urgency_ray.commands.extract import extract

    run_dir = str(tmp_path_factory.mktemp("extracted") / "run")
    config = demo_config.replace({"data.root": str(corpus[0])})
    return run_dir, extract(config, run_dir), config


@pytest.fixture(scope="session")
def trained(extracted, tmp_path_factory):
    """(run folder, metrics, config) of a copy of `extracted`, trained with ablation; read only."""
    from urgency_ray.commands.train import train

    run_dir = str(shutil.copytree(extracted[0], tmp_path_factory.mktemp("trained") / "run"))
    config = extracted[2].replace({"train.ablation": True})
    return run_dir, train(config, run_dir), config
