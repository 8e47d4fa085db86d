"""What `make coverage` says: the lines that the tests ran, by folder and by file, and why the others were not.

    report.py BUILD     BUILD holds obj/, with the counts that the programs left there

Prints the tables, writes them with each function's missed lines to BUILD/report.txt and pages of the source to BUILD/html/.
Exit code 1: a folder has fewer lines covered than it promises, or reasons.txt names a function that there is not.
"""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
REASONS = Path(__file__).with_name("reasons.txt")
# The least part of its lines that a folder promises, in per cent. The others are reported.
PROMISED = {"common": 90, "master": 90, "worker": 90, "sandboxd": 0, "cli": 0}
FILES_AT_ONCE = 40


@dataclass
class Source:
    """What is known of a file: its lines of code with how often each ran, and whose they are."""

    counts: dict[int, int] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def missed(self) -> dict[str, list[int]]:
        """Function → its lines that did not run; in the file's order."""
        found = defaultdict(list)
        for line in sorted(self.counts):
            if self.counts[line] == 0:
                found[self.owners[line]].append(line)
        return dict(found)


def gcov(objects: list[Path]) -> list[dict]:
    """What gcov makes of objects' notes and counts: a document for each. An object without counts never ran."""
    command = ["gcov", "--json-format", "--stdout", *objects]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def read_counts(build: Path) -> dict[str, Source]:
    """Path in the repository → source, of every file of the folders."""
    notes = sorted(path for folder in PROMISED for path in (build / "obj" / folder).rglob("*.gcno"))
    sources: dict[str, Source] = defaultdict(Source)
    for start in range(0, len(notes), FILES_AT_ONCE):
        for document in gcov(notes[start : start + FILES_AT_ONCE]):
            for file in document["files"]:
                if file["file"].partition("/")[0] in PROMISED:
                    add(sources[file["file"]], file)
    return dict(sorted(sources.items()))


def add(source: Source, file: dict) -> None:
    """Adds what one object knows of a file: a header is part of many."""
    source.functions |= {function["name"] for function in file["functions"]}
    for line in file["lines"]:
        number = line["line_number"]
        source.counts[number] = source.counts.get(number, 0) + line["count"]
        source.owners[number] = line.get("function_name", "")


def read_reasons() -> dict[tuple[str, str], str]:
    """(file, function) → why lines of it do not run. reasons.txt says how it is written."""
    reasons: dict[tuple[str, str], str] = {}
    reason = ""
    for line in REASONS.read_text().splitlines():
        if line.startswith("["):
            reason = line[1:].partition("]")[0]
        elif line and not line.startswith(("#", " ")):
            path, _, names = line.partition(":")
            for name in names.split():
                reasons[path, name] = f"{reasons[path, name]}, {reason}" if (path, name) in reasons else reason
    return reasons


def ranges(lines: list[int]) -> str:
    """[1, 2, 3, 7] → "1-3 7"."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def row(name: str, sources: list[Source]) -> tuple[str, float]:
    """A row of a table, and the per cent in it."""
    lines = sum(len(source.counts) for source in sources)
    ran = sum(count > 0 for source in sources for count in source.counts.values())
    percent = 100 * ran / lines if lines else 100.0
    return f"{name:<36} {lines:>7} {lines - ran:>7} {percent:>7.1f} %", percent


def tables(sources: dict[str, Source]) -> tuple[list[str], list[str]]:
    """The rows by file and by folder, and what is wrong."""
    head = f"{'':<36} {'lines':>7} {'missed':>7} {'ran':>9}"
    rows, wrong = [head], []
    rows += [row(path, [source])[0] for path, source in sources.items() if source.counts]
    rows += ["", head]
    for folder, least in PROMISED.items():
        text, percent = row(folder + "/", [source for path, source in sources.items() if path.startswith(folder + "/")])
        rows.append(text)
        if percent < least:
            wrong.append(f"{folder}/: {percent:.1f} % of its lines ran, at least {least} % are promised")
    return rows, wrong


def missed_rows(sources: dict[str, Source], reasons: dict[tuple[str, str], str]) -> tuple[list[str], int]:
    """A row for each function of which lines did not run, and how many of them have no reason."""
    rows, unexplained = [], 0
    for path, source in sources.items():
        for name, lines in source.missed().items():
            reason = reasons.get((path, name), "")
            unexplained += not reason and bool(PROMISED[path.partition("/")[0]])
            rows.append(f"{path}:{lines[0]}: {name}: lines {ranges(lines)}: {reason or 'no reason is given'}")
    return rows, unexplained


def main(build: Path) -> int:
    sources = read_counts(build)
    reasons = read_reasons()
    rows, wrong = tables(sources)
    missed, unexplained = missed_rows(sources, reasons)
    for path, name in reasons:
        if path not in sources or name not in sources[path].functions:
            wrong.append(f"{REASONS.name}: {path} has no function {name}")
    (build / "report.txt").write_text("\n".join([*rows, "", "What did not run, and why:", *missed, ""]))
    pages = build / "html"
    pages.mkdir(exist_ok=True)
    filters = [word for folder in PROMISED for word in ("--filter", f"{folder}/")]
    subprocess.run(["gcovr", "--root", REPOSITORY, *filters, "--html-details", pages / "index.html", build / "obj"], cwd=REPOSITORY, check=True)
    print("\n".join(rows))
    print(f"\nwhat did not run, and why: {build}/report.txt; {unexplained} functions without a reason\npages: {pages}/index.html")
    for fault in wrong:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
