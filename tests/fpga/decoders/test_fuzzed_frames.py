"""Some thousand damaged frames per format; ``python -m tests.soak decoders`` does a million."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynrt.fpga.decoders.ina_line import InaLineDecoder, encode_line
from tests.soak_decoders import FORMATS, Format, chunk, run


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_refused_flagged_or_counted(name: str) -> None:
    tally = chunk(name, seed=11, frames=1500)
    assert not tally.findings
    assert tally.fuzzed > 600
    assert tally.accepted > 300
    if FORMATS[name].checksummed:
        assert tally.silent == 0
    else:
        assert 0 < tally.silent < 0.3 * tally.accepted  # they cannot notice all; this is published
    assert tally.single_silent["drop"] == tally.single_silent["double"] == 0


def test_the_fuzzer_notices_a_decoder_without_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    form = FORMATS["34401a"]
    claimed = Format(decoder=form.decoder, frame=form.frame, checksummed=True)
    monkeypatch.setitem(FORMATS, "34401a", claimed)
    assert chunk("34401a", seed=1, frames=1500).findings


def test_the_soak_writes_its_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--count", "1000", "--json", str(tmp_path / "rates.json")]) == 0
    told = json.loads((tmp_path / "rates.json").read_text())
    assert set(told) == {*FORMATS, "ppk2"}
    assert told["ina-line"]["silently_wrong_samples"] == 0
    assert told["34401a"]["one_fault"]["flip"]["rate"] > 0
    assert told["ppk2"]["drops_detected_share"] >= 0.999
    assert "decoders: ina-line: " in capsys.readouterr().out


def test_the_reference_line_is_what_the_decoder_reads() -> None:
    got = InaLineDecoder().feed(encode_line(1, 2, 3.0, -4.0, 1), 0.0)
    assert (got.volts[0], got.amperes[0], got.watts[0]) == (3.0, -4.0, -12.0)
