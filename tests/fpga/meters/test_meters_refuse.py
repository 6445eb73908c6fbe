"""What drivers do when the instrument is another, is silent, or cannot do what is asked."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from dynrt.errors import LinkError, MeterError
from dynrt.fpga.decoders.ppk2 import Calibration
from dynrt.fpga.emulated.bench_instruments import Keithley2000, RigolDm3058, Wt310Instrument
from dynrt.fpga.emulated.faults import LineFaults
from dynrt.fpga.emulated.instruments import InaInstrument, Ppk2Instrument, Supply, steady
from dynrt.fpga.links import ReplayLink
from dynrt.fpga.meters import MeterSettings, meter, open_meter_link
from dynrt.fpga.meters.dialects import AGILENT_34401A, RIGOL_DM3058
from dynrt.fpga.meters.polled import open_powercap
from dynrt.fpga.meters.ppk2 import Ppk2Meter
from dynrt.fpga.meters.scpi import ScpiMeter
from dynrt.fpga.meters.stream import StreamMeter
from dynrt.fpga.meters.wt310 import Wt310Meter
from dynrt.fpga.samples import Flag, Samples

KIT = Calibration(supply_volts=3.3, hardware="9173")


def test_a_stream_that_is_no_meters(tmp_path: Path) -> None:
    from dynrt.fpga.decoders.ina_line import InaLineDecoder

    def stream(*pieces: tuple[float, bytes]) -> StreamMeter:
        return StreamMeter(
            ReplayLink(pieces, name="port"),
            InaLineDecoder(),
            maker="",
            model="sensor",
            checksummed=True,
            has_marker=True,
            patience_s=0.05,
        )

    with pytest.raises(MeterError, match=r"port: no sensor \(silence in 0.05 s\)"):
        stream().identify()
    with pytest.raises(MeterError, match=r"port: no sensor \(7 bytes, none of them a sample"):
        stream((0.0, b"hello\r\n")).identify()


def test_ppk2_says_what_it_lacks() -> None:
    silent = Ppk2Meter(ReplayLink([], name="port"), MeterSettings(source_volts=3.0), patience_s=0.1)
    with pytest.raises(MeterError, match=r"port: no PPK2 \(no calibration in 0.1 s\)"):
        silent.identify()
    with pytest.raises(MeterError, match="state source_volts"):
        meter("ppk2", ReplayLink([])).configure(MeterSettings())
    with pytest.raises(MeterError, match="fixed when the meter is made"):
        silent.configure(MeterSettings(source_volts=3.3))
    assert silent.cross_check is None


def test_ppk2_as_ampere_meter_asks_again_for_a_lost_calibration() -> None:
    settings = MeterSettings(supply_volts=3.3, marker_input=None)
    with Ppk2Instrument(lambda n: n % 9, kit=KIT, words_per_s=5000) as instrument:
        lost: list[bytes] = []
        send = instrument.transmit
        instrument.transmit = lambda data: lost.append(data) if not lost else send(data)  # type: ignore[method-assign]
        driver = Ppk2Meter(open_meter_link("ppk2", instrument.port), settings, patience_s=1.0)
        driver.open()
        who = driver.identify()
        driver.configure(settings)
        driver.start()
        deadline_s, got = time.monotonic() + 5, Samples.empty()
        while not len(got) and time.monotonic() < deadline_s:
            got = driver.read(0.2)
        driver.close()
    assert len(lost) == 1
    assert "not calibrated" in who.model
    assert not who.has_marker
    assert bytes((0x11, 1)) in instrument.commands
    assert (got.marker == -1).all()
    assert len(got)


def test_wt310_is_not_a_wt210_and_reports_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ReplayLink([(0.0, b"YOKOGAWA,WT210,1,F1.04\r\n")], name="port")
    with pytest.raises(MeterError, match=r"YOKOGAWA,WT210.*no WT310"):
        Wt310Meter(other, MeterSettings()).identify()
    monkeypatch.setattr(Wt310Instrument, "known", ())
    with Wt310Instrument() as instrument:
        driver = meter("wt310", open_meter_link("wt310", instrument.port))
        driver.open()
        driver.identify()
        with pytest.raises(MeterError, match="Undefined header"):
            driver.configure(MeterSettings())
        driver.stop()  # never started: nothing to stop
        assert driver.cross_check is None
        driver.close()


def test_wt310_that_falls_silent() -> None:
    settings = MeterSettings(range_amperes=0.5)
    with Wt310Instrument() as instrument:
        link = open_meter_link("wt310", instrument.port)
        driver = Wt310Meter(link, settings, patience_s=0.15)
        driver.open()
        driver.configure(settings)
        driver.start()
        instrument.line.faults = LineFaults(swallow=1.0)
        with pytest.raises(MeterError, match="WT310 has been silent"):
            driver.read(20.0)
        driver.close()


def test_wt310_nan_and_no_digits() -> None:
    with Wt310Instrument(lambda s: Supply(amperes=0.0), faults=LineFaults(nan=1.0)) as instrument:
        driver = meter("wt310", open_meter_link("wt310", instrument.port))
        driver.open()
        driver.configure(MeterSettings())
        driver.start()
        deadline_s, got = time.monotonic() + 5, Samples.empty()
        while not len(got) and time.monotonic() < deadline_s:
            got = driver.read(0.3)
        driver.close()
    assert got.flagged(Flag.NAN).all()


def test_a_range_that_no_bench_meter_has() -> None:
    with pytest.raises(MeterError, match=r"range_volts is 2000 V; its largest range is 1000 V"):
        meter("34401a", ReplayLink([]), MeterSettings(range_volts=2000.0))


def test_settings_cannot_change_behind_the_decoder() -> None:
    driver = meter("34401a", ReplayLink([]), MeterSettings(supply_volts=12.0))
    with pytest.raises(MeterError, match="fixed when the meter is made"):
        driver.configure(MeterSettings(supply_volts=11.0))


def test_a_meter_in_local_mode_is_set_to_remote_and_configured_again() -> None:
    settings = MeterSettings(supply_volts=12.0)
    with Keithley2000() as instrument:
        driver = meter("keithley-2000", open_meter_link("keithley-2000", instrument.port), settings)
        driver.configure(settings)  # without open(): it is still local
        driver.close()
    assert instrument.range_volts == 0.1
    assert not instrument.errors


def test_dm3058_that_did_not_take_its_speed() -> None:
    settings = MeterSettings(supply_volts=12.0, speed="fast", range_volts=0.15)
    with RigolDm3058() as instrument:
        link = open_meter_link("dm3058", instrument.port)
        driver = ScpiMeter(link, RIGOL_DM3058, settings, patience_s=0.3)
        obey = instrument.obey
        deaf = ":RATE:VOLT:DC F"
        instrument.obey = lambda command: None if command == deaf else obey(command)  # type: ignore[method-assign]
        driver.open()
        with pytest.raises(MeterError, match=r":RATE:VOLT:DC\?: answered 'S'"):
            driver.configure(settings)
        driver.stop()
        driver.close()
    assert instrument.range_volts == 0.2


def test_reading_after_stop_gives_what_was_left_and_asks_nothing() -> None:
    link = ReplayLink([], name="port")
    driver = ScpiMeter(link, AGILENT_34401A, MeterSettings(supply_volts=12.0))
    assert len(driver.read(0.0)) == 0
    assert link.written == []


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (zone / name).write_text(text)
    settings = MeterSettings(root=str(tmp_path))
    real = Path.read_text

    def refuse(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        with pytest.raises(LinkError, match=r"energy_uj: no permission \(its owner"):
            open_meter_link("powercap", "", settings)
    (zone / "max_energy_range_uj").write_text("x")
    with pytest.raises(MeterError, match="no range of the counter"):
        open_meter_link("powercap", "", settings)


def test_a_late_poll_is_not_made_good_by_a_burst(tmp_path: Path) -> None:
    zone = tmp_path / "class" / "powercap" / "z"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (zone / name).write_text(text)
    now_ns, slept_s = [0], list[float]()
    link = open_powercap(
        MeterSettings(root=str(tmp_path), rate_hz=100),
        clock_ns=lambda: now_ns[0],
        sleep=slept_s.append,
    )
    assert link.read(0.004) == b""  # opening took the first reading; the next is due in 10 ms
    assert slept_s == [0.004]
    now_ns[0] = 100_000_000  # nine readings late
    assert link.read(0.0).startswith(b"100000000,1,9*")
    assert link.read(0.0) != b""  # the next one is due at once,
    assert link.read(0.0) == b""  # but not the eight that were missed
    with pytest.raises(LinkError, match="takes no commands"):
        link.write(b"x")


def test_the_current_of_a_sensor_over_its_range_is_missing() -> None:
    with InaInstrument(steady, rate_hz=400, faults=LineFaults(overload=0.2, nan=0.2), seed=5) as it:
        driver = meter("ina-line", open_meter_link("ina-line", it.port))
        driver.identify()
        got = driver.read(0.1)
        driver.close()
    over, nan = got.flagged(Flag.OVERLOAD), got.flagged(Flag.NAN)
    assert over.any()
    assert nan.any()
    assert np.isnan(got.amperes[over | nan]).all()
    assert (got.volts == 12.0).all()
