#!/usr/bin/python3
"""What a relayed event costs: our server beside nginx and a Python server, all with one simulator and one load generator.

    relay.py --build build [--only far,flood,python,paced,tls,size,balance,reload] [--rounds 3] [--seconds 6] [--bytes 200]
             [--streams 1000,5000] [--size 100,1000,3000,10000] [--workers 4] [--results FILE] [--fault KIND]
    relay.py --build build [--results FILE] --markdown [FILE]

    far      round trips of a far service before the first event
    flood    eight streams, read as fast as they come
    paced    so many streams of five events a second
    tls      as paced, with TLS to the sandbox service (the fewest streams of --streams)
    size     how memory, CPU and latency grow with the number of open runs, each with an event a second
    python   a FastAPI server takes its turns too: far, flood, and the fewest streams of paced
    balance  how evenly 16 and 64 streams that open at once are spread over the workers
    reload   two reloads while 1,000 streams are open or come

nginx gets ready-made events; ours and Python's come as base64 in JSON in envelopes from envd. In each round the servers
take turns, so that what else the machine does meets all; the table shows medians. Figures go to bench/results.json in the
build directory, or to FILE; --only replaces those of its parts. --markdown measures nothing: it puts the figures into
RESULTS.md, or into FILE. --fault has the simulator spoil an event of every stream, to see that it is noticed.

Exit 1 when an event was lost, doubled, torn or another run's, or a sandbox was left. A goal that is missed is told.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import report
from measures import Bench, most_streams
from programs import allow_descriptors
from subjects import HERE, instances, python_lack

PACED_US, SIZE_US = 200_000, 1_000_000
RAMP_PER_S = {"sandstorm": 1000, "nginx": 1000, "direct": 1000, "python": 100}
SPREAD = (16, 64)
RELOAD_STREAMS = 1000
BUSY = 0.3  # of each core


@dataclass
class Case:
    """A load that some subjects get in turns."""

    name: str
    kind: str
    subjects: tuple[str, ...]
    measure: Callable[[str], dict]
    notes: list[str] = field(default_factory=list)
    is_once: bool = False  # whatever --rounds says


def streams(bench: Bench, given: argparse.Namespace, count: int, interval_us: int, **options) -> Callable[[str], dict]:
    """The measure of so many open streams."""
    return lambda name: bench.paced(name, count, given.seconds, interval_us, RAMP_PER_S[name], **options)


def rivals(bench: Bench, given: argparse.Namespace) -> tuple[tuple[str, ...], list[str]]:
    """Ours and nginx, and the Python server if it is wanted; a note when it cannot be had."""
    if "python" not in given.only:
        return ("sandstorm", "nginx"), []
    lack = python_lack(bench.build)
    if lack:
        return ("sandstorm", "nginx"), [f"the Python server was not measured, its packages cannot be had: {lack}"]
    return ("sandstorm", "nginx", "python"), []


def far(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """Time to the first event."""
    subjects, notes = rivals(bench, given)
    yield Case("far service", "far", subjects, bench.first_event, notes)


def flood(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """Speed."""
    subjects, notes = rivals(bench, given)
    yield Case("flood", "flood", subjects, bench.flood, notes)


def paced(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """Streams like those of agents; the fewest of them are python()'s if that is wanted too."""
    for count in given.streams:
        if "python" not in given.only or count != min(given.streams):
            yield Case(f"{count} x 5/s", "paced", ("sandstorm", "nginx"), streams(bench, given, count, PACED_US))


def python(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """What our users would have, in turns with the others."""
    count = min(given.streams)
    subjects, notes = rivals(bench, given)
    yield Case(f"{count} x 5/s", "paced", subjects, streams(bench, given, count, PACED_US), notes)


def tls(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """The sandbox service as it is."""
    count = min(given.streams)
    yield Case(f"{count} x 5/s, TLS", "tls", ("sandstorm", "nginx"), streams(bench, given, count, PACED_US, has_tls=True))


def size(bench: Bench, given: argparse.Namespace) -> Iterator[Case]:
    """Growth: the last is what there are goals for."""
    *fewer, most = sorted(given.size)
    for count in fewer:
        yield Case(f"{count} x 1/s", "growth", ("sandstorm", "nginx"), streams(bench, given, count, SIZE_US), is_once=True)
    count, limit = most_streams(most)
    notes = [limit] if limit else []
    if instances(count) > 1:
        notes.append(f"ours are {instances(count)} instances that share the {given.workers} workers, as RLIMIT_NOFILE is"
                     f" {allow_descriptors()} and each worker must be able to hold all runs of its instance")  # fmt: skip
    yield Case(f"{count} x 1/s", "size", ("sandstorm", "nginx", "direct"), streams(bench, given, count, SIZE_US), notes)


def balance(bench: Bench, _given: argparse.Namespace) -> Iterator[Case]:
    """Fairness."""
    for count in SPREAD:
        yield Case(f"{count} at once", f"balance {count}", ("sandstorm",), lambda name, count=count: bench.balance(name, count))


def reload(bench: Bench, _given: argparse.Namespace) -> Iterator[Case]:
    """Life."""
    yield Case(f"2 reloads, {RELOAD_STREAMS}", "reload", ("sandstorm", "nginx"),
               lambda name: bench.reload(name, RELOAD_STREAMS), is_once=True)  # fmt: skip


PARTS = {"far": far, "flood": flood, "python": python, "paced": paced, "tls": tls, "size": size, "balance": balance,
         "reload": reload}  # fmt: skip


def run(bench: Bench, case: Case, rounds: int) -> dict[str, list[dict]]:
    """What each round found of each subject; they change places from round to round. One that cannot be measured is a fault."""
    found: dict[str, list[dict]] = {name: [] for name in case.subjects}
    for number in range(rounds):
        for name in case.subjects if number % 2 == 0 else reversed(case.subjects):
            try:
                found[name].append(case.measure(name))
            except AssertionError as reason:
                bench.faults.append(f"{name}, {case.name}: {reason}")
    return found


def measure(bench: Bench, given: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Each load with what is written down of it."""
    how = report.moment() | {name: getattr(given, name) for name in ("seconds", "bytes", "workers")}
    for part in given.only:
        for case in PARTS[part](bench, given):
            measured = how | {"rounds": 1 if case.is_once else given.rounds}
            rounds = run(bench, case, measured["rounds"])
            figures = {name: report.median(found) for name, found in rounds.items() if found}
            if "direct" in figures:
                case.notes.append(f"with no server between, p50 is {figures['direct']['p50_us']:.0f} µs and"
                                  f" p99 {figures['direct']['p99_us']:.0f} µs")  # fmt: skip
            print(f"measured: {case.name}", flush=True)
            yield case.name, {"kind": case.kind, "measured": measured, "figures": figures, "notes": case.notes, "rounds": rounds}


def numbers(text: str) -> list[int]:
    """A list with commas."""
    return [int(part) for part in text.split(",")]


def parts(text: str) -> list[str]:
    """Names of parts, with commas; always in one order."""
    wanted = text.split(",")
    unknown = set(wanted) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}, but {', '.join(PARTS)}")
    return [part for part in PARTS if part in wanted]


def read_options() -> argparse.Namespace:
    """What is wanted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=lambda text: Path(text).resolve(), default="build")
    options.add_argument("--only", type=parts, default=",".join(PARTS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=6)
    options.add_argument("--streams", type=numbers, default="1000,5000")
    options.add_argument("--size", type=numbers, default="100,1000,3000,10000")
    options.add_argument("--bytes", type=int, default=200)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--results", type=Path)
    options.add_argument("--fault", default="none")
    options.add_argument("--markdown", type=Path, nargs="?", const=HERE / "RESULTS.md", metavar="FILE")
    return options.parse_args()


def main() -> int:
    """Measures, tells, and writes it down."""
    given = read_options()
    file = given.results or given.build / "bench/results.json"
    if given.markdown:
        report.write_markdown(json.loads(file.read_text()), given.markdown)
        return 0
    bench = Bench(given.build, given.workers, given.bytes, given.fault)
    is_whole = len(given.only) == len(PARTS)
    results = {"loads": {}} if is_whole or not file.exists() else json.loads(file.read_text())
    results["machine"] = report.machine()
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()), flush=True)
    if os.getloadavg()[0] > BUSY * os.cpu_count():
        print(f"This machine is busy (load average {os.getloadavg()[0]:.1f}): its figures are not worth keeping.", flush=True)
    for name, found in measure(bench, given):
        results["loads"][name] = found
        file.write_text(json.dumps(results, indent=1))
    report.tell(results)
    for fault in bench.faults:
        print(f"FAULT: {fault}")
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
