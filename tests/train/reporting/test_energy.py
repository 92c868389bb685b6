"""Energy of the cards: the driver's counter, power where there is none, nothing where nothing is known."""

from __future__ import annotations

import pytest

from ptbr_slm.train.reporting import meters
from ptbr_slm.train.reporting.meters import EnergyMeter, NoMeter, energy_meter, total_kwh, visible


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Nvml:
    """NVML with two cards; a card without a counter has None in `counters`."""

    class NVMLError(Exception):
        pass

    def __init__(self, counters: list[int | None], watts: float = 70.0) -> None:
        self.counters, self.watts, self.stopped = counters, watts, False

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        value = self.counters[handle]
        if value is None or self.stopped:
            raise self.NVMLError("not supported")
        return value

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if self.stopped:
            raise self.NVMLError("gone")
        return int(1000 * self.watts)


def test_the_counters_of_all_cards_are_summed_from_the_start_of_the_session():
    nvml, clock = Nvml([5_000_000, 9_000_000]), Clock()
    meter = EnergyMeter(nvml, [0, 1], clock)
    nvml.counters = [5_000_000 + 3_600_000, 9_000_000 + 3_600_000]  # mJ: 3.6 kJ each
    clock.now += 60
    assert meter.record()["energy_kwh"] == pytest.approx(0.002)


def test_a_card_without_a_counter_is_measured_by_its_power_over_time():
    nvml, clock = Nvml([None, None], watts=70.0), Clock()
    meter = EnergyMeter(nvml, [0, 1], clock)
    for _ in range(36):
        clock.now += 10
        found = meter.record()
    assert found["energy_kwh"] == pytest.approx(2 * 70 * 360 / 3.6e6)


def test_a_driver_that_stops_answering_ends_the_measurement_not_the_run():
    nvml, clock = Nvml([0, 0]), Clock()
    meter = EnergyMeter(nvml, [0, 1], clock)
    nvml.stopped = True
    clock.now += 5
    assert meter.record() == {} and meter.record() == {}


def test_the_driver_is_asked_at_most_once_a_second():
    nvml, clock = Nvml([0]), Clock()
    meter = EnergyMeter(nvml, [0], clock)
    nvml.counters = [3_600_000]
    clock.now += 0.5
    assert meter.record() == {"energy_kwh": 0.0}
    clock.now += 0.6
    assert meter.record() == {"energy_kwh": 0.001}


def test_a_run_of_several_sessions_is_the_sum_of_their_readings():
    assert total_kwh([0.0, 0.1, 0.3, 0.05, 0.2]) == pytest.approx(0.5)
    assert total_kwh([]) == 0.0


def test_the_cards_are_those_that_cuda_sees():
    assert visible({}, 2) == ["0", "1"]
    assert visible({"CUDA_VISIBLE_DEVICES": "1, GPU-ab12"}, 4) == ["1", "GPU-ab12"]
    assert visible({"CUDA_VISIBLE_DEVICES": ""}, 2) == []


def test_a_cpu_and_a_machine_without_nvml_have_no_meter(monkeypatch):
    assert isinstance(energy_meter("cpu", 1), NoMeter) and energy_meter("cpu", 1).record() == {}
    monkeypatch.setattr(meters.importlib.util, "find_spec", lambda name: None)
    assert isinstance(energy_meter("cuda", 2), NoMeter)
