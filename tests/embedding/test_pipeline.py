"""Which encoders run on GPUs, how many of them, and that their shares of a cluster fit wherever Ray puts them."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from urgency_ray.config import Config
from urgency_ray.embedding.pipeline import Blocks, plan_actors, plan_transcribers, share_gpus
from urgency_ray.embedding.transform import encoders_on_gpus, pin_arithmetic
from urgency_ray.encoders.arithmetic import Arithmetic
from urgency_ray.errors import RequestError
from urgency_ray.schema import MANIFEST_SCHEMA

BOTH = {"audio_encoder.name": "models/a", "text_encoder.name": "models/t"}
AUDIO, TEXT = ({name: BOTH[name]} for name in BOTH)


def plan(fields: Any, node_cpus: Any, num_gpus: Any) -> Any:
    return plan_actors(Config().replace(fields), node_cpus, num_gpus)


@pytest.mark.parametrize("num_gpus", [1, 2, 8])
def test_a_pretrained_text_encoder_beside_spectral_gets_all_gpus(num_gpus: int) -> None:
    hear, read = plan(TEXT, [16.0], num_gpus)
    assert (hear.device, hear.num_gpus) == ("cpu", 0)
    assert (read.device, read.num_gpus, read.num_actors) == ("cuda", 1, num_gpus)


@pytest.mark.parametrize("num_gpus", [1, 2, 8])
def test_hashing_gets_no_gpu_and_the_audio_encoders_have_whole_ones(num_gpus: int) -> None:
    hear, read = plan(AUDIO, [16.0], num_gpus)
    assert (hear.device, hear.num_gpus, hear.num_actors) == ("cuda", 1, num_gpus)
    assert (read.device, read.num_gpus, read.threads) == ("cpu", 0, 1)


def test_built_in_encoders_want_no_gpu_and_none_is_used_against_the_user_s_will() -> None:
    for fields in ({}, {"extract.use_gpu": True}, BOTH | {"extract.use_gpu": False}):
        assert [actors.device for actors in plan(fields, [16.0], 4)] == ["cpu", "cpu"]


@pytest.mark.parametrize("num_text", [1, 2, 3, 5])
def test_text_encoders_alone_share_gpus_as_they_are_asked_for(num_text: int) -> None:
    _, read = plan(TEXT | {"extract.num_text_encoders": num_text}, [16.0], 2)
    assert (read.num_actors, read.num_gpus) == (num_text, {1: 1.0, 2: 1.0, 3: 0.5, 5: 0.333}[num_text])


def place(actors: Any, gpus: Any, rng: Any) -> Any:
    """Put actors on GPUs in any order, each on any that holds it, as Ray might; whether all found a place."""
    free = [1.0] * gpus
    for share in rng.sample(actors, len(actors)):
        fitting = [index for index, left in enumerate(free) if left + 1e-9 >= share]
        if not fitting:
            return False
        free[rng.choice(fitting)] -= share
    return True


@pytest.mark.parametrize("fields", [BOTH, AUDIO, TEXT], ids=["both", "audio", "text"])
@pytest.mark.parametrize("num_gpus", [1, 2, 3, 8])
def test_shares_of_gpus_fit_in_whatever_order_and_place(fields: Any, num_gpus: int) -> None:
    rng = random.Random(0)
    for num_audio, num_text in itertools.product((None, 1, 3, 16), repeat=2):
        asked = {"extract.num_audio_encoders": num_audio, "extract.num_text_encoders": num_text}
        shares = [actors.num_gpus for actors in plan(fields | asked, [64.0], num_gpus) for _ in range(actors.num_actors)]
        on_gpus = [share for share in shares if share]
        assert on_gpus
        assert all(place(on_gpus, num_gpus, rng) for _ in range(50)), asked


WRITES = {"transcriber.name": "models/w"}


@pytest.mark.parametrize("fields", [{}, BOTH, AUDIO, TEXT], ids=["built-in", "both", "audio", "text"])
@pytest.mark.parametrize("num_gpus", [1, 2, 3, 8])
def test_shares_of_gpus_fit_beside_transcribers_in_whatever_order_and_place(fields: Any, num_gpus: int) -> None:
    rng = random.Random(0)
    for num_audio, num_text, num_writing in itertools.product((None, 1, 3, 16), repeat=3):
        asked = {
            "extract.num_audio_encoders": num_audio,
            "extract.num_text_encoders": num_text,
            "extract.num_transcribers": num_writing,
        }
        config = Config().replace(fields | WRITES | asked)
        transcribers = plan_transcribers(config, [64.0], num_gpus)
        assert transcribers is not None
        assert transcribers.num_actors == (num_writing or num_gpus)
        pools = share_gpus([*plan_actors(config, [64.0], num_gpus), transcribers], num_gpus)
        shares = [pool.num_gpus for pool in pools for _ in range(pool.num_actors) if pool.num_gpus]
        assert pools[2].device == "cuda"
        assert all(place(shares, num_gpus, rng) for _ in range(20)), asked


def test_without_a_transcriber_none_is_planned() -> None:
    for fields in ({}, WRITES | {"transcriber.use": "never"}):
        assert plan_transcribers(Config().replace(fields), [2.0], 0) is None


@pytest.mark.parametrize(
    ("fields", "num_gpus", "audio", "text"),
    [
        (BOTH, 2, "bfloat16", "bfloat16"),
        (BOTH, 0, "float32", "float32"),
        (AUDIO, 2, "bfloat16", "auto"),
        (TEXT, 2, "auto", "bfloat16"),
        (TEXT, 0, "auto", "float32"),
        (BOTH | {"extract.use_gpu": False}, 2, "float32", "float32"),
        (BOTH | {"text_encoder.dtype": "float32"}, 2, "bfloat16", "float32"),
        (AUDIO | {"audio_encoder.dtype": "int8", "extract.use_gpu": False}, 2, "int8", "auto"),
    ],
)
def test_each_encoder_s_arithmetic_is_that_of_its_device(fields: Any, num_gpus: int, audio: str, text: str) -> None:
    asked: list[bool] = []

    def ask(question: Callable[[], Arithmetic], *, on_gpu: bool) -> list[Arithmetic]:
        asked.append(on_gpu)
        return [Arithmetic("bfloat16" if on_gpu else "float32", "as the test has it")]

    config = pin_arithmetic(Config().replace(fields), num_gpus, ask)
    assert len(asked) == len(set(asked))
    assert (config.audio_encoder.dtype, config.text_encoder.dtype) == (audio, text)


def test_int8_is_refused_of_the_encoder_that_would_be_on_a_gpu_alone() -> None:
    # A built-in encoder has no arithmetic: what stands there is nobody's fault.
    assert encoders_on_gpus(Config().replace(TEXT | {"audio_encoder.dtype": "int8"}), 1) == ["text_encoder"]
    with pytest.raises(RequestError, match=r"^audio_encoder\.dtype: int8 runs on CPUs"):
        encoders_on_gpus(Config().replace(AUDIO | {"audio_encoder.dtype": "int8"}), 1)


@pytest.mark.parametrize("chunk_rows", [1, 7, 100])
def test_a_plan_in_any_chunks_is_cut_in_the_order_of_the_archives(chunk_rows: int) -> None:
    rng = np.random.default_rng(0)
    places = [(None, None) if row % 9 == 0 else (f"{row % 3}.zip", f"{row:03d}.wav") for row in rng.permutation(60)]
    rows = [
        {"call_id": f"c{row}", "audio_container": container, "audio_member": member, "num_bytes": row}
        | {"version": "1", "provider_split": "unknown"}
        for row, (container, member) in enumerate(places)
    ]
    manifest = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    chunks = [manifest.slice(start, chunk_rows) for start in range(0, 60, chunk_rows)]
    blocks = Blocks(pa.concat_tables([*chunks, manifest.slice(0, 0)]), 16)
    expected = sorted(rows, key=lambda row: (row["audio_container"] is None, row["audio_container"], row["audio_member"]))
    assert [len(block) for block in blocks] == [16, 16, 16, 12]
    found = pa.concat_tables(list(blocks))
    assert found["call_id"].to_pylist() == [row["call_id"] for row in expected]
    assert found.to_pylist() == manifest.take(found["num_bytes"]).to_pylist()
