import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from test_members import make_examples

from urgency_ray.config import Config
from urgency_ray.scoring.blocks import AgainstBaseline
from urgency_ray.training.baselines import best_baseline, compare, fit_baselines, format_against

pytestmark = pytest.mark.usefixtures("one_thread")


def test_baselines_are_scikit_learn_s_fitted_on_train_and_val_and_scored_on_test() -> None:
    examples, splits = make_examples(noise=3.0)
    found = fit_baselines(Config(), examples, splits)
    assert list(found) == ["majority", "linear_audio", "linear_text", "linear_fused"]
    both, truth = np.concatenate([splits.train, splits.val]), examples.urgency
    audio = np.hstack([examples.audio, examples.acoustic])
    parts = {"audio": audio, "text": examples.text, "fused": np.hstack([audio, examples.text])}
    for name, inputs in parts.items():
        baseline = found[f"linear_{name}"]
        assert baseline.c is not None
        scaled = StandardScaler().fit(inputs[both]).transform(inputs)
        plain = LogisticRegression(C=baseline.c, class_weight="balanced", max_iter=1000).fit(scaled[both], truth[both])
        called = plain.predict(scaled[splits.test])
        assert baseline.block.macro_f1 == pytest.approx(f1_score(truth[splits.test], called, average="macro"), abs=1e-3)
        assert 0.4 < baseline.cv_macro_f1 < 1.0
    majority = DummyClassifier().fit(audio[both], truth[both]).predict(audio[splits.test])
    assert found["majority"].block.accuracy == pytest.approx(np.mean(majority == truth[splits.test]))
    assert found["majority"].block.num_rows == len(splits.test)
    assert best_baseline(found) == max(found, key=lambda name: found[name].cv_macro_f1) != "majority"


def test_a_model_that_is_a_baseline_is_no_better_than_it_and_one_that_knows_the_truth_is() -> None:
    examples, splits = make_examples(noise=3.0)
    found = fit_baselines(Config(), examples, splits)
    name = best_baseline(found)
    same = compare(found[name].called, found, examples, splits, Config())
    assert same == AgainstBaseline(baseline=name, macro_f1=0.0, interval=(0.0, 0.0), verdict="no_better")
    perfect = compare(examples.urgency, found, examples, splits, Config())
    assert perfect.verdict == "better"
    assert perfect.macro_f1 == pytest.approx(1 - found[name].block.macro_f1)
    wrong = compare((examples.urgency + 1) % 3, found, examples, splits, Config())
    assert wrong.verdict == "worse"
    assert wrong.macro_f1 == pytest.approx(-found[name].block.macro_f1)


def test_the_verdict_is_a_line() -> None:
    against = AgainstBaseline(baseline="linear_fused", macro_f1=-0.0138, interval=(-0.048, 0.02), verdict="no_better")
    assert format_against(against) == (
        "the model is no better beyond noise than the best baseline, linear_fused "
        "(-0.014 macro-F1 on test, 95 % -0.048 to +0.020)"
    )
