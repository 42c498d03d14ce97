"""What of other packages is used though it is no documented interface: each has a test that fails where it has moved."""

import ast
import dataclasses
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pytest
import ray
import torch
from huggingface_hub import ModelHubMixin
from optuna.storages import InMemoryStorage
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from torch import nn

import urgency_ray
from urgency_ray import cli, cluster
from urgency_ray.cluster.address import check_address
from urgency_ray.cluster.connection import LATE
from urgency_ray.config import Config, ModelConfig
from urgency_ray.embedding.pipeline import Blocks
from urgency_ray.encoders.cpu import Int8Linear, PackedLinear
from urgency_ray.errors import RequestError
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.saved import SavedModel
from urgency_ray.search.engine import rebuild_scheduler
from urgency_ray.training.fit import _clip_in_step
from urgency_ray.training.torch_trainer import Trainer

PACKAGE = Path(urgency_ray.__file__).parent


@dataclass(frozen=True)
class Hook:
    """`name` as the code has it, the module of the package that uses it, and why nothing public would do."""

    name: str
    where: str
    why: str


HOOKS = (
    Hook("_create_default_callbacks", "training/torch_trainer.py", "Ray Train has no switch for its PlacementGroupCleaner"),
    Hook("PlacementGroupCleanerCallback", "training/torch_trainer.py", "which of Ray Train's callbacks is left out"),
    Hook(
        "ControllerError",
        "cluster/connection.py",
        "by its lack, a Ray Train that was imported as its older implementation is known",
    ),
    Hook("ray.tune.execution.tune_controller", "search/engine.py", "whose log has a traceback for each process that is lost"),
    Hook("scheduler.on_trial_add", "search/engine.py", "a search that goes on shows ASHA trials that Ray Tune has never seen"),
    Hook(
        "optuna.Trial", "search/searcher.py", "Optuna's ask gives new trials only; one that had begun goes on in its own place"
    ),
    Hook("from_blocks", "embedding/pipeline.py", "takes a lazy sequence: Ray Data's public ways start a task for each block"),
    Hook("RAY_JOB_CONFIG_JSON_ENV_VAR", "cluster/connection.py", "whether `ray job submit` started a process"),
    Hook(
        "NodeInfoGcsService/GetClusterId",
        "cluster/address.py",
        "whether a cluster answers at an address, and takes the token, is known in seconds: Ray itself tries for minutes",
    ),
    Hook("timed out during startup", "cluster/connection.py", "Ray has no type for it, and a busy machine is nobody's bug"),
    Hook("raise_original_map_exception", "cluster/connection.py", "a worker's RequestError reaches the user as one line"),
    Hook("Failed to apply UDF transform after", "faults.py", "the advice that Ray Data adds to that line, which is cut off"),
    Hook("grad_scale", "training/fit.py", "PyTorch's fused AdamW then clips in the same pass over the gradients"),
    Hook("_save_pretrained", "model/saved.py", "huggingface_hub's place for what else belongs into a model's folder"),
    Hook("_from_pretrained", "model/saved.py", "huggingface_hub's place for reading it back"),
    Hook("conv_layers", "encoders/cpu.py", "the layers of transformers' front end, which runs in tiles instead"),
    Hook("_reorder_linear_weight", "encoders/cpu.py", "oneDNN's order of weights, made once and not each pass"),
    Hook("_version", "model/merged.py", "whether a weight has changed since the members were merged"),
    Hook("_linear_pointwise", "encoders/cpu.py", "the product that takes it"),
    Hook("_is_mkldnn_bf16_supported", "encoders/cpu.py", "whether oneDNN has kernels for this processor"),
    Hook("torch.ops.quantized.linear_prepack", "encoders/cpu.py", "PyTorch's int8 kernels, which its own API runs at 7 bits"),
    Hook("torch.ops.quantized.linear_dynamic", "encoders/cpu.py", "likewise"),
    Hook("_topology", "embedding/placement.py", "Ray Data has no way to make actors on nodes that join while a pipeline runs"),
    Hook("ActorPoolScalingRequest", "embedding/placement.py", "likewise"),
    Hook("ExecutionCallback", "embedding/placement.py", "likewise"),
    Hook("MapBatches(", "embedding/placement.py", "the name of an operator, by which a pool's placement is known"),
    Hook("WorkerGroupStartupTimeoutError", "training/trainer.py", "Ray Train would wait for ever for a node that is lost"),
    Hook("WorkerGroupStartupFailedError", "training/trainer.py", "likewise"),
)


def test_contributing_lists_them() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rows = {tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in lines}
    assert rows == {dataclasses.astuple(hook) for hook in HOOKS}


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_the_table_says_where_each_hook_is_used(hook: Any) -> None:
    assert hook.name in (PACKAGE / hook.where).read_text(encoding="utf-8")


def private_names() -> Iterator[Any]:
    """(file, name) of each private attribute that the package uses and does not define, or takes from a base class."""
    trees = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
    }
    own = {
        node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else node.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    }
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
                continue
            inherited = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", None) == "super"
            # These are public, whatever they are called.
            if (inherited or node.attr not in own) and node.attr not in {"_replace", "_exit"}:
                yield file, node.attr


def test_no_private_name_is_used_that_the_table_lacks() -> None:
    found = set(private_names())
    assert found
    assert found <= {(hook.where, hook.name) for hook in HOOKS}


def test_of_ray_train_s_callbacks_only_the_placement_group_cleaner_is_left_out() -> None:
    trainer = Trainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))
    kinds: tuple[Any, Any] = (TorchTrainer, Trainer)
    all_of_them, ours = ({type(each).__name__ for each in of._create_default_callbacks(trainer)} for of in kinds)
    assert all_of_them - ours == {"PlacementGroupCleanerCallback"}


def test_only_the_newer_ray_train_has_the_name_that_it_is_known_by() -> None:
    code = "import ray.train; print(hasattr(ray.train, 'ControllerError'))"
    old = subprocess.run(
        [sys.executable, "-c", code], env={"RAY_TRAIN_V2_ENABLED": "0"}, capture_output=True, text=True, check=True, timeout=120
    )
    assert old.stdout.strip() == "False"
    assert hasattr(ray.train, "ControllerError")


def test_a_ray_that_starts_too_slowly_says_so_in_these_words() -> None:
    assert LATE in inspect.getsource(importlib.import_module("ray._private.node"))


def test_the_variable_of_a_submitted_job_is_ray_s() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert RAY_JOB_CONFIG_JSON_ENV_VAR == cluster.connection.JOB
    # What the other end sets.
    source = Path(ray.__file__).parent / "dashboard" / "modules" / "job" / "job_supervisor.py"
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR: json.dumps(" in source.read_text(encoding="utf-8")


def test_a_cluster_s_head_answers_and_wants_its_token(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ray.get_runtime_context().gcs_address
    check_address(address, "ray.address")
    # A private cluster makes itself a token, which this process has.
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    with pytest.raises(
        RequestError, match=rf"^ray.address {address}: the cluster refuses the token that is here: set RAY_AUTH"
    ):
        check_address(address, "ray.address")
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(RequestError, match=rf"^RAY_ADDRESS {address}: the cluster wants a token: set RAY_AUTH_MODE=token, and"):
        check_address(address, "RAY_ADDRESS")


def test_ray_tune_s_controller_logs_where_it_is_silenced() -> None:
    assert importlib.util.find_spec("ray.tune.execution.tune_controller") is not None
    from ray.tune.execution import tune_controller

    assert tune_controller.logger.name == "ray.tune.execution.tune_controller"


def test_asha_needs_no_more_of_a_trial_than_its_id() -> None:
    config = Config().replace({"tune.grace_epochs": 1, "tune.reduction_factor": 2, "train.epochs": 9})
    scheduler = rebuild_scheduler(config, optuna.create_study())
    decisions = []
    for name, score in (("a", 0.4), ("b", 0.8), ("c", 0.1)):
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        decisions.append(scheduler.on_trial_result(None, trial, {"epoch": 1, "best_val_macro_f1": score}))
        scheduler.on_trial_remove(None, trial)
    # The first has none beside it; the upper half of 0.4 and 0.8 begins at 0.6, that of 0.1, 0.4 and 0.8 at 0.4.
    assert decisions == ["CONTINUE", "CONTINUE", "STOP"]


def test_optuna_s_trial_takes_a_running_trial_with_its_values() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
    values = [study.ask().suggest_float("x", 0, 1) for _ in range(2)]
    trial = optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name("s"), 1))
    assert (trial.number, trial.suggest_float("x", 0, 1)) == (1, values[1])
    study.tell(trial, 0.5)
    assert [each.state.name for each in study.trials] == ["RUNNING", "COMPLETE"]


def test_ray_data_takes_blocks_that_are_made_when_they_are_asked_for(ray_session: None) -> None:
    members = [f"{number:02d}.wav" for number in range(7)]
    manifest = pa.table({"audio_container": ["a.zip"] * 7, "audio_member": members[::-1]})
    blocks = Blocks(manifest, 3)
    source = ray.data.from_blocks(blocks)  # type: ignore[arg-type]
    assert source.num_blocks() == 3
    assert [row["audio_member"] for row in source.take_all()] == members


def test_a_request_that_fails_in_a_task_of_ray_data_is_one_line_to_the_user(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(batch: Any) -> None:
        raise RequestError("data.root: mend it")

    def run(config: Any, options: Any) -> None:
        ray.data.range(1).map_batches(fail, num_cpus=0.1).materialize()

    monkeypatch.setitem(cli.COMMANDS, "synthesize", dataclasses.replace(cli.COMMANDS["synthesize"], run=run))
    assert cli.main(["synthesize"]) == 2
    assert capsys.readouterr().err.strip() == "error: data.root: mend it"


@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_fused_adamw_divides_the_gradients_by_what_clipping_sets(max_norm: float) -> None:
    weights = []
    for ours in (True, False):
        torch.manual_seed(0)
        layer = nn.Linear(5, 3)
        # A large epsilon: otherwise a step of Adam is the same whatever the gradients are divided by.
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, eps=1.0, fused=True)
        layer(torch.randn(7, 5)).square().sum().backward()
        if ours:
            _clip_in_step(optimizer, max_norm)
        else:
            nn.utils.clip_grad_norm_(layer.parameters(), max_norm)
        optimizer.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights)


def test_huggingface_hub_calls_what_a_model_adds_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    for name in ("_save_pretrained", "_from_pretrained"):
        assert name in vars(ModelHubMixin) and name in vars(SavedModel)
    saving, reading = SavedModel._save_pretrained, vars(SavedModel)["_from_pretrained"].__func__

    def save(*rest: Any) -> None:
        called.append("saved")
        saving(*rest)

    def read(cls: type[SavedModel], /, **options: Any) -> Any:
        called.append(sorted(options))
        return reading(cls, **options)

    monkeypatch.setattr(SavedModel, "_save_pretrained", save)
    monkeypatch.setattr(SavedModel, "_from_pretrained", classmethod(read))
    UrgencyClassifier(ModelConfig(), 4, 3).save_pretrained(tmp_path)
    UrgencyClassifier.from_pretrained(str(tmp_path))
    assert called[0] == "saved"
    assert {"model_id", "revision", "cache_dir", "force_download", "local_files_only", "token"} <= set(called[1])


def test_transformers_front_end_has_the_layers_that_are_taken_from_it() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    front: dict[str, Any] = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
    model = Wav2Vec2Model(Wav2Vec2Config(**sizes, **front, feat_extract_norm="layer", num_conv_pos_embedding_groups=2))
    for layer in model.feature_extractor.conv_layers:
        assert isinstance(layer.conv, nn.Conv1d) and isinstance(layer.layer_norm, nn.LayerNorm) and callable(layer.activation)


def test_pytorch_s_int8_kernels_multiply() -> None:
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0, -2.0], [0.5, 0.25]]), torch.tensor([0.0, 1.0])
    np.testing.assert_allclose(Int8Linear(linear)(torch.tensor([[2.0, 1.0]])), [[0.0, 2.25]], atol=0.05)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this processor")
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_is_its_linear_layer(bias: bool) -> None:
    # Small whole numbers: bfloat16 holds all of them, and their products' sums, exactly.
    linear = nn.Linear(3, 2, bias=bias, dtype=torch.bfloat16)
    linear.weight.data = torch.tensor([[1.0, -2.0, 3.0], [4.0, 0.5, -1.0]], dtype=torch.bfloat16)
    if bias:
        linear.bias.data = torch.tensor([1.0, -1.0], dtype=torch.bfloat16)
    values = torch.tensor([[[2.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]], dtype=torch.bfloat16)
    expected = np.array([[[0.0, 8.5]], [[2.0, 3.5]]]) + (np.array([1.0, -1.0]) if bias else 0.0)
    with torch.inference_mode():
        np.testing.assert_array_equal(PackedLinear(linear)(values).float(), expected)
