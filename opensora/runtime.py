"""Device, precision, memory, logs and version check. Sets up MindSpore before it is imported."""

import ctypes
import os
import platform
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from opensora.interrupts import deferred

# Silences MindSpore's warnings (dozens of lines per run) unless the user sets another level.
os.environ.setdefault("GLOG_v", "3")

MXCSR_OFFSET, FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 28, 0x8000, 0x0040

SUPPORTED_MINDSPORE = ((2, 10), (2, 11))
DEVICES = ("CPU", "Ascend")
PRECISIONS = ("fp32", "fp16", "bf16")
UNKNOWN = 2**62
PACKAGES = ("opensora", "mindspore", "openvino", "numpy", "av", "pillow")
ONEDNN_AVX2 = 0x7
"""AVX2 in oneDNN's numbers of instruction sets."""

_asked: set[str] = set()
"""The device, once blocks were compiled for it."""


def flush_denormals() -> bool:
    """Flush denormals to zero in this thread and those it starts. False if the machine does not support it.

    MindSpore's worker threads do so, but parts of a kernel run in the calling thread: otherwise equal runs
    would differ by which thread computed which part.
    """
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)  # numpy finds these limits once, by computing with denormals
    library = ctypes.CDLL("libm.so.6")
    environment = ctypes.create_string_buffer(32)  # fenv_t: state of the x87 unit, then of the vector unit
    library.fegetenv(environment)
    control = ctypes.c_uint32.from_buffer(environment, MXCSR_OFFSET)
    control.value |= FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    return library.fesetenv(environment) == 0


flush_denormals()


class UnsupportedVersion(RuntimeError):
    """MindSpore is missing or was not tested with this package; the message names the remedy."""


def mindspore() -> Any:
    """Import MindSpore. Raises UnsupportedVersion where it is missing, or if the version was not tested."""
    try:
        with deferred():  # an import that Ctrl-C cuts short aborts, or fails when it is tried again
            import mindspore as ms
    except ModuleNotFoundError as error:
        if error.name != "mindspore":
            raise
        raise UnsupportedVersion(
            "MindSpore is not installed, and this needs it: it has wheels for Python 3.11 and 3.12, "
            f"and this is Python {platform.python_version()}"
        ) from error

    _limit_instructions(Path(ms.__file__).parent)
    installed = tuple(int(part) for part in ms.__version__.split(".")[:2])
    low, high = SUPPORTED_MINDSPORE
    if not low <= installed < high:
        wanted = f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"
        raise UnsupportedVersion(
            f"MindSpore {ms.__version__} is installed, but this package was tested with {wanted}: "
            f"pip install 'mindspore{wanted}'"
        )
    return ms


@lru_cache(maxsize=1)
def _limit_instructions(package: Path) -> None:
    """Keep MindSpore's copy of oneDNN at AVX2, and no other library in this process.

    With AVX-512 it falls back to a reference loop for plain convolutions, 60 times slower. A
    DNNL_MAX_CPU_ISA in the environment wins; it binds every oneDNN in the process, OpenVINO's too.
    """
    if "DNNL_MAX_CPU_ISA" in os.environ or platform.machine() != "x86_64":
        return
    for path in package.glob("lib/libdnnl.so*"):
        ctypes.CDLL(str(path)).dnnl_set_max_cpu_isa(ONEDNN_AVX2)


class LazyMindSpore:
    """The framework, or a module inside it, imported when one of its names is first used.

    For code that most programs import and few run; compiled code needs the framework itself.
    """

    def __init__(self, module: str = "") -> None:
        """module: dotted name inside the framework, such as "ops"."""
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = mindspore()
        for part in filter(None, self._module.split(".")):
            found = getattr(found, part)
        return getattr(found, name)


def launched() -> bool:
    """True if `msrun` started this process as one of several."""
    return "MS_ROLE" in os.environ


def device() -> str:
    """The device of this process, "CPU" or "Ascend". Blocks are written for it, so it stays the same.

    On a CPU, operators run synchronously. By default MindSpore runs them in its own threads while the caller
    waits in a busy loop, which takes a whole core away from them.
    """
    if not _asked and _target() == "CPU":
        mindspore().set_context(pynative_synchronize=True)
    _asked.add(_target())
    return _target()


def _target() -> str:
    return str(mindspore().get_context("device_target"))


def on_cpu() -> bool:
    """True if this process computes on a CPU.

    MindSpore knows. Until it is imported, a machine with an Ascend device counts as computing on that.
    """
    if "mindspore" in sys.modules:
        return _target() == "CPU"
    return not any(Path("/dev").glob("davinci[0-9]*"))


def set_device(name: str) -> None:
    """Choose the device before models are imported. Raises ValueError if it is too late or not available."""
    if name not in DEVICES:
        raise ValueError(f"device {name!r} is unknown: choose one of {', '.join(DEVICES)}")
    # MindSpore refuses any further call, even with the same device, once it has computed.
    if _target() == name:
        return
    if _asked:
        raise ValueError(
            f"device {name!r} comes too late, models are imported for {_asked.pop()}: "
            "call set_device before importing them"
        )
    try:
        mindspore().set_device(name)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"device {name!r} is not available on this machine: use --device CPU, or install MindSpore for it"
        ) from error


def compute_dtype(precision: str) -> Any:
    """MindSpore's dtype for "fp32", "fp16" or "bf16". Raises ValueError if the device does not support it."""
    ms = mindspore()
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    if precision != "fp32" and _target() == "CPU":
        raise ValueError(
            f"precision {precision!r} is not supported on a CPU: use --precision fp32, or --device Ascend"
        )
    return {"fp32": ms.float32, "fp16": ms.float16, "bf16": ms.bfloat16}[precision]


def free_memory(meminfo: Path = Path("/proc/meminfo"), control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Free bytes of the machine, or of the container if that is less; UNKNOWN if the system does not say."""
    free = UNKNOWN
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = control_group / "memory.max", control_group / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def resident_memory(statm: Path = Path("/proc/self/statm")) -> int:
    """Bytes of memory that this process occupies; 0 if the system does not say."""
    if not statm.is_file():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_swap(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Free swap space in bytes; 0 if the system does not say."""
    if not meminfo.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines.get("SwapFree", "0 kB").split()[0]) * 1024


def used_memory(status: Path = Path("/proc/self/statm")) -> int:
    """Bytes of memory that this process has taken; 0 if the system does not say."""
    if not status.is_file():
        return 0
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def engine_versions() -> dict[str, str]:
    """Versions of this package, of Python and of the engines, by name."""
    found = versions()
    return {name: found[name] for name in ("opensora", "python", "mindspore", "openvino")}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that determine a result, by name."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
