"""A burst of spans and log records in a tight loop: what arrives, and what one call costs its caller.

    python benchmarks/burst.py [--records N]

Ours and the stock SDK (BatchSpanProcessor, BatchLogRecordProcessor, OTLP by HTTP) run in the same way, each in a
process of its own, against the same receiver. Needed: nothing lost, and a median call no slower than the stock one's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collector import Counting

SPANS = "spans"
LOGS = "logs"


def produce(kind: str, endpoint: str, records: int, folder: str) -> None:
    """In a child: emit, flush, and print the median call's nanoseconds."""
    from benchmarks.producers import producer_of

    producer = producer_of(kind, endpoint, Path(folder))
    figures = {}
    for name, call in ((SPANS, producer.span), (LOGS, producer.log)):
        took = []
        for number in range(records):
            began = time.perf_counter_ns()
            call(number)
            took.append(time.perf_counter_ns() - began)
        figures[name] = statistics.median(took)
    producer.end(60)
    print(json.dumps(figures))


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--produce", nargs=3, metavar=("KIND", "ENDPOINT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        produce(options.produce[0], options.produce[1], options.records, options.produce[2])
        return
    ratios: dict[str, list[float]] = {SPANS: [], LOGS: []}
    lost: dict[str, list[int]] = {"ours": [], "stock": []}
    for each in range(options.rounds):
        print(f"round {each + 1} of {options.rounds}", flush=True)
        medians = {}
        for kind in ("ours", "stock"):
            with tempfile.TemporaryDirectory() as folder, Counting() as collector:
                command = [sys.executable, __file__, "--records", str(options.records)]
                command += ["--produce", kind, collector.endpoint, folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                medians[kind] = json.loads(done.stdout.splitlines()[-1])
                arrived = len(set(collector.spans)) + len(set(collector.logs))
                lost[kind].append(2 * options.records - arrived)
        for name, found in ratios.items():
            found.append(medians["ours"][name] / medians["stock"][name])
    for kind, counts in lost.items():
        print(f"{kind:6} lost of {2 * options.records:,}: {', '.join(f'{count:,}' for count in counts)}")
    for name, found in ratios.items():
        print(f"{name:6} median call, ours / stock: {statistics.median(found):.2f}")


if __name__ == "__main__":
    main()
