"""Read mutated files with every reader of the project: `make fuzz`, or `python -m tests.fuzz --help`.

A fault is a traceback, an error that does not name the file, a crash, more than 60 s or more than 2 GiB. Each
fault is printed with the command that repeats it. The exit code is 1 if there was one.
"""

import argparse
import itertools
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from opensora.console import shortened
from tests.fuzz.cases import make_case, make_seeds, run_case
from tests.fuzz.pool import run_cases
from tests.fuzz.readers import READERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Read mutated files.")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="seed of the cases; default: the time"
    )
    parser.add_argument("--only", nargs="*", default=sorted(READERS), choices=sorted(READERS), help="readers")
    parser.add_argument("--case", type=int, help="run one case here, and save its file")
    options = parser.parse_args()
    readers = sorted(options.only)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        os.environ["TMPDIR"] = tempfile.tempdir = place
        seeds = Path(place) / "seeds"
        make_seeds(seeds, {name: READERS[name] for name in readers})
        if options.case is not None:
            return _repeat(seeds, readers, options.seed, options.case)
        return _run(seeds, readers, options.seed, options.seconds)


def _run(seeds: Path, readers: list[str], seed: int, seconds: float) -> int:
    print(f"seed {seed}, {seconds:g} s, {len(readers)} readers", flush=True)
    end, counts, faults = time.monotonic() + seconds, Counter[str](), 0
    seen: set[str] = set()

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            if time.monotonic() > end:
                return
            yield number

    for result in run_cases(seeds, readers, seed, numbers(), processes=os.cpu_count() or 1):
        counts[result.reader] += 1
        if result.fault:
            faults += 1
            kind = re.sub(r"\d+|\S{60,}", "", result.fault)[-120:]
            if kind not in seen:
                seen.add(kind)
                only = "" if len(readers) == len(READERS) else f" --only {' '.join(readers)}"
                print(f"{result.reader} {result.file}: {shortened(result.fault, 1000)}", flush=True)
                print(
                    f"  repeat: python -m tests.fuzz --seed {seed} --case {result.number}{only}", flush=True
                )
    print(f"{counts.total()} cases, {faults} faults of {len(seen)} kinds")
    return 1 if faults else 0


def _repeat(seeds: Path, readers: list[str], seed: int, number: int) -> int:
    chosen = {name: READERS[name] for name in readers}
    case = make_case(seeds, chosen, seed, number)
    saved = Path.cwd() / f"fuzz-{seed}-{number}-{Path(case.file).name}"
    saved.write_bytes(case.content)
    fault = run_case(seeds, chosen, case)
    print(f"{case.reader} {case.file}, saved as {saved}: {fault or 'no fault'}")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
