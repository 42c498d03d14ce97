from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats

from urgency_ray.config import Config, searched_fields
from urgency_ray.errors import RequestError
from urgency_ray.search.space import SearchSpace, check_space

SIMPLEX = {"mixture": {"type": "simplex", "fields": ["loss.kl_weight", "loss.focal_weight", "loss.cross_entropy_weight"]}}


def make_space(space: Any) -> Any:
    return SearchSpace(Config().replace({"tune.space": space}).tune.space)


def draw(space: Any, num_trials: int, seed: int = 0) -> Any:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space(study.ask()) for _ in range(num_trials)]


def test_the_loss_mixture_is_uniform_over_the_simplex() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = np.array([list(fields.values()) for fields in draw(make_space(SIMPLEX), 1500)])
    np.testing.assert_allclose(points.sum(1), 1)
    # A coordinate of the uniform distribution on the triangle is Beta(1, 2).
    for coordinate in points.T:
        assert stats.kstest(coordinate, stats.beta(1, 2).cdf).pvalue > 0.01


def test_every_kind_of_dimension_stays_in_its_range() -> None:
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


def test_the_config_s_own_values_are_a_point_of_the_space() -> None:
    config = Config().replace({"tune.space": {**SIMPLEX, "model.dropout": {"type": "float", "low": 0.1, "high": 0.6}}})
    space = SearchSpace(config.tune.space)
    study = optuna.create_study()
    study.enqueue_trial(space.locate(config))
    fields = space(study.ask())
    assert fields["loss.kl_weight"] == pytest.approx(0.25)
    assert fields["loss.focal_weight"] == pytest.approx(0.40)
    assert fields["loss.cross_entropy_weight"] == pytest.approx(0.35)
    assert fields["model.dropout"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match=r"^model\.dropout 0\.05 lies outside tune\.space$"):
        space.locate(config.replace({"model.dropout": 0.05}))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space: is empty"),
        ({"model.dropout": {"type": "float", "low": 0.1, "high": 1.5}}, r"tune\.space: .*model\.dropout: .*< 1 but got 1\.5"),
        ({"model.hidden_dim": {"type": "categorical", "choices": [64, 65]}}, "hidden_dim 65 must be a multiple"),
        ({"model.name": {"type": "categorical", "choices": ["concat", "magic"]}}, "must be one of .* but got 'magic'"),
        ({"model.hidden_dim": {"type": "categorical", "choices": [64, 32, 64]}}, "choices: 64 stands there more than once"),
        ({"model.name": {"type": "categorical", "choices": ["hierarchical"]}}, "hierarchical takes calls, the others rows"),
        ({"model.num_layers": {"type": "int", "low": 5, "high": 2}}, "low 5 is above high 2"),
        ({"model.hidden_dim": {"type": "int", "low": 64, "high": 256}}, r"hidden_dim \d+ must be a multiple of num_heads"),
        ({"split.seed": {"type": "int", "low": 0, "high": 9}}, r"split\.seed cannot be searched"),
        ({"train.epochs": {"type": "int", "low": 5, "high": 9}}, r"train\.epochs cannot be searched"),
        ({"sampler.power": {"type": "float", "low": 0.0, "high": 1.0, "log": True}}, "needs low above 0"),
        ({"model.num_layers": {"type": "float", "low": 1.5, "high": 2.5}}, "must be an integer"),
        (
            {**SIMPLEX, "loss.kl_weight": {"type": "float", "low": 0.1, "high": 1.0}},
            r"loss\.kl_weight is searched twice, by mixture and loss\.kl_weight; leave one out",
        ),
        ({"mix": {"type": "simplex", "fields": ["loss.kl_weight", "loss.kl_weight"]}}, r"is searched twice, by mix; leave"),
    ],
)
def test_a_space_that_the_config_refuses_stops_before_any_trial(space: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_space(Config().replace({"tune.space": space}))


CONDITIONAL: dict[str, Any] = {
    "model.urgency_head": {"type": "categorical", "choices": ["softmax", "corn"]},
    "loss.corn_weight": {"type": "float", "low": 0.1, "high": 1.0, "when": {"model.urgency_head": "corn"}},
    "model.num_layers": {"type": "int", "low": 1, "high": 3},
    "model.feedforward_dim": {"type": "categorical", "choices": [64, 128], "when": {"model.num_layers": 2}},
}


def test_a_conditional_field_is_searched_only_where_its_condition_holds() -> None:
    drawn = draw(make_space(CONDITIONAL), 300)
    for fields in drawn:
        assert ("loss.corn_weight" in fields) == (fields["model.urgency_head"] == "corn")
        assert ("model.feedforward_dim" in fields) == (fields["model.num_layers"] == 2)
    assert 0.4 < np.mean(["loss.corn_weight" in fields for fields in drawn]) < 0.6


def test_two_mixtures_may_share_fields_where_their_conditions_exclude_each_other() -> None:
    space = {
        "model.urgency_head": CONDITIONAL["model.urgency_head"],
        "plain": {**SIMPLEX["mixture"], "when": {"model.urgency_head": "softmax"}},
        "with_corn": {
            "type": "simplex",
            "fields": ["loss.kl_weight", "loss.corn_weight"],
            "when": {"model.urgency_head": "corn"},
        },
    }
    config = Config().replace({"tune.space": space})
    check_space(config)
    assert len(set(searched_fields(config.tune.space))) == len(searched_fields(config.tune.space))


def test_a_conditional_field_may_be_written_before_its_parent() -> None:
    turned = dict(reversed(CONDITIONAL.items()))
    assert {frozenset(fields) for fields in draw(make_space(turned), 200)} == {
        frozenset({"model.urgency_head", "model.num_layers"} | extra)
        for extra in (set(), {"loss.corn_weight"}, {"model.feedforward_dim"}, {"loss.corn_weight", "model.feedforward_dim"})
    }


def test_the_recipe_s_point_holds_no_field_whose_condition_fails() -> None:
    config = Config().replace({"tune.space": CONDITIONAL})
    check_space(config)
    point = SearchSpace(config.tune.space).locate(config)
    assert point == {"model.urgency_head": "softmax", "model.num_layers": 3}
    two = config.replace({"model.num_layers": 2, "model.feedforward_dim": 64})
    assert SearchSpace(config.tune.space).locate(two)["model.feedforward_dim"] == 64


@pytest.mark.parametrize(
    ("field", "when", "message"),
    [
        ("loss.corn_weight", {"model.urgency_hed": "corn"}, "is no dimension of the space; did you mean model.urgency_head"),
        ("loss.corn_weight", {"model.urgency_head": "magic"}, "must be one of softmax, corn but got 'magic'"),
        ("model.feedforward_dim", {"model.num_layers": 4}, "must be an integer from 1 to 3 but got 4"),
        ("model.feedforward_dim", {"model.num_layers": True}, "must be an integer from 1 to 3 but got True"),
        ("model.urgency_head", {"loss.corn_weight": 0.5}, "loss.corn_weight must be categorical or int .* but is float"),
        ("model.num_layers", {"model.feedforward_dim": 64}, "when goes round in a circle: .*model.num_layers"),
    ],
)
def test_a_condition_that_makes_no_sense_stops_before_any_trial(field: str, when: dict[str, Any], message: str) -> None:
    space = {**CONDITIONAL, field: {**CONDITIONAL[field], "when": when}}
    with pytest.raises(RequestError, match=message):
        check_space(Config().replace({"tune.space": space}))


def test_conditions_that_never_hold_together_are_refused() -> None:
    both = {"type": "float", "low": 0.0, "high": 0.5, "when": {"model.feedforward_dim": 64, "model.num_layers": 1}}
    with pytest.raises(RequestError, match=r"tune\.space\.sampler\.power: is never searched"):
        check_space(Config().replace({"tune.space": {**CONDITIONAL, "sampler.power": both}}))


def test_a_conditional_value_that_the_config_refuses_under_its_condition_is_found() -> None:
    # A weight without its head is refused by the config; with it, a weight below 0 is.
    space = {**CONDITIONAL, "loss.corn_weight": {**CONDITIONAL["loss.corn_weight"], "low": -0.1}}
    with pytest.raises(RequestError, match=r"loss\.corn_weight: must be a number >= 0 but got -0\.1"):
        check_space(Config().replace({"tune.space": space}))
