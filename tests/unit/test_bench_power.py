"""Energy and clocks over a fake of NVML: what is not told is not invented."""

import sys
import time
from types import ModuleType
from typing import Any

import pytest

from trtforge.engine.measuring.power import Power
from trtforge.engine.measuring.scenarios import Load, Measurement, joined


class FakeNvml(ModuleType):
    """A GPU that takes 50 W and is held back by its power cap."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    reasons = {  # noqa: RUF012
        "SwPowerCap": 4,
        "HwSlowdown": 8,
        "SwThermalSlowdown": 32,
        "HwThermalSlowdown": 64,
        "HwPowerBrakeSlowdown": 128,
        "ApplicationsClocksSetting": 2,
    }

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.broken: set[str] = set()
        self.values = {
            "nvmlDeviceGetTotalEnergyConsumption": lambda: time.perf_counter() * 50e3,
            "nvmlDeviceGetClockInfo": lambda: 1500,
            "nvmlDeviceGetMaxClockInfo": lambda: 1980,
            "nvmlDeviceGetTemperature": lambda: 45,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda: 1 | 4 | 64,
        }
        for name, bit in self.reasons.items():
            setattr(self, f"nvmlClocksThrottleReason{name}", bit)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            if name in self.broken:
                raise self.NVMLError("Not Supported")
            return self.values.get(name, lambda: None)()

        return call


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_power_is_energy_over_time(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtforge.engine.measuring.power._IDLE_S", 0.05)
    power = Power("0000:01:00.0")
    assert power.idle_watts() == pytest.approx(50, rel=0.2)
    assert power.state() == {
        "sm_mhz": 1500,
        "max_sm_mhz": 1980,
        "memory_mhz": 1500,
        "celsius": 45,
        "held_back_by": ["power cap", "hardware thermal slowdown"],
    }


def test_what_a_gpu_does_not_tell_is_left_out(nvml: FakeNvml) -> None:
    nvml.broken = {"nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetCurrentClocksThrottleReasons"}
    assert set(Power("0").state()) == {"sm_mhz", "memory_mhz", "celsius"}


def test_without_nvml_the_reason_is_said(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.broken = {"nvmlInit"}
    for reason in ("NVML: Not Supported", "nvidia-ml-py is not installed (the extra 'gpu')"):
        power = Power("0")
        assert power.state() == {"reason": reason}
        assert power.joules() is None
        assert power.idle_watts() is None
        monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_gpu_that_tells_no_energy_still_tells_its_clocks(nvml: FakeNvml) -> None:
    power = Power("0")
    assert power.joules() is not None
    nvml.broken = {"nvmlDeviceGetTotalEnergyConsumption"}  # a permission that is taken away
    for one in (power, Power("0")):
        assert one.joules() is None
        assert one.idle_watts() is None
        assert one.state()["sm_mhz"] == 1500
        assert one.state()["energy_reason"] == "NVML: Not Supported"


def test_energy_of_parts_is_theirs_together() -> None:
    part = Measurement(**{**vars(Measurement.of(Load(), [0.1, 0.2], 0.3)), "joules": 4.0})
    whole = joined([part, part], Load())
    assert whole.joules == 8.0
    assert whole.as_json()["joules_per_sample"] == 2.0
    unknown = joined([part, Measurement.of(Load(), [0.1], 0.1)], Load())
    assert unknown.joules is None
    assert unknown.as_json()["joules_per_sample"] is None
