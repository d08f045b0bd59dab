from fractions import Fraction

import numpy as np
import pytest

from opensora.media.timeline import Timeline, from_times, still

MS, CS = Fraction(1, 1000), Fraction(1, 100)


def rate_and_frames(
    milliseconds: list[float], end: float, tick: Fraction = MS, declared=()
) -> tuple[float, int]:
    timeline = from_times(np.array(milliseconds) / 1000, end / 1000, tick, list(declared))
    return float(timeline.rate), timeline.frames


def test_times_in_milliseconds_are_a_steady_rate() -> None:
    for rate in (24, 25, 29.97, 30, 48, 50, 60, 15, 7):
        times = [round(1000 * number / rate) for number in range(200)]
        found, frames = rate_and_frames(times, times[-1] + 1000 / rate)
        assert found == pytest.approx(rate, rel=2e-4) and frames == 200


def test_a_declared_rate_is_taken_if_it_fits() -> None:
    film = Fraction(24000, 1001)
    times = [round(1000 * number / film) for number in range(20)]
    assert rate_and_frames(times, times[-1] + 42, declared=[film])[0] == pytest.approx(float(film))
    # Every time in milliseconds fits 1000 frames per second, of which one in 33 would be used.
    times = [round(1000 * number / 30) for number in range(60)]
    assert rate_and_frames(times, times[-1] + 1, declared=[Fraction(1000)]) == (30, 60)


def test_jitter_does_not_lose_or_double_frames() -> None:
    jitter = np.random.default_rng(0).integers(-7, 8, 90)
    times = (np.arange(90) * 1000 / 30 + jitter - jitter[0]).round().tolist()
    timeline = from_times(np.array(times) / 1000, (times[-1] + 33) / 1000, MS, [Fraction(1000)])
    assert float(timeline.rate) == pytest.approx(30, rel=0.01)
    assert [timeline.slot(time / 1000) for time in times] == list(range(90))


@pytest.mark.parametrize(
    ("delays", "rate", "slots"),
    [
        ([40, 40, 200, 40], 25, [0, 1, 2, 7, 8]),
        ([80, 600], 25, [0, 2, 17]),
        ([120, 200], 25, [0, 3, 8]),
        ([30, 40, 30, 30, 40, 30, 30, 40], 30, list(range(9))),
        ([1000, 1000], 1, [0, 1, 2]),
        ([500, 20, 20], 50, [0, 25, 26, 27]),
    ],
)
def test_held_frames_are_held_for_whole_slots(delays, rate, slots) -> None:
    starts = np.cumsum([0, *delays]).tolist()
    timeline = from_times(np.array(starts[:-1]) / 1000, starts[-1] / 1000, CS, [])
    assert float(timeline.rate) == pytest.approx(rate, rel=0.03)
    assert [timeline.slot(start / 1000) for start in starts] == slots and timeline.frames == slots[-1]


def test_a_variable_rate_shows_frames_at_their_times() -> None:
    gaps = np.random.default_rng(1).integers(20, 90, 100)
    times = np.concatenate([[0], np.cumsum(gaps)])[:-1] / 1000
    timeline = from_times(times, gaps.sum() / 1000, MS, [])
    assert timeline.frames == pytest.approx(gaps.sum() / 1000 * float(timeline.rate), abs=1)
    for time in times:
        assert 0 <= timeline.slot(time) / timeline.rate - time + 0.25 / timeline.rate < 1 / timeline.rate


def test_other_rates_are_the_frames_shown_then() -> None:
    timeline = Timeline(12, Fraction(30))
    assert list(timeline.slots(0, 1, 10)) == [0, 3, 6, 9]
    assert list(timeline.slots(1, 1, 15)) == [2, 4, 6, 8, 10]
    assert list(timeline.slots(0, 1, 60)) == [number // 2 for number in range(24)]
    assert list(timeline.slots(0, 2, 24)) == [0, 2, 5, 7, 10]
    assert list(timeline.slots(0, 1, 29.97)) == list(range(12)) == list(timeline.slots(0, 1, None))
    assert [timeline.count(fps) for fps in (None, 10, 15, 60, 24)] == [12, 4, 6, 24, 10]
    assert timeline.between(3, 9, 10) == range(1, 3) and timeline.between(2, None, 15) == range(1, 6)
    assert all(3 <= slot < 9 for slot in list(timeline.slots(0, 1, 60))[6:18])
    assert list(still().slots(0, 1, 60)) == [0]
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="is not a frame rate"):
            timeline.count(fps)


def test_damaged_times_are_refused() -> None:
    with pytest.raises(ValueError, match="a frame is shown for 2147484 s"):
        from_times(np.array([0, 0.04, 2147483.648]), 2147483.7, MS, [])
