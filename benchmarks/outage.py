"""A collector that is away for a while: how many records arrive in the end, how soon after it is back, how often twice.

    python benchmarks/outage.py [--seconds S] [--rate N]

Ours and the stock SDK, each in a process of its own, at the same time and rate. Needed: every id within ten seconds of
the recovery, at most 0.5 % twice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collector import Counting

BEFORE_S, AFTER_S = 5.0, 10.0


def produce(kind: str, endpoint: str, folder: str, rate: float, seconds: float) -> None:
    """In a child: emit at a steady rate, then end."""
    from benchmarks.producers import producer_of

    producer = producer_of(kind, endpoint, Path(folder))
    began = time.perf_counter()
    number = 0
    while (now := time.perf_counter() - began) < seconds:
        while number < now * rate:
            producer.span(number)
            producer.log(number)
            number += 1
        time.sleep(1 / rate)
    print(number, flush=True)
    sys.stdin.read()  # the end is not part of it: what arrives does so while the process runs
    producer.end(5)


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of the outage")
    parser.add_argument("--rate", type=float, default=100, help="spans a second, and as many log records")
    parser.add_argument("--produce", nargs=3, metavar=("KIND", "ENDPOINT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    total_s = BEFORE_S + options.seconds
    if options.produce:
        kind, endpoint, folder = options.produce
        produce(kind, endpoint, folder, options.rate, total_s)
        return
    kinds = ("ours", "stock")
    with tempfile.TemporaryDirectory() as name:
        collectors = {kind: Counting() for kind in kinds}
        children = {}
        for kind, collector in collectors.items():
            command = [sys.executable, __file__, "--seconds", str(options.seconds), "--rate", str(options.rate)]
            command += ["--produce", kind, collector.endpoint, f"{name}/{kind}"]
            children[kind] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        time.sleep(BEFORE_S)
        for collector in collectors.values():
            collector.close()
        print(f"the collector is away for {options.seconds:.0f} s", flush=True)
        emitted = {kind: int((child.stdout or sys.stdin).readline()) for kind, child in children.items()}
        back = {kind: Counting(collector.port) for kind, collector in collectors.items()}
        time.sleep(AFTER_S)
        for kind in kinds:
            for signal in ("spans", "logs"):
                came = getattr(collectors[kind], signal) + getattr(back[kind], signal)
                lost, twice = emitted[kind] - len(set(came)), len(came) - len(set(came))
                print(
                    f"{kind:6} {signal:6} of {emitted[kind]:,}: lost {lost:,} ({100 * lost / emitted[kind]:.1f} %), "
                    f"twice {twice:,} ({100 * twice / emitted[kind]:.2f} %)"
                )
        for child in children.values():
            child.communicate(timeout=120)
        for collector in back.values():
            collector.close()


if __name__ == "__main__":
    main()
