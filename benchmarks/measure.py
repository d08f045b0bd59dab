"""Time and memory of a command, whole process."""

import os
import subprocess
import tempfile
import time


def measure(command: list[str]) -> dict[str, float | int]:
    """Run a command in an empty folder; its wall time, peak resident memory (Linux counts it in KiB) and exit code."""
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 2), "peak_mib": usage.ru_maxrss // 1024, "exit": process.returncode}
