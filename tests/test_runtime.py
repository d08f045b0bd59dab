"""The device is chosen before anything is written for it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from opensora import runtime
from opensora.runtime import UNKNOWN, free_memory


def test_a_device_that_comes_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where models are imported for one device already; without a word for the same one."""
    chosen: list[str] = []
    monkeypatch.setattr(runtime, "_asked", set())
    monkeypatch.setattr(runtime, "_target", lambda: chosen[-1] if chosen else "Ascend")
    monkeypatch.setattr(runtime.mindspore(), "set_device", chosen.append)
    runtime.set_device("CPU")
    assert runtime.device() == "CPU"
    runtime.set_device("CPU")
    with pytest.raises(ValueError, match="device 'Ascend' comes too late, models are imported for CPU"):
        runtime.set_device("Ascend")
    assert chosen == ["CPU"]


@pytest.mark.parametrize(("name", "waits"), [("CPU", True), ("Ascend", False)])
def test_operators_wait_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch, name: str, waits: bool) -> None:
    ms = runtime.mindspore()
    before = ms.get_context("pynative_synchronize")
    monkeypatch.setattr(runtime, "_asked", set())
    monkeypatch.setattr(runtime, "_target", lambda: name)
    try:
        ms.set_context(pynative_synchronize=False)
        runtime.device()
        assert ms.get_context("pynative_synchronize") == waits
    finally:
        ms.set_context(pynative_synchronize=before)


def test_free_memory_is_the_smaller_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:    1000 kB\n")
    assert free_memory(meminfo, tmp_path) == 1000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300000\n")
    assert free_memory(meminfo, tmp_path) == 1000 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    assert free_memory(meminfo, tmp_path) == 200_000
    assert free_memory(tmp_path / "none", tmp_path / "none") == UNKNOWN
    assert 0 < free_memory() < UNKNOWN


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no such instructions")
def test_only_the_frameworks_own_library_is_limited() -> None:
    """A variable of the environment would bind OpenVINO too."""
    script = (
        "import os, ctypes, pathlib; from opensora import runtime;"
        "package = pathlib.Path(runtime.mindspore().__file__);"
        "[path] = package.parent.glob('lib/libdnnl.so*');"
        "print(os.environ.get('DNNL_MAX_CPU_ISA'), ctypes.CDLL(str(path)).dnnl_get_effective_cpu_isa() <= 7)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DNNL_MAX_CPU_ISA"}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["None", "True"]
