"""Repeats of one computation in a process: seconds of each, and the peak memory of all."""

import argparse
import json
import resource
import time
from collections.abc import Callable

from opensora.engine import ENGINES


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)


def repeat(repeats: int, action: Callable[[], object], **labels: str) -> None:
    """Time a function and print a line of JSON; the first repeat compiles. labels: fields to add."""
    seconds, processor = [], []
    for _ in range(repeats):
        start, processor_start = time.perf_counter(), time.process_time()
        action()
        seconds.append(round(time.perf_counter() - start, 2))
        processor.append(round(time.process_time() - processor_start, 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    figures = {"seconds_each": seconds, "cpu_seconds_each": processor, "peak_mib": peak}
    print(json.dumps({**labels, **figures}))
