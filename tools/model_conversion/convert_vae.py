"""The published version's script for `opensora convert`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder
    sys.argv[1:1] = ["convert"]
    runpy.run_module("opensora", run_name="__main__")
