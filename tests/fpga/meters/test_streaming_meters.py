"""The sensor line and the PPK2 on pseudo-terminals, from open to close."""

from __future__ import annotations

import numpy as np
import pytest

from dynrt.errors import MeterError
from dynrt.fpga.decoders.ppk2 import amperes_of
from dynrt.fpga.emulated.faults import LineFaults
from dynrt.fpga.emulated.instruments import (
    InaInstrument,
    Ppk2Instrument,
    Supply,
    encode_words,
)
from dynrt.fpga.links import TapLink
from dynrt.fpga.meters import MeterSettings, decoder_for, meter, open_meter_link
from dynrt.fpga.samples import COLUMNS, Flag, Samples
from tests.fpga.meters.driving import KIT, collect, open_nothing, ready


def test_ppk2_streams_its_calibrated_currents_and_replays() -> None:
    settings = MeterSettings(source_volts=3.3, marker_input=0)

    def counts(which: np.ndarray) -> np.ndarray:
        return np.asarray(2000 + which % 7)

    with Ppk2Instrument(counts, kit=KIT, words_per_s=20_000) as instrument:
        instrument.logic = 1
        heard: list[tuple[float, bytes]] = []
        tap = TapLink(
            open_meter_link("ppk2", instrument.port, settings), lambda s, b: heard.append((s, b))
        )
        driver = meter("ppk2", tap, settings)
        driver.open()
        who = driver.identify()
        driver.configure(settings)
        driver.start()
        got = collect(driver, 4000)
        driver.stop()
        driver.close()
    assert who.has_marker
    assert "9173" in who.model
    assert bytes((0x0D, 3300 // 256, 3300 % 256)) in instrument.commands
    assert bytes((0x11, 2)) in instrument.commands
    first = int(got.sequence[0])
    words = np.frombuffer(
        encode_words(
            counts(np.arange(first, first + len(got))),
            at_range=4,
            first_counter=first % 64,
            logic=1,
        ),
        "<u4",
    )
    assert np.array_equal(got.amperes, amperes_of(words, KIT, 3.3))
    assert (got.marker == 1).all()
    assert (np.diff(got.sequence) == 1).all()
    decoder = decoder_for("ppk2", settings)
    again = Samples.join([decoder.feed(data, at_s) for at_s, data in heard])
    for column in COLUMNS:
        assert np.array_equal(getattr(again, column), getattr(got, column), equal_nan=True)


def test_ppk2_that_was_left_streaming_is_found() -> None:
    settings = MeterSettings(source_volts=3.3)
    with Ppk2Instrument(lambda n: 2000 + n % 5, kit=KIT, words_per_s=5000) as instrument:
        first = ready("ppk2", instrument, settings)
        collect(first, 100)
        first._link.close()  # type: ignore[attr-defined]  # killed: nobody told it to stop
        second = ready("ppk2", instrument, settings)
        got = collect(second, 500)
        second.close()
    assert len(got) >= 500
    assert (np.diff(got.sequence) == 1).all()


def test_ppk2_refuses_twelve_volts() -> None:
    settings = MeterSettings(supply_volts=12.0)
    with pytest.raises(MeterError, match=r"12 V; it takes 0\.8 to 5 V"):
        meter("ppk2", open_nothing(), settings).configure(settings)


def test_ina_line_from_end_to_end() -> None:
    faults = LineFaults(
        boot_garbage=True, flip=0.02, drop=0.02, double=0.02, repeat=0.02, ends=0.3, drift=0.01
    )

    def circuit(seconds: float) -> Supply:
        return Supply(marker=int(seconds > 0.5))

    with InaInstrument(circuit, rate_hz=400, faults=faults, seed=2) as instrument:
        driver = meter("ina-line", open_meter_link("ina-line", instrument.port))
        driver.open()
        who = driver.identify()
        driver.configure(MeterSettings())
        driver.start()
        got = collect(driver, 500)
        driver.close()
    assert who.checksummed
    assert who.has_marker
    assert who.rate_hz == pytest.approx(400 / 1.01, rel=1e-3)
    assert np.allclose(got.watts, 12.0 * 0.2133)
    assert driver.counts.damaged > 0
    assert driver.counts.missing > 0
    assert driver.counts.duplicates > 0
    assert (np.diff(got.sequence) > 0).all()
    assert set(got.marker) == {0, 1}


def test_ina_line_reset_and_clock_faults_are_flagged() -> None:
    with InaInstrument(
        rate_hz=1000, faults=LineFaults(reset_at=100, boot_garbage=True)
    ) as instrument:
        driver = ready("ina-line", instrument)
        got = collect(driver, 200)
        driver.close()
    assert list(got.sequence[got.flagged(Flag.RESET)]) == [0]
    assert driver.counts.resets == 1
    with InaInstrument(
        rate_hz=1000, faults=LineFaults(backward_at=100, start_us=10**7)
    ) as instrument:
        driver = ready("ina-line", instrument)
        got = collect(driver, 200)
        driver.close()
    assert list(got.sequence[got.flagged(Flag.BACKWARD)]) == [100]
