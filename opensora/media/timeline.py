"""The timeline of a file: frames at a constant rate, resampled from presentation times.

Every reader of videos and animations uses it, so that probing, reading and cutting count the same frames.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

import numpy as np

DEFAULT_FPS = 24
LATE = 0.25  # a frame that comes at most this part of an interval late is still shown in its slot
MOST_JITTER = 0.9  # of an interval, between the earliest and the latest frame of a steady rate
MOST_IDLE = 8  # slots that the shortest frame may take
MAX_HOLD = 600.0  # seconds; a longer pause means damaged times
SAME_RATE = 5e-4  # relative; 24 and 23.976 are further apart
NTSC_RATES = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))
COMMON_RATES = (
    *(Fraction(rate) for rate in (*range(1, 61), 72, 75, 90, 100, 120, 144, 240)),
    Fraction(25, 2),
    *NTSC_RATES,
)
FIRST_CHECK = 64  # times that a rate must fit before all are looked at

Frame = TypeVar("Frame")


class Timeline(NamedTuple):
    """`frames` slots of 1/rate seconds. Slot 0 begins at `origin`, a presentation time in seconds.

    `last` is the slot of the last stored frame, `is_still` marks a single picture without a duration.
    """

    frames: int
    rate: Fraction
    origin: Fraction = Fraction(0)
    last: int = 0
    is_still: bool = False

    def slot(self, time: Fraction | float) -> int:
        """The first slot that shows a frame presented at `time`."""
        return math.ceil(float((time - self.origin) * self.rate) - LATE)

    def count(self, fps: float | None) -> int:
        """Frames at another rate: the times 0, 1/fps, ... inside the timeline."""
        step = self._step(fps)
        return math.ceil(self.frames / step)

    def slots(self, start: int, sample_rate: int, fps: float | None) -> Iterator[int]:
        """The slots shown at the times start/fps, (start + sample_rate)/fps, ... to the end."""
        step = self._step(fps)
        for number in range(start, self.count(fps), sample_rate):
            yield math.floor(number * step)

    def between(self, start: int, end: int | None, fps: float | None) -> range:
        """The frames at another rate that are shown in the slots from `start` up to, not including, `end`."""
        step = self._step(fps)
        first, last = max(start, 0), self.frames if end is None else min(end, self.frames)
        return range(math.ceil(first / step), math.ceil(last / step))

    def _step(self, fps: float | None) -> Fraction:
        """Slots between two frames at this rate."""
        if fps is None or self.is_still:
            return Fraction(1)
        step = self.rate / as_rate(fps)
        return Fraction(1) if abs(step - 1) < SAME_RATE else step


def as_rate(fps: float) -> Fraction:
    """Raises ValueError unless fps is a positive number."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps {fps} is not a frame rate: use a number above 0, such as 24")
    return Fraction(fps).limit_denominator(1001) or Fraction(fps)


def still() -> Timeline:
    """The timeline of a single picture."""
    return Timeline(1, Fraction(DEFAULT_FPS), is_still=True)


def from_times(
    times: np.ndarray,
    end: float,
    tick: Fraction,
    declared: Sequence[Fraction],
    origin: Fraction = Fraction(0),
) -> Timeline:
    """The timeline of frames presented at `times`, in seconds from `origin`; the last frame ends at `end`.

    tick: the resolution of the times. declared: rates that the file states. Raises ValueError for times that
    no intact file has.
    """
    times = np.unique(times)
    if end <= times[-1]:  # the last frame has no duration: as long as the one before
        end = float(times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1 / DEFAULT_FPS))
    hold = float(np.diff(times, append=end).max())
    if hold > MAX_HOLD:
        raise ValueError(f"a frame is shown for {hold:.0f} s, its times are damaged: convert the file")
    rate, shift = _fitting_rate(times, end, tick, declared), 0.0
    if rate is None:
        rate, shift = _typical_rate(times, declared)
    timeline = Timeline(1, rate, origin + Fraction(shift))
    last = timeline.slot(float(times[-1]) + float(origin))
    return timeline._replace(frames=max(last + 1, round(end * float(rate))), last=last)


def _fitting_rate(
    times: np.ndarray, end: float, tick: Fraction, declared: Sequence[Fraction]
) -> Fraction | None:
    """The rate at which every frame has a slot of its own, close to its time, if there is one."""
    points = times if len(times) > 2 else np.append(times, end)
    gaps = np.diff(points)
    grid = 1 / (tick * (math.gcd(*np.rint(gaps / float(tick)).astype(int).tolist()) or 1))
    costs: dict[Fraction, float] = {}
    for extra, rates in ((0.0, declared), (0.02, COMMON_RATES), (0.05, (_fraction(1 / gaps.mean()), grid))):
        for rate in rates:
            cost = _cost(points[:FIRST_CHECK], rate, tick)
            if rate not in costs and cost < math.inf:
                costs[rate] = extra + _cost(points, rate, tick)
    best = min(costs, key=lambda rate: (costs[rate], rate), default=None)
    return best if best is not None and costs[best] < math.inf else None


def _typical_rate(times: np.ndarray, declared: Sequence[Fraction]) -> tuple[Fraction, float]:
    """A rate for times that fit none, and the seconds by which its slots begin after the first frame.

    Times that only jitter keep a slot for each frame; a rate that varies is resampled at that of most frames.
    """
    mean, order = _fraction(1 / np.diff(times).mean()), np.arange(len(times))
    for rates in (declared, COMMON_RATES, (mean,)):
        for rate in rates:
            delays = times * float(rate) - order
            if np.ptp(delays) < MOST_JITTER:
                return rate, max(0.0, float(delays.max()) - LATE) / float(rate)
    median = 1 / float(np.median(np.diff(times)))
    return min(COMMON_RATES, key=lambda rate: abs(rate / median - 1)) if median > 1 else _fraction(
        median
    ), 0.0


def _cost(points: np.ndarray, rate: Fraction, tick: Fraction) -> float:
    """The error of a rate: infinite if frames share a slot or are further than LATE from theirs."""
    places = points * float(rate)
    slots = np.rint(places)
    steps = np.diff(slots)
    misfit = float(np.abs(places - slots).max())
    if misfit > LATE or (steps < 1).any():
        return math.inf
    # Times of a steady rate may be rounded to ticks; where frames are held, it is for whole slots. A rate of
    # which few slots get a new frame fits anything.
    gaps = np.diff(places)
    if gaps.min() > MOST_IDLE:
        return math.inf
    is_steady = np.abs(gaps - 1).max() <= 1.01 * tick * rate
    return misfit * (1 if is_steady else 3) + max(0.0, float(gaps.min()) - 1) / 8


def _fraction(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001) or Fraction(1, 1001)


def select(
    shown: Iterable[tuple[int, Frame]], slots: Iterator[int], convert: Callable[[Frame], np.ndarray]
) -> Iterator[np.ndarray]:
    """Convert the frame that each of `slots`, in ascending order, shows.

    shown: frames in order, each with the slot at which the next one follows. A held frame is converted once.
    """
    wanted = next(slots, None)
    for end, frame in shown:
        pixels = None
        while wanted is not None and wanted < end:
            pixels = convert(frame) if pixels is None else pixels
            yield pixels
            wanted = next(slots, None)
        if wanted is None:
            return
