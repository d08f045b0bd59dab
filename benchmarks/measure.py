"""Time and memory of a command, whole process."""

import json
import os
import subprocess
import tempfile
import time


def measure(command: list[str]) -> dict[str, float | int]:
    """Run a command in an empty folder, and return its figures.

    They are wall and processor time, peak resident memory (Linux counts it in KiB), the exit code, and the
    content of the last line.
    """
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    own = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    figures = {"seconds": round(seconds, 2), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2)}
    return {**figures, "peak_mib": usage.ru_maxrss // 1024, "exit": process.returncode, **own}
