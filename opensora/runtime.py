"""Device, precision, logs and version check: the one place that prepares MindSpore before it is imported."""

import ctypes
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

# Logs of the framework's own warnings (dozens of lines per run) are silenced unless the user asks for them.
os.environ.setdefault("GLOG_v", "3")
# With AVX-512 the bundled oneDNN has no fast kernel for plain convolutions and takes its reference loop, 60 times slower.
os.environ.setdefault("DNNL_MAX_CPU_ISA", "AVX2")

MXCSR_OFFSET, FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 28, 0x8000, 0x0040

SUPPORTED_MINDSPORE = ((2, 10), (2, 11))
DEVICES = ("CPU", "Ascend")
PRECISIONS = ("fp32", "fp16", "bf16")
UNKNOWN = 2**62
PACKAGES = ("opensora", "mindspore", "numpy", "av", "pillow")

_asked: set[str] = set()
"""The device, once something was written for it."""


def flush_denormals() -> bool:
    """Take numbers below the smallest normal one for zero, in this thread and in those it starts; whether this machine can.

    The framework's worker threads do so, but a kernel's parts also run in the thread that asks for it: without this, two equal
    runs differ there, by which thread took which part.
    """
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)  # numpy finds these limits once, by computing with denormals
    library = ctypes.CDLL("libm.so.6")
    environment = ctypes.create_string_buffer(
        32
    )  # fenv_t: the old floating-point unit's state, then the vector unit's
    library.fegetenv(environment)
    control = ctypes.c_uint32.from_buffer(environment, MXCSR_OFFSET)
    control.value |= FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    return library.fesetenv(environment) == 0


flush_denormals()


class UnsupportedVersion(RuntimeError):
    """The framework that is installed was never tried with this package; the message names the remedy."""


def mindspore() -> Any:
    """The imported framework, after its version was checked. Raises UnsupportedVersion for one that was never tried."""
    import mindspore as ms

    installed = tuple(int(part) for part in ms.__version__.split(".")[:2])
    low, high = SUPPORTED_MINDSPORE
    if not low <= installed < high:
        wanted = f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"
        raise UnsupportedVersion(
            f"MindSpore {ms.__version__} is installed, but this package was tested with {wanted}: pip install 'mindspore{wanted}'"
        )
    return ms


def launched() -> bool:
    """Whether `msrun` started this process as one of several."""
    return "MS_ROLE" in os.environ


def device() -> str:
    """The device that this process computes on, "CPU" or "Ascend". It stays: blocks are written for it when they are imported.

    On a CPU every call of an operator returns when the operator is finished. By default the framework works operators off in threads of its
    own while the caller waits in a busy loop, which takes a whole core away from them.
    """
    if not _asked and _target() == "CPU":
        mindspore().set_context(pynative_synchronize=True)
    _asked.add(_target())
    return _target()


def _target() -> str:
    return str(mindspore().get_context("device_target"))


def set_device(name: str) -> None:
    """Choose the device, before models are imported. Raises ValueError for one that cannot be opened here, and when it is too late."""
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is unknown: choose one of {', '.join(DEVICES)}")
    # The framework refuses to be told twice, even the same, once it has computed.
    if _target() == name:
        return
    if _asked:
        raise ValueError(
            f"device {name!r} comes too late, models are imported for {_asked.pop()}: call set_device before importing them"
        )
    try:
        mindspore().set_device(name)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"device {name!r} cannot be used on this machine: pass --device CPU, or install the framework for it"
        ) from error


def compute_dtype(precision: str) -> Any:
    """The framework's dtype of "fp32", "fp16" or "bf16"; a CPU computes in float32 only. Raises ValueError otherwise."""
    ms = mindspore()
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    if precision != "fp32" and _target() == "CPU":
        raise ValueError(
            f"precision {precision!r} has no kernels on a CPU: pass --precision fp32, or use an Ascend device"
        )
    return {"fp32": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}[precision]


def free_memory(meminfo: Path = Path("/proc/meminfo"), control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be used, by the machine and by a container's limit; a very large number where neither is told."""
    free = UNKNOWN
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = control_group / "memory.max", control_group / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def free_swap(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of swap space that are free; 0 where the system does not say."""
    if not meminfo.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines.get("SwapFree", "0 kB").split()[0]) * 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine a result, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
