import numpy as np
from test_metrics import block_of

from urgency_ray.scoring.blocks import ClassificationBlock
from urgency_ray.scoring.suspicions import describe_gap


def test_val_and_test_that_are_not_alike_are_named() -> None:
    def block(macro_f1: float, half: float, num_rows: int = 200) -> ClassificationBlock:
        interval = macro_f1 - half, macro_f1 + half
        return ClassificationBlock.model_construct(num_rows=num_rows, macro_f1=macro_f1, macro_f1_interval=interval)

    # Standard errors 0.01 and 0.02 give one of 0.0224: 1.96 of them are 0.0438, and 0.03 is granted to val.
    se = 1.96 * 0.01
    assert list(describe_gap(block(0.80, se), block(0.73, 2 * se))) == []
    (line,) = describe_gap(block(0.98, se), block(0.75, 2 * se))
    assert line.startswith("val and test differ beyond noise (macro-F1 0.980 and 0.750)")
    assert list(describe_gap(block(0.75, se), block(0.98, 2 * se)))
    assert list(describe_gap(block(1.0, 0.0, num_rows=1), block(0.0, 0.0, num_rows=3))) == [], "too few to say so"


def test_alike_splits_are_hardly_ever_called_unlike() -> None:
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(100):
        blocks = []
        for size in (120, 150):
            truth = rng.integers(0, 3, size)
            right = rng.random(size) < 0.8
            blocks.append(block_of(truth, np.where(right, truth, (truth + 1) % 3), num_resamples=100, seed=seed))
        alarms += len(list(describe_gap(*blocks)))
    assert alarms <= 5
