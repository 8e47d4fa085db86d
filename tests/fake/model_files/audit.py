"""audit.py PACKAGE VERSION: what a sample list of advisories says about a package and what it depends on, offline.

The package itself has one version. A dependency has a range: it is at risk when versions below the fix are allowed.
Writes report.json and report.md.
"""

import json
import sys


def number(version):
    """A dotted version as something that can be compared."""
    return tuple(int(part) for part in version.split("."))


def lowest(allowed):
    """The lowest version that a range allows."""
    return next(part[2:] for part in allowed.split(",") if part.startswith(">="))


def findings(package, version, known):
    """Each advisory that applies, with what it applies to."""
    tree = {package: f">={version}", **known["requires"][f"{package} {version}"]}
    for advisory in known["advisories"]:
        allowed = tree.get(advisory["package"])
        if allowed and number(lowest(allowed)) < number(advisory["fixed_in"]):
            certain = advisory["package"] == package
            in_use, verdict = (version, "affected") if certain else (allowed, "possible")
            yield {**advisory, "allowed": in_use, "verdict": verdict}


def markdown(package, version, found, note):
    """The report for people."""
    columns = ("id", "package", "allowed", "fixed_in", "verdict")
    lines = [f"# {package} {version}", "", note, "", "| advisory | package | in use | fixed in | verdict |"]
    lines.append("|---" * len(columns) + "|")
    for item in found:
        lines.append("| " + " | ".join(item[column] for column in columns) + " |")
    return "\n".join(lines) + "\n"


package, version = sys.argv[1:]
with open("advisories.json", encoding="utf-8") as file:
    known = json.load(file)
found = list(findings(package, version, known))
with open("report.json", "w", encoding="utf-8") as file:
    json.dump({"package": package, "version": version, "note": known["note"], "findings": found}, file, indent=1)
with open("report.md", "w", encoding="utf-8") as file:
    file.write(markdown(package, version, found, known["note"]))
for item in found:
    print(f"{item['verdict']:9} {item['id']:15} {item['package']} {item['allowed']} (fixed in {item['fixed_in']})")
print(f"{len(found)} findings in the sample list")
