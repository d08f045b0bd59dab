"""The device is chosen before anything is written for it."""

import pytest

from opensora import runtime


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
