"""`make bench [CASES="demo help"]`: run each case in its own process and print a line of JSON for it.

`seconds` is wall time, start-up included, `cpu_seconds` that of all processors, `peak_mib` the largest
resident memory. Figures depend on the machine and its other work: compare only runs of the same machine.
"""

import json
import os
import platform
import sys

from benchmarks.measure import measure
from opensora.engine import ENGINES

OPENSORA = [sys.executable, "-m", "opensora"]
WAYS = (("mindspore", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
CASES = {
    "help": [*OPENSORA, "--help"],
    "demo": [*OPENSORA, "generate", "an elephant on a sky blue background"],
    **{
        f"{name}_{engine}_{precision}": [
            *(sys.executable, "-m", *words),
            *("--engine", engine, "--precision", precision),
        ]
        for engine, precision in WAYS
        for name, words in {
            "forward_xl_4_layers": ["benchmarks.forward"],
            "vae_encode_9x128x128": ["benchmarks.vae", "encode"],
            "vae_decode_3x16x16": ["benchmarks.vae", "decode"],
        }.items()
    },
    **{
        f"{name}_{engine}": [sys.executable, "-m", "benchmarks.train_step", *words, "--engine", engine]
        for engine in ENGINES
        for name, words in {
            "train_step_xl_4_layers": ["transformer"],
            "train_step_xl_4_layers_no_recompute": ["transformer", "--keep", "4"],
            "train_step_vae_9x64x64": ["vae"],
        }.items()
    },
}


def main(names: list[str]) -> int:
    """Run the named cases, or all. Returns 1 when one of them failed, 2 for an unknown name."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"benchmarks: case {unknown[0]!r} is unknown: choose from {', '.join(CASES)}", file=sys.stderr)
        return 2
    failed = False
    for name in names or CASES:
        result = measure(CASES[name])
        failed |= result["exit"] != 0
        print(
            json.dumps({"case": name, **result, "cpus": os.cpu_count(), "machine": platform.machine()}),
            flush=True,
        )
    return int(failed)


sys.exit(main(sys.argv[1:]))
