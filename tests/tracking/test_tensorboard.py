"""Event files read back record by record, by the format's own description (TFRecord with masked CRC-32C)."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from urgency_ray.tracking.tensorboard import write_events
from urgency_ray.training.history import EpochRow


def masked_crc(content: Any) -> Any:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(folder: Any) -> Any:
    """{tag: [(step, value, wall time), ...]} of the only event file of a TensorBoard run."""
    (path,) = Path(folder).iterdir()
    assert "tfevents" in path.name  # how TensorBoard knows the file
    content = path.read_bytes()
    curves: dict[str, list[tuple[int, float, float]]] = {}
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        record = content[12 : 12 + size]
        assert struct.unpack("<I", content[8:12]) == (masked_crc(content[:8]),)
        assert struct.unpack("<I", content[12 + size : 16 + size]) == (masked_crc(record),)
        event = Event.FromString(record)
        for value in event.summary.value:
            curves.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
        content = content[16 + size :]
    return curves


def make_history(name: Any, epochs: Any, top: Any = 0.6) -> Any:
    return [
        EpochRow(
            modalities=name,
            epoch=epoch,
            train_loss=1.0 / epoch,
            val_loss=1.1 / epoch,
            val_macro_f1=top - 0.1 / epoch,
            val_accuracy=top,
            val_score=top - 0.1 / epoch,
            learning_rate=1e-3 * 0.5**epoch,
            seconds=2.0,
        )
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_each_modality_is_a_run_with_the_curves_of_its_history(tmp_path: Path, scheme: str) -> None:
    history = make_history("fused", 4) + make_history("audio", 3, top=0.4)
    write_events(history, f"{scheme}{tmp_path}/tensorboard")
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"fused", "audio"}
    columns = {
        "loss/train": "train_loss",
        "loss/val": "val_loss",
        "macro_f1/val": "val_macro_f1",
        "accuracy/val": "val_accuracy",
        "learning_rate": "learning_rate",
    }
    for name in ("fused", "audio"):
        curves = read_events(tmp_path / "tensorboard" / name)
        rows = [row for row in history if row.modalities == name]
        assert curves.keys() == columns.keys()
        for tag, points in curves.items():
            steps, values, times = zip(*points, strict=True)
            assert list(steps) == [row.epoch for row in rows]
            assert values == pytest.approx([getattr(row, columns[tag]) for row in rows])
            assert times[-1] - times[0] == pytest.approx(2.0 * (len(rows) - 1), abs=0.5)


def test_a_second_training_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_events(make_history("fused", 5), str(tmp_path))
    write_events(make_history("fused", 2), str(tmp_path))
    assert [step for step, *_ in read_events(tmp_path / "fused")["loss/val"]] == [1, 2]
