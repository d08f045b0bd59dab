from dataclasses import dataclass
from math import nan
from typing import Literal

import pytest

from opensora.checks import above, at_least, below, one_of, within


@dataclass
class Options:
    steps: int | None = 1
    rate: float = 0.5
    mode: Literal["fast", "slow"] = "fast"
    level: Literal[1, 2] | None = None


def test_values_at_the_bounds_pass():
    options = Options(steps=1, rate=0.0, level=2)
    at_least(options, 1, "steps")
    above(options, 0, "steps")
    below(options, 2, "steps")
    within(options, 0, 1, "steps", "rate")
    one_of(options, "mode", "level")


def test_an_option_that_was_not_given_passes():
    options = Options(steps=None)
    at_least(options, 1, "steps")
    above(options, 1, "steps")
    below(options, 1, "steps")
    within(options, 0, 1, "steps")
    one_of(options, "level")


@pytest.mark.parametrize(
    ("check", "values", "message"),
    [
        (
            lambda o: at_least(o, 1, "rate", "steps"),
            {"rate": 1, "steps": 0},
            "steps 0 is too small: use 1 or more",
        ),
        (lambda o: at_least(o, 0, "rate"), {"rate": nan}, "rate nan is too small: use 0 or more"),
        (lambda o: above(o, 0, "rate"), {"rate": 0.0}, "rate 0.0 is too small: use more than 0"),
        (lambda o: below(o, 1, "rate"), {"rate": 1.0}, "rate 1.0 is too large: use less than 1"),
        (lambda o: within(o, 0, 1, "rate"), {"rate": 1.5}, "rate 1.5 is out of range: use 0 to 1"),
        (lambda o: within(o, 0, 1, "rate"), {"rate": nan}, "rate nan is out of range: use 0 to 1"),
        (
            lambda o: one_of(o, "mode"),
            {"mode": "medium"},
            "mode 'medium' is unknown: choose one of fast, slow",
        ),
        (lambda o: one_of(o, "level"), {"level": 3}, "level 3 is unknown: choose one of 1, 2"),
    ],
)
def test_other_values_are_refused_with_the_remedy(check, values, message):
    with pytest.raises(ValueError) as error:
        check(Options(**values))
    assert str(error.value) == message
