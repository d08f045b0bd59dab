"""The table of docs/results/memory.md: processor time and peak memory of decoding, each in its own process.

    python -m benchmarks.vae_memory [--size 128] [--frames 17 33 65 129] [--hidden_size 128]
        [--memory chunked exact tiled]

At full width a decode of 65x128x128 is 23 TFLOP, and the whole video at once takes 16 GiB.
"""

import argparse
import sys

from benchmarks.measure import measure

parser = argparse.ArgumentParser()
parser.add_argument("--frames", type=int, nargs="+", default=[17, 33, 65, 129])
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--hidden_size", type=int, default=128)
parser.add_argument("--memory", nargs="+", default=["chunked", "exact", "tiled"])
parser.add_argument("--half", choices=("encode", "decode"), default="decode")
options = parser.parse_args()

print(f"| frames | {' | '.join(options.memory)} |\n|---|{'---|' * len(options.memory)}")
for frames in options.frames:
    cells = []
    for way in options.memory:
        sizes = [
            "--frames",
            str(frames),
            "--size",
            str(options.size),
            "--hidden_size",
            str(options.hidden_size),
        ]
        result = measure([sys.executable, "-m", "benchmarks.vae", options.half, *sizes, "--memory", way])
        cells.append(
            f"{result['cpu_seconds']:.0f} s, {result['peak_mib']} MiB"
            if not result["exit"]
            else "does not run"
        )
    print(f"| {frames} | {' | '.join(cells)} |", flush=True)
