"""``dynrt measure check``: do board and meter answer, and what do they say?"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import click
import numpy as np

from dynrt.cli import options
from dynrt.cli.measure_options import bench_of, bench_options
from dynrt.cli.text import to_json
from dynrt.errors import MeterError
from dynrt.fpga.conduct import Ports
from dynrt.fpga.journal import Source
from dynrt.fpga.meters import MeterIdentity, meter
from dynrt.fpga.samples import DecodeCounts, Samples
from dynrt.fpga.wire import BoardInfo


@click.command()
@bench_options
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=2.0,
    show_default=True,
    help="So long the meter is listened to.",
)
@options.json_option
def command(seconds: float, as_json: bool, **bench_args: Any) -> None:
    """Greet the board and listen to the meter, and say what is wrong.

    Nothing is downloaded and nothing is stored.
    """
    bench = bench_of(bench_args)
    with bench.open() as ports:
        info, source = ports.greet()
        agent = ports.agent(ports.board)
        began = time.monotonic()
        for _ in range(10):
            agent.echo(b"dynrt")
        trip_s = (time.monotonic() - began) / 10
        temperature = agent.temperature_c()
        identity, samples, counts = _listen(ports, seconds)
    record = _record(info, source, trip_s, temperature, identity, samples, counts)
    click.echo(to_json(record) if as_json else _page(record))


def _listen(ports: Ports, seconds: float) -> tuple[MeterIdentity, Samples, DecodeCounts]:
    driver = meter(ports.meter_name, ports.meter, ports.settings)
    with closing(driver):
        driver.open()
        identity = driver.identify()
        driver.configure(ports.settings)
        driver.start()
        blocks, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            block = driver.read(0.1)
            if len(block):
                blocks.append(block)
        driver.stop()
        samples = Samples.join(blocks)
        if not len(samples):
            raise MeterError(f"the meter gave no samples in {seconds:g} s")
        return identity, samples, driver.counts


def _record(
    info: BoardInfo,
    source: Source,
    trip_s: float,
    temperature: float | None,
    identity: MeterIdentity,
    samples: Samples,
    counts: DecodeCounts,
) -> dict[str, Any]:
    good = samples.watts[np.isfinite(samples.watts)]
    return {
        "source": source,
        "board": {
            "build": info.build,
            "idcode": f"{info.idcode:08x}",
            "zynq_7020": info.is_zynq_7020,
            "ticks_per_s": info.ticks_per_s,
            "weights_bytes": info.weights_cap,
            "arena_bytes": info.arena_cap,
            "reset_reason": info.reset_reason,
            "round_trip_s": trip_s,
            "temperature_c": temperature,
        },
        "meter": {
            "maker": identity.maker,
            "model": identity.model,
            "serial": identity.serial,
            "checksummed": identity.checksummed,
            "has_marker": identity.has_marker,
            "rate_hz": identity.rate_hz,
            "lag_s": identity.lag_s,
            "source": identity.source,
            "samples": len(samples),
            "damaged": counts.damaged,
            "missing": counts.missing,
            "mean_w": float(good.mean()) if len(good) else None,
            "sd_w": float(good.std(ddof=1)) if len(good) > 1 else None,
        },
    }


def _page(record: dict[str, Any]) -> str:
    board, meter_ = record["board"], record["meter"]
    part = "xc7z020" if board["zynq_7020"] else "no xc7z020"
    heat = board["temperature_c"]
    power = "no power" if meter_["mean_w"] is None else f"{meter_['mean_w']:.4g} W"
    lines = [
        f"board: {board['build']}, {part} (IDCODE {board['idcode']}), "
        f"{board['ticks_per_s'] / 1e6:g} MHz, round trip {board['round_trip_s'] * 1e3:.2g} ms"
        + ("" if heat is None else f", {heat:.1f} C"),
        f"meter: {meter_['maker']} {meter_['model']} {meter_['serial']}".rstrip()
        + f", {meter_['rate_hz']:.4g} samples/s, {'with' if meter_['has_marker'] else 'no'} marker",
        f"  {meter_['samples']} samples, {meter_['missing']} missing, {meter_['damaged']} damaged; "
        f"{power} {record['source']}"
        + ("" if meter_["sd_w"] is None else f", standard deviation {meter_['sd_w']:.2g} W"),
    ]
    if not meter_["checksummed"]:
        lines.append("  its format has no checksum: damage in transit may pass as a value")
    if not 10 * meter_["rate_hz"] >= 200:
        lines.append("  fewer than 200 samples in 10 s: use --window to make windows longer")
    lines.append(f"source: {record['source']}")
    return "\n".join(lines)
