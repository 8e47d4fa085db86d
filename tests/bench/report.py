"""What is told of the figures: the table, on a terminal and in RESULTS.md, and the goals of the design.

Results are a dictionary that is written as JSON: what the `machine` is, and for each of the `loads` its kind, how it was
`measured`, the `figures` of each subject (medians of its `rounds`), and `notes`.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from subjects import HERE, NGINX

BEGIN, END = "<!-- figures: relay.py --markdown -->\n", "<!-- end of figures -->\n"
HEADS = ("load", "figure", "sandstorm", "nginx", "ratio", "python", "ratio", "goal")
WIDTHS = (18, 25, 10, 9, 6, 9, 6, 0)


@dataclass(frozen=True)
class Figure:
    """A row of a load: what it shows, and how."""

    label: str
    form: str
    of: Callable[[dict], float]


@dataclass(frozen=True)
class Goal:
    """What a figure, or its ratio to nginx's, is to be at most."""

    most: float
    is_ratio: bool = False

    def text(self, ours: float, theirs: float | None) -> str:
        """The goal, and whether it is met."""
        if self.is_ratio and not theirs:
            return f"<= {self.most:g} x nginx"
        reached = ours / theirs if self.is_ratio else ours
        return f"<= {self.most:g}{' x nginx' if self.is_ratio else ''}: {'met' if reached <= self.most else 'MISSED'}"


FIGURES = {
    "cpu": Figure("CPU, µs an event", "{:.1f}", lambda found: found["cpu_us_per_event"]),
    "core": Figure("events/s of one core", "{:.0f}", lambda found: 1e6 / found["cpu_us_per_event"]),
    "percent": Figure("CPU, % of a core", "{:.1f}", lambda found: found["cpu_percent"]),
    "kib": Figure("private KiB an open run", "{:.1f}", lambda found: found["kib_per_stream"]),
    "p50": Figure("latency, µs, p50", "{:.0f}", lambda found: found["p50_us"]),
    "p99": Figure("latency, µs, p99", "{:.0f}", lambda found: found["p99_us"]),
    "came": Figure("% of its events/s", "{:.1f}", lambda found: 100 * found["events_per_s"] / found["promised_per_s"]),
    "speed": Figure("events/s", "{:.0f}", lambda found: found["events_per_s"]),
    "trips": Figure("round trips to 1st event", "{:.2f}", lambda found: found["round_trips"]),
    "share": Figure("streams a worker, max/mean", "{:.2f}", lambda found: found["max_to_mean"]),
    "harmed": Figure("streams cut or refused", "{:.0f}", lambda found: found["harmed"]),
}
# Kind of a load → what is told of it.
ROWS = {
    "far": ("trips",),
    "flood": ("cpu", "core", "speed"),
    "paced": ("cpu", "core", "kib", "p50", "p99", "came"),
    "tls": ("cpu", "core", "kib", "p50", "p99", "came"),
    "growth": ("cpu", "percent", "kib", "p50", "p99", "came"),
    "size": ("cpu", "percent", "kib", "p50", "p99", "came"),
    "balance 16": ("share",),
    "balance 64": ("share",),
    "reload": ("harmed",),
}
# Create, upload, start: three, and what our own work takes of a fourth.
GOALS = {
    ("far", "trips"): Goal(3.25),
    ("flood", "cpu"): Goal(4, is_ratio=True),
    ("paced", "cpu"): Goal(1.25, is_ratio=True),
    ("tls", "kib"): Goal(160),
    ("size", "kib"): Goal(20),
    ("size", "p99"): Goal(2, is_ratio=True),
    ("balance 16", "share"): Goal(1.25),
    ("balance 64", "share"): Goal(1.10),
    ("reload", "harmed"): Goal(0),
}


def median(rounds: list[dict]) -> dict:
    """Of each figure."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def _said(*command: str) -> str:
    """What a program prints, or a question mark."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else "?"


def machine() -> dict:
    """What it is measured on."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    return {"cpu": cpu, "cores": os.cpu_count(), "memory MiB": int(memory) // 1024, "kernel": platform.release(),
            "nginx": _said(NGINX, "-v").rpartition("/")[2], "libcurl": _said("pkg-config", "--modversion", "libcurl"),
            "libevent": _said("pkg-config", "--modversion", "libevent"), "openssl": _said("pkg-config", "--modversion", "openssl"),
            "python": platform.python_version()}  # fmt: skip


def moment() -> dict:
    """When something is measured, of what, and what else the machine does."""
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "commit": _said("git", "describe", "--always", "--dirty"),
            "load average before": round(os.getloadavg()[0], 1)}  # fmt: skip


# --- rows ------------------------------------------------------------------------------------------------


def _cells(figure: Figure, goal: Goal | None, figures: dict) -> tuple[str, ...]:
    """Figures and ratios of a row: a dash for what was not measured."""
    values = {name: figure.of(found) for name, found in figures.items()}
    ours = values.get("sandstorm")
    cells = [figure.form.format(ours) if ours is not None else "-"]
    for name in ("nginx", "python"):
        theirs = values.get(name)
        cells.append(figure.form.format(theirs) if theirs is not None else "-")
        cells.append(f"{ours / theirs:.2f}" if ours is not None and theirs else "-")
    return *cells, goal.text(ours, values.get("nginx")) if goal and ours is not None else ""


def rows(results: dict) -> Iterator[tuple[str, ...]]:
    """The table."""
    for load, found in results["loads"].items():
        for key in ROWS[found["kind"]] if found["figures"] else ():
            yield (load, FIGURES[key].label, *_cells(FIGURES[key], GOALS.get((found["kind"], key)), found["figures"]))
        for note in found["notes"]:
            yield load, note


def tell(results: dict) -> None:
    """On the terminal."""
    for cells in (HEADS, *rows(results)):
        if len(cells) == len(HEADS):
            texts = (f"{cell:<{width}}" if place < 2 or not width else f"{cell:>{width}}"
                     for place, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True)))  # fmt: skip
            print(" ".join(texts).rstrip())
        else:
            print(f"{cells[0]:<{WIDTHS[0]}} ({cells[1]})", flush=True)


def _growth(results: dict) -> Iterator[str]:
    """How memory, CPU and latency grow with the number of runs: ours, and in brackets nginx's."""
    keys = ("kib", "percent", "cpu", "p50", "p99")
    yield "| runs, an event a second each | " + " | ".join(FIGURES[key].label for key in keys) + " |"
    yield "|---|" + "---:|" * len(keys)
    for load, found in results["loads"].items():
        if found["kind"] in ("growth", "size"):
            cells = (_cells(FIGURES[key], None, found["figures"]) for key in keys)
            yield f"| {load} | " + " | ".join(f"{ours} ({theirs})" for ours, theirs, *_ in cells) + " |"


def markdown(results: dict) -> str:
    """As in RESULTS.md."""
    lines = [", ".join(f"{name} {value}" for name, value in results["machine"].items()) + ".", "", "| " + " | ".join(HEADS) + " |",
             "|---|---|" + "---:|" * 5 + "---|"]  # fmt: skip
    notes = []
    for cells in rows(results):
        if len(cells) == len(HEADS):
            lines.append("| " + " | ".join(cells) + " |")
        else:
            notes.append(f"* {cells[0]}: {cells[1]}.")
    lines += ["", "How it grows, ours and in brackets nginx's:", "", *_growth(results)]
    measured: dict[str, list[str]] = {}
    for load, found in results["loads"].items():
        how = ", ".join(f"{name} {value}" for name, value in found["measured"].items())
        measured.setdefault(how, []).append(load)
    for how, loads in measured.items():
        notes.append(f"* Measured: {how}: {', '.join(loads)}.")
    return "\n".join([*lines, "", *notes, ""])


def write_markdown(results: dict, file: Path) -> None:
    """Puts the table into RESULTS.md, between its marks."""
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{file} has no place for figures"
    file.write_text(before + begin + "\n" + markdown(results) + "\n" + end + after)
