"""What each knob decides is stated beside it, and who needs to know derives it from there."""

import pytest

from urgency_ray.config import Config, Role, fields_of, iter_fields
from urgency_ray.config.tree import Section, iter_sections

FIELDS = [dotted for dotted, _ in iter_fields()]


@pytest.mark.parametrize("dotted", FIELDS)
def test_each_field_states_its_role(dotted: str) -> None:
    name, field = dotted.split(".")
    assert isinstance(dict(iter_sections(Config))[name].role_of(field), Role)


def test_each_field_has_one_role_and_none_is_left_out() -> None:
    by_role = [dotted for role in Role for dotted in fields_of(role)]
    assert sorted(by_role) == sorted(FIELDS)


def test_a_field_without_a_role_is_noticed() -> None:
    class Careless(Section):
        knob: int = 1

    with pytest.raises(AssertionError, match=r"Careless\.knob states no role"):
        Careless.role_of("knob")


@pytest.mark.parametrize(
    ("dotted", "role"),
    [
        ("data.root", Role.PLACE),  # the same calls may lie elsewhere tomorrow
        ("data.unit", Role.EMBEDDING),
        ("data.channel", Role.EMBEDDING),
        ("audio_encoder.window_sec", Role.EMBEDDING),
        ("audio_encoder.batch_size", Role.SPEED),
        ("loss.kl_weight", Role.RECIPE),
        ("model.text_encoder", Role.SETUP),  # trials share one set of tokens
        ("train.seed", Role.SETUP),
        ("train.use_gpu", Role.SPEED),
        ("train.bootstrap_samples", Role.REPORT),
        ("tune.num_trials", Role.EXTENT),  # a search is extended by it
        ("tune.space", Role.SEARCH),
    ],
)
def test_the_roles_are_what_the_contracts_say(dotted: str, role: Role) -> None:
    assert dotted in fields_of(role)
