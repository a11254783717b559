"""Energy and clocks of a GPU, asked of NVIDIA's management library where nvidia-ml-py is there."""

import importlib
import time
from collections.abc import Callable
from typing import Any

_SETTLE_S = 0.2
_IDLE_S = 1.0


class Power:
    """One GPU as NVML sees it.

    Attributes:
        reason: why nothing can be said; None when something can.
        energy_reason: why energy is not known, as of a vGPU or a MIG instance; None when it is.
    """

    def __init__(self, bus_id: str) -> None:
        self.reason: str | None = None
        self.energy_reason: str | None = None
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            self.reason = "nvidia-ml-py is not installed (the extra 'gpu')"
            return
        try:
            self._nvml.nvmlInit()
            self._device = self._nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
        except self._nvml.NVMLError as error:
            self.reason = f"NVML: {error}"
            return
        self.joules()

    def joules(self) -> float | None:
        """Energy that the GPU took since its driver was loaded; None where that is not known."""
        if self.reason is not None or self.energy_reason is not None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1e3
        except self._nvml.NVMLError as error:
            self.energy_reason = f"NVML: {error}"
            return None

    def idle_watts(self) -> float | None:
        """Mean power of the GPU with nothing of ours to do, taken over a second."""
        if self.joules() is None:
            return None
        time.sleep(_SETTLE_S)
        before, begun = self.joules(), time.perf_counter()
        time.sleep(_IDLE_S)
        after = self.joules()
        if before is None or after is None:
            return None
        return (after - before) / (time.perf_counter() - begun)

    def state(self) -> dict[str, Any]:
        """Clocks (MHz), temperature (degrees Celsius), and what holds the clocks back.

        What this GPU or driver does not tell is left out; `{"reason": ...}` where nothing is told,
        and `energy_reason` beside the others where energy is not.
        """
        if self.reason is not None:
            return {"reason": self.reason}
        nvml, device = self._nvml, self._device
        asked: dict[str, Callable[[], Any]] = {
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM),
            "max_sm_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_SM),
            "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM),
            "celsius": lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
            "held_back_by": self._held_back_by,
        }
        state: dict[str, Any] = {}
        if self.energy_reason is not None:
            state["energy_reason"] = self.energy_reason
        for name, ask in asked.items():
            try:
                state[name] = ask()
            except nvml.NVMLError:
                continue
        return state

    def _held_back_by(self) -> list[str]:
        """Names of NVML's reasons for lower clocks that hold now, idleness left out."""
        nvml = self._nvml
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._device)
        names = {
            "power cap": "nvmlClocksThrottleReasonSwPowerCap",
            "hardware slowdown": "nvmlClocksThrottleReasonHwSlowdown",
            "software thermal slowdown": "nvmlClocksThrottleReasonSwThermalSlowdown",
            "hardware thermal slowdown": "nvmlClocksThrottleReasonHwThermalSlowdown",
            "power brake": "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
            "application clocks": "nvmlClocksThrottleReasonApplicationsClocksSetting",
        }
        return [shown for shown, name in names.items() if bits & getattr(nvml, name)]
