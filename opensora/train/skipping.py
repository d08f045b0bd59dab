"""Steps that are skipped because their loss or gradient is not finite."""

import logging
import math
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


class SkippedSteps:
    """Counts skipped steps and ends a run that has too many of them in a row."""

    def __init__(self, max_in_a_row: int, total: int = 0, in_a_row: int = 0) -> None:
        self.max_in_a_row, self.total, self.in_a_row = max_in_a_row, total, in_a_row

    def state(self) -> dict[str, int]:
        """Arguments for the object of a resumed run."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def check(self, step: int, metrics: Mapping[str, float], samples: Callable[[int], list[str]]) -> bool:
        """True if all metrics of a step are finite. Raises ValueError at the last permitted step in a row.

        samples: names of the samples in the batch of a step, for the message.
        """
        broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if not broken:
            self.in_a_row = 0
            return True
        self.total += 1
        self.in_a_row += 1
        what = f"step {step}: {', '.join(broken)} with the samples {', '.join(samples(step))}"
        if self.in_a_row >= self.max_in_a_row:
            raise ValueError(
                f"{what}; {self.in_a_row} steps in a row were skipped: check these samples, or continue "
                "from the newest checkpoint with a lower learning_rate, or allow more with max_skipped_steps"
            )
        log.warning("%s; the update was skipped", what)
        return False
