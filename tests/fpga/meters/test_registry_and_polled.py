"""Meters by name, plug-ins, settings, and what a Linux board carries itself."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dynrt.errors import LinkError, MeterError
from dynrt.fpga.decoders.ina_line import InaLineDecoder, encode_line
from dynrt.fpga.links import ReplayLink, TapLink
from dynrt.fpga.meters import (
    MeterKind,
    MeterSettings,
    decoder_for,
    meter,
    meter_kind,
    meter_names,
    open_meter_link,
    registry,
)
from dynrt.fpga.samples import COLUMNS, Flag, Samples


def test_all_meters_of_the_note_are_there() -> None:
    assert set(meter_names()) >= {
        "34401a", "keithley-2000", "dm3058", "wt310", "ina-line", "ppk2", "powercap", "hwmon",
    }  # fmt: skip


def test_an_unknown_meter_and_a_missing_port() -> None:
    with pytest.raises(MeterError, match=r"no meter named 'ammeter'; there are 34401a"):
        meter("ammeter", ReplayLink([]))
    with pytest.raises(MeterError, match="ina-line needs a port"):
        open_meter_link("ina-line", "")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shunt_ohm": 0.0}, "shunt_ohm is 0.0"),
        ({"supply_volts": float("nan")}, "supply_volts"),
        ({"marker_input": 8}, "marker_input is 8"),
        ({"speed": "warp"}, "speed is 'warp'"),
        ({"parity": "mark"}, "parity is 'mark'"),
        ({"nplc": 1}, "no such meter setting: nplc"),
        ({"shunt_ohm": "0.01"}, "wrong kind"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], text: str) -> None:
    with pytest.raises(MeterError, match=text):
        meter("34401a", ReplayLink([]), None, **changes)


def test_settings_survive_a_manifest() -> None:
    settings = MeterSettings(supply_volts=12.1, speed="slow", root="/x", marker_input=None)
    assert MeterSettings.from_json(settings.as_json()) == settings


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("somebodys_meter")
    monkeypatch.setitem(sys.modules, "somebodys_meter", module)
    points = tuple(
        EntryPoint(name, f"somebodys_meter:{what}", registry.GROUP)
        for name, what in (("own", "KIND"), ("broken", "ABSENT"), ("odd", "NUMBER"))
    )
    monkeypatch.setattr(registry, "_plug_ins", lambda: points)
    return module


def test_a_plug_in_is_a_meter_like_any_other(plug_ins: ModuleType) -> None:
    ina = meter_kind("ina-line")
    plug_ins.KIND = MeterKind(  # type: ignore[attr-defined]
        name="?",
        title="somebody's",
        make=ina.make,
        decoder=lambda settings: InaLineDecoder(),
        open_link=ina.open_link,
    )
    plug_ins.NUMBER = 7  # type: ignore[attr-defined]
    assert meter_kind("own").name == "own"
    assert "own" in meter_names()
    stream = b"".join(encode_line(i, i * 1000, 12.0, 0.2, 0) for i in range(20))
    driver = meter("own", ReplayLink([(0.0, stream)]))
    assert driver.identify().has_marker
    assert len(driver.read(0.0)) == 20
    with pytest.raises(MeterError, match="plug-in broken"):
        meter_kind("broken")
    with pytest.raises(MeterError, match=r"plug-in odd .* is no MeterKind"):
        meter_kind("odd")


def sysfs(root: Path) -> Path:
    zone = root / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("1000000\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    sensor = root / "class" / "hwmon" / "hwmon3"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("ina226\n")
    (sensor / "in1_input").write_text("12005\n")
    (sensor / "curr1_input").write_text("213\n")
    (sensor / "power1_input").write_text("2557000\n")
    (root / "class" / "hwmon" / "hwmon0").mkdir()
    (root / "class" / "hwmon" / "hwmon0" / "name").write_text("coretemp\n")
    return root


def test_powercap_of_a_folder(tmp_path: Path) -> None:
    settings = MeterSettings(root=str(sysfs(tmp_path)), rate_hz=200)
    heard: list[tuple[float, bytes]] = []
    tap = TapLink(open_meter_link("powercap", "", settings), lambda s, b: heard.append((s, b)))
    driver = meter("powercap", tap, settings)
    driver.open()
    who = driver.identify()
    assert (who.source, who.checksummed, who.has_marker) == ("emulated", True, False)
    assert 5 < who.rate_hz < 400
    driver.configure(settings)
    driver.start()
    ahead = driver.read(0.1)
    assert (ahead.watts == 0).all()  # the file stands still: no energy, known and not missing
    file = tmp_path / "class" / "powercap" / "intel-rapl:0" / "energy_uj"
    file.write_text("3000000\n")
    got = driver.read(0.1)
    assert got.watts[0] * (got.meter_s[0] - ahead.meter_s[-1]) == pytest.approx(2.0, rel=1e-6)
    decoder = decoder_for("powercap", settings)
    again = Samples.join([decoder.feed(data, at_s) for at_s, data in heard])
    live = Samples.join([ahead, got])
    for column in COLUMNS:
        assert np.array_equal(getattr(again, column), getattr(live, column), equal_nan=True)
    file.unlink()
    with pytest.raises(LinkError, match="energy_uj: gone"):
        driver.read(0.1)
    driver.stop()
    driver.close()
    with pytest.raises(LinkError, match="closed"):
        driver.read(0.1)


def test_hwmon_of_a_folder(tmp_path: Path) -> None:
    settings = MeterSettings(root=str(sysfs(tmp_path)), rate_hz=500, domain="ina226")
    driver = meter("hwmon", open_meter_link("hwmon", "", settings), settings)
    driver.identify()
    got = driver.read(0.1)
    assert np.allclose(got.watts, 2.557)
    assert np.allclose(got.volts, 12.005)
    (tmp_path / "class" / "hwmon" / "hwmon3" / "power1_input").write_text("")  # a bus error
    got = driver.read(0.1)
    assert got.watts[0] == pytest.approx(12.005 * 0.213)
    (tmp_path / "class" / "hwmon" / "hwmon3" / "in1_input").write_text("")
    got = driver.read(0.1)
    assert np.isnan(got.watts[0])
    assert got.flagged(Flag.NAN)[0]


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("powercap", {"domain": "dram"}, "no zone 'dram'; zones: package-0"),
        ("hwmon", {"domain": "ina3221"}, "no sensor 'ina3221'; it has ina226, hwmon3"),
        ("hwmon", {"channel": 2}, "channel 2 has neither power nor volts and amperes"),
    ],
)
def test_what_the_folder_has_not(
    tmp_path: Path, name: str, changes: dict[str, object], text: str
) -> None:
    base = MeterSettings(root=str(sysfs(tmp_path))).as_json()
    with pytest.raises(MeterError, match=text):
        open_meter_link(name, "", MeterSettings.from_json(base | changes))


def test_an_empty_folder_has_no_meter(tmp_path: Path) -> None:
    settings = MeterSettings(root=str(tmp_path))
    with pytest.raises(MeterError, match="zones: none"):
        open_meter_link("powercap", "", settings)
    with pytest.raises(MeterError, match="no INA current sensor"):
        open_meter_link("hwmon", "", settings)
