import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats

from urgency_ray.config import Config, ConfigError
from urgency_ray.search_space import SearchSpace, check_space

SIMPLEX = {"mixture": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]}}


def make_space(space):
    return SearchSpace(Config().replace({"tune.space": space}).tune.space)


def draw(space, num_trials, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space(study.ask()) for _ in range(num_trials)]


def test_the_loss_mixture_is_uniform_over_the_simplex():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = np.array([list(fields.values()) for fields in draw(make_space(SIMPLEX), 1500)])
    np.testing.assert_allclose(points.sum(1), 1)
    # A coordinate of the uniform distribution on the triangle is Beta(1, 2).
    for coordinate in points.T:
        assert stats.kstest(coordinate, stats.beta(1, 2).cdf).pvalue > 0.01


def test_every_kind_of_dimension_stays_in_its_range():
    space = make_space(
        {
            "train.learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "model.num_layers": {"type": "int", "low": 1, "high": 3},
            "model.hidden_dim": {"type": "categorical", "choices": [64, 128]},
        }
    )
    drawn = pd.DataFrame(draw(space, 300))
    assert drawn["train.learning_rate"].between(1e-5, 1e-2).all()
    # Half of the trials below the geometric mean of the ends, as on a logarithmic scale.
    assert (drawn["train.learning_rate"] < 10**-3.5).mean() == pytest.approx(0.5, abs=0.1)
    assert set(drawn["model.num_layers"]) == {1, 2, 3}
    assert set(drawn["model.hidden_dim"]) == {64, 128}


def test_the_config_s_own_values_are_a_point_of_the_space():
    config = Config().replace({"tune.space": {**SIMPLEX, "model.dropout": {"type": "float", "low": 0.1, "high": 0.6}}})
    space = SearchSpace(config.tune.space)
    study = optuna.create_study()
    study.enqueue_trial(space.locate(config))
    fields = space(study.ask())
    assert fields["loss.kl_weight"] == pytest.approx(0.25)
    assert fields["loss.focal_weight"] == pytest.approx(0.40)
    assert fields["loss.cross_entropy_weight"] == pytest.approx(0.35)
    assert fields["model.dropout"] == pytest.approx(0.4)
    assert space.locate(config.replace({"model.dropout": 0.05})) is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space: is empty"),
        ({"model.dropout": {"type": "float", "low": 0.1, "high": 1.5}}, r"tune\.space: .*model\.dropout: .*< 1 but got 1\.5"),
        ({"model.hidden_dim": {"type": "categorical", "choices": [64, 65]}}, "hidden_dim 65 must be a multiple"),
        ({"model.name": {"type": "categorical", "choices": ["concat", "magic"]}}, "must be one of .* but got 'magic'"),
        ({"model.name": {"type": "categorical", "choices": ["hierarchical"]}}, "hierarchical takes calls, the others rows"),
        ({"model.num_layers": {"type": "int", "low": 5, "high": 2}}, "low 5 is above high 2"),
        ({"model.hidden_dim": {"type": "int", "low": 64, "high": 256}}, r"hidden_dim \d+ must be a multiple of num_heads"),
        ({"split.seed": {"type": "int", "low": 0, "high": 9}}, r"split\.seed cannot be searched"),
        ({"train.epochs": {"type": "int", "low": 5, "high": 9}}, r"train\.epochs cannot be searched"),
        ({"sampler.power": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "needs low above 0"),
        ({"model.num_layers": {"type": "float", "low": 1.5, "high": 2.5}}, "must be an integer"),
    ],
)
def test_a_space_that_the_config_refuses_stops_before_any_trial(space, message):
    with pytest.raises(ConfigError, match=message):
        check_space(Config().replace({"tune.space": space}))
