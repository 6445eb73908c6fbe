"""Every bench meter's driver against its instrument on a pseudo-terminal, from open to close."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dynrt.errors import LinkError, MeterError
from dynrt.fpga.emulated.bench_instruments import (
    Dmm34401a,
    Keithley2000,
    Wt310Instrument,
)
from dynrt.fpga.emulated.faults import LineFaults
from dynrt.fpga.emulated.instruments import (
    InaInstrument,
    Ppk2Instrument,
    PtyInstrument,
    Supply,
)
from dynrt.fpga.links import TapLink
from dynrt.fpga.meters import MeterSettings, decoder_for, meter, open_meter_link
from dynrt.fpga.samples import COLUMNS, Flag, Samples
from tests.fpga.meters.driving import BENCH, KIT, SETTINGS, collect, open_nothing, ready


@pytest.mark.parametrize("name", BENCH)
def test_a_bench_meter_reads_the_current_through_the_shunt(name: str) -> None:
    with BENCH[name]() as instrument:
        driver = ready(name, instrument)
        got = collect(driver, 12)
        driver.stop()
        driver.close()
    assert len(got) >= 12
    assert np.allclose(got.amperes, 0.2133, rtol=1e-6)
    assert np.allclose(got.watts, 12.0 * 0.2133, rtol=1e-6)
    assert np.isnan(got.meter_s).all()  # it has no clock
    assert (np.diff(got.host_s) > 0).all()
    assert got.flagged(Flag.UNCHECKED).all()
    assert got.flagged(Flag.ASSUMED_VOLTS).all()
    assert not instrument.errors  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "maker"), [("34401a", "HEWLETT"), ("keithley-2000", "KEITHLEY")])
def test_identity_says_emulated_and_unchecked(name: str, maker: str) -> None:
    with BENCH[name]() as instrument:
        driver = meter(name, open_meter_link(name, instrument.port, SETTINGS), SETTINGS)
        driver.open()
        who = driver.identify()
        driver.close()
    assert who.source == "emulated"
    assert who.maker.startswith(maker)
    assert not who.checksummed
    assert not who.has_marker


@pytest.mark.parametrize("name", ["34401a", "wt310"])
def test_what_was_journalled_replays_to_the_same_samples(name: str) -> None:
    settings = MeterSettings(supply_volts=12.0, speed="fast", range_amperes=0.5)
    faults = LineFaults(drop=0.2, ends=0.3, boot_garbage=True)
    instruments: dict[str, Callable[..., PtyInstrument]] = {**BENCH, "wt310": Wt310Instrument}
    with instruments[name](faults=LineFaults(boot_garbage=True), seed=6) as instrument:
        heard: list[tuple[float, bytes]] = []
        link = open_meter_link(name, instrument.port, settings)
        tap = TapLink(link, lambda at_s, data: heard.append((at_s, data)))
        driver = meter(name, tap, settings)
        driver.open()
        driver.identify()
        driver.configure(settings)
        driver.start()
        instrument.line.faults = faults
        live = [collect(driver, 8)]
        instrument.line.faults = LineFaults()
        driver.stop()
        live.append(driver.read(0.0))  # the reading that was under way
        driver.close()
    decoder = decoder_for(name, settings)
    again = Samples.join([decoder.feed(data, at_s) for at_s, data in heard])
    for column in COLUMNS:
        expected = getattr(Samples.join(live), column)
        assert np.array_equal(getattr(again, column), expected, equal_nan=True)
    assert len(again) > 8


def test_another_instrument_at_the_port_is_named() -> None:
    with Keithley2000() as instrument:
        driver = meter("34401a", open_meter_link("34401a", instrument.port, SETTINGS), SETTINGS)
        driver.open()
        with pytest.raises(MeterError, match=r"KEITHLEY.*no 34401A"):
            driver.identify()
        driver.close()


def test_a_silent_port_is_no_meter() -> None:
    with InaInstrument(rate_hz=0.001) as instrument:
        link = open_meter_link("34401a", instrument.port, SETTINGS)
        from dynrt.fpga.meters.dialects import AGILENT_34401A
        from dynrt.fpga.meters.scpi import ScpiMeter

        driver = ScpiMeter(link, AGILENT_34401A, SETTINGS, patience_s=0.2)
        driver.open()
        with pytest.raises(MeterError, match=r"\*IDN\?: no answer"):
            driver.identify()
        driver.close()


def test_the_meters_own_sums_agree_and_notice_a_lost_reading() -> None:
    for faults, agrees in ((LineFaults(), True), (LineFaults(repeat=0.5), False)):
        with Dmm34401a(faults=faults, seed=3) as instrument:
            driver = ready("34401a", instrument)
            collect(driver, 12)
            instrument.line.faults = LineFaults()
            driver.stop()
            driver.close()
            assert driver.cross_check is not None
            assert driver.cross_check.agrees == agrees, driver.cross_check.text


def test_local_mode_is_noticed_flagged_and_left() -> None:
    with Dmm34401a(faults=LineFaults(local_at=5)) as instrument:
        settings = SETTINGS
        link = open_meter_link("34401a", instrument.port, settings)
        from dynrt.fpga.meters.dialects import AGILENT_34401A
        from dynrt.fpga.meters.scpi import ScpiMeter

        driver = ScpiMeter(link, AGILENT_34401A, settings, patience_s=0.3)
        driver.open()
        driver.configure(settings)
        driver.start()
        got = collect(driver, 10)
        driver.close()
    local = np.flatnonzero(got.flagged(Flag.LOCAL_MODE))
    assert list(local) == [4]
    assert got.flagged(Flag.GAP_BEFORE)[4]


def test_overload_and_nan_are_missing_and_flagged() -> None:
    with Dmm34401a(faults=LineFaults(overload=0.3, nan=0.3), seed=1) as instrument:
        driver = ready("34401a", instrument)
        got = collect(driver, 25)
        driver.close()
    over, nan = got.flagged(Flag.OVERLOAD), got.flagged(Flag.NAN)
    assert over.any()
    assert nan.any()
    assert np.isnan(got.watts[over | nan]).all()
    assert np.isfinite(got.watts[~(over | nan)]).all()


def test_a_current_beyond_the_range_is_an_overload() -> None:
    with Dmm34401a(lambda s: Supply(amperes=12.5)) as instrument:  # 0.125 V on the 0.1 V range
        driver = ready("34401a", instrument)
        got = collect(driver, 3)
        driver.close()
    assert got.flagged(Flag.OVERLOAD).all()


@pytest.mark.parametrize("name", BENCH)
def test_damaged_lines_and_boot_garbage_are_survived(name: str) -> None:
    faults = LineFaults(drop=0.1, double=0.1, ends=0.5, boot_garbage=True)
    with BENCH[name](faults=LineFaults(boot_garbage=True, ends=0.5), seed=4) as instrument:
        driver = ready(name, instrument)
        instrument.line.faults = faults
        got = collect(driver, 25, within_s=15)
        driver.close()
    assert len(got) >= 25
    assert driver.counts.damaged > 0
    assert np.allclose(got.amperes, 0.2133, rtol=1e-6)  # none of these faults passes the grammar


def test_supply_volts_must_be_stated() -> None:
    with Dmm34401a() as instrument:
        settings = MeterSettings()
        driver = meter("34401a", open_meter_link("34401a", instrument.port), settings)
        driver.open()
        with pytest.raises(MeterError, match="supply_volts"):
            driver.configure(settings)
        driver.close()


def test_a_command_that_the_meter_does_not_know_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dmm34401a, "known", ())
    with Dmm34401a() as instrument:
        driver = meter("34401a", open_meter_link("34401a", instrument.port, SETTINGS), SETTINGS)
        driver.open()
        with pytest.raises(MeterError, match="Undefined header"):
            driver.configure(SETTINGS)
        driver.close()


def test_wt310_measures_and_integrates() -> None:
    settings = MeterSettings(range_amperes=0.5)
    with Wt310Instrument() as instrument:
        driver = ready("wt310", instrument, settings)
        got = collect(driver, 12)
        driver.stop()
        driver.close()
    assert np.allclose(got.watts, 2.5596, rtol=1e-3)
    assert np.allclose(got.volts, 12.0)
    assert not got.flagged(Flag.ODD).any()
    assert driver.cross_check is not None
    assert driver.cross_check.agrees, driver.cross_check.text
    assert not instrument.errors
    assert not instrument.remote  # given back to its front panel


def test_wt310_sums_notice_readings_that_stayed_out() -> None:
    settings = MeterSettings(range_amperes=0.5)
    with Wt310Instrument(faults=LineFaults()) as instrument:
        driver = ready("wt310", instrument, settings)
        instrument.line.faults = LineFaults(garble=0.6)
        collect(driver, 8)
        instrument.line.faults = LineFaults()
        collect(driver, 2)
        driver.stop()
        driver.close()
    assert driver.cross_check is not None
    assert not driver.cross_check.agrees, driver.cross_check.text


def test_wt310_over_range() -> None:
    with Wt310Instrument(lambda s: Supply(amperes=0.7)) as instrument:
        driver = ready("wt310", instrument, MeterSettings(range_amperes=0.5))
        got = collect(driver, 3)
        driver.close()
    assert got.flagged(Flag.OVERLOAD).all()
    assert np.isnan(got.watts).all()
    with pytest.raises(MeterError, match="largest range is 20 A"):
        meter("wt310", open_nothing()).configure(MeterSettings(range_amperes=21))


@pytest.mark.parametrize("name", ["ina-line", "34401a", "wt310", "ppk2"])
def test_unplugged_in_mid_session(name: str) -> None:
    faults = LineFaults(unplug_at=200)
    settings = MeterSettings(supply_volts=12.0, speed="fast", source_volts=3.3)
    makers: dict[str, Callable[[], PtyInstrument]] = {
        "ina-line": lambda: InaInstrument(faults=faults),
        "34401a": lambda: Dmm34401a(faults=LineFaults(unplug_at=5)),
        "wt310": lambda: Wt310Instrument(faults=LineFaults(unplug_at=5)),
        "ppk2": lambda: Ppk2Instrument(lambda n: n % 9, kit=KIT, faults=faults),
    }
    with makers[name]() as instrument:
        driver = ready(name, instrument, settings)
        with pytest.raises(LinkError, match="unplugged"):
            collect(driver, 10_000)
        driver.close()  # says nothing more


def test_a_stalled_bench_meter_goes_on() -> None:
    with Dmm34401a(faults=LineFaults(stall=0.2, stall_s=0.2)) as instrument:
        driver = ready("34401a", instrument)
        got = collect(driver, 12)
        driver.close()
    assert len(got) >= 12
    assert np.allclose(got.amperes, 0.2133, rtol=1e-6)


def test_a_bench_meter_that_falls_silent_is_an_error_that_says_so() -> None:
    from dynrt.fpga.meters.dialects import AGILENT_34401A
    from dynrt.fpga.meters.scpi import ScpiMeter

    with Dmm34401a() as instrument:
        link = open_meter_link("34401a", instrument.port, SETTINGS)
        driver = ScpiMeter(link, AGILENT_34401A, SETTINGS, patience_s=0.1)
        driver.open()
        driver.configure(SETTINGS)
        driver.start()
        collect(driver, 3)
        instrument.line.faults = LineFaults(swallow=1.0)
        with pytest.raises(MeterError, match="has been silent for"):
            collect(driver, 1000, within_s=20)
        driver.close()
