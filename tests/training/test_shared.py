import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from urgency_ray.config import RayConfig
from urgency_ray.examples.tokens import Tokens
from urgency_ray.examples.utterances import Utterances
from urgency_ray.training.data import TrainingData
from urgency_ray.training.shared import SharedInputs

NUM_ROWS = 4000


def make_data() -> Any:
    rng = np.random.default_rng(0)
    audio, text = (rng.standard_normal((NUM_ROWS, 64)).astype(np.float32) for _ in range(2))
    lengths = rng.integers(1, 60, NUM_ROWS)
    tokens = Tokens(rng.integers(0, 99, lengths.sum()).astype(np.int32), np.concatenate([[0], lengths.cumsum()]), 0)
    spans = rng.random((NUM_ROWS, 2)).astype(np.float32)
    utterances = Utterances(np.arange(NUM_ROWS + 1), rng.integers(0, 3, NUM_ROWS), spans)
    urgency, sentiment = rng.integers(0, 3, NUM_ROWS), rng.integers(-1, 4, NUM_ROWS)
    order = rng.permutation(NUM_ROWS)
    acoustic = rng.random((NUM_ROWS, 5)).astype(np.float32)
    return TrainingData(audio, text, acoustic, urgency, sentiment, order[400:], order[:400], utterances, tokens)


def keep(data: Any) -> Any:
    inputs = SharedInputs(RayConfig())
    large = {name: inputs.keep(name, getattr(data, name)) for name in ("audio", "text", "tokens")}
    return inputs, dataclasses.replace(data, **large)


def arrays(data: Any) -> Any:
    return {
        f"{field.name}.{index}": np.asarray(part)
        for field in dataclasses.fields(data)
        for value in [getattr(data, field.name)]
        for index, part in enumerate(value if isinstance(value, tuple) else (value,))
    }


def mapped_file(array: Any) -> Any:
    """The file behind an array's memory; None where that is the process's own."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        first, last, *rest = re.split(r"[-\s]+", line, maxsplit=2)
        if int(first, 16) <= address < int(last, 16):
            return next(iter(re.findall(r"/\S+", rest[0])), None)
    raise LookupError(address)


def describe(shared: Any) -> Any:
    data = shared.get()
    files = {name: mapped_file(getattr(data, name)) for name in ("audio", "text")}
    return files | {"tokens": mapped_file(data.tokens.ids)}, arrays(data)


def test_workers_read_the_very_memory_that_the_driver_reads(ray_session: None) -> None:
    original = make_data()
    inputs, data = keep(original)
    shared = inputs.share(data)
    own = {
        name: mapped_file(array) for name, array in (("audio", data.audio), ("text", data.text), ("tokens", data.tokens.ids))
    }
    assert all("plasma" in str(file) for file in own.values())
    cloudpickle: Any = ray.cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    for files, found in ray.get([ray.remote(num_cpus=0)(describe).remote(shared) for _ in range(2)]):
        assert files == own
        for name, array in arrays(original).items():
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="read-only"):
        data.audio[0] = 0


def test_what_every_fold_has_in_common_is_put_once(ray_session: None) -> None:
    inputs, data = keep(make_data())
    one = inputs.share(data)
    other = inputs.share(dataclasses.replace(data, train=data.train[::2]))
    assert one.refs == other.refs and set(one.refs) == {"audio", "text", "tokens"}
    np.testing.assert_array_equal(other.get().train, data.train[::2])
    assert one.digest != other.digest


def test_the_digest_covers_every_array_and_nothing_else(ray_session: None) -> None:
    data = make_data()
    digests = [keep(data)[0].share(data).digest, keep(make_data())[0].share(data).digest]
    for name, array in arrays(data).items():
        if array.ndim:
            array[-1] += 1
            digests.append(keep(data)[0].share(data).digest)
            assert digests[-1] != digests[-2], name
    assert digests[0] == digests[1] and len(set(digests)) == len(digests) - 1
