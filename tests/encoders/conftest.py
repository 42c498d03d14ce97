from typing import Any

import pytest

from urgency_ray.encoders import hub
from urgency_ray.encoders.arithmetic import Arithmetic


@pytest.fixture(autouse=True)
def _steady_arithmetic(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`dtype: auto` is float32 on every machine: the tests here compare digits, and those of arithmetic name theirs."""
    monkeypatch.setattr(hub, "best_arithmetic", lambda device: Arithmetic("float32", "a test"))
