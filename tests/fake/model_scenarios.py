"""What the scripted model of model.py says: one list of steps for each prompt it knows.

The agents that follow these steps do real work with their real tools: they write files, run programs, read what came
out. Their sandboxes have no internet, so the data is sample data, and every text and file that shows it says so. The
files that an agent writes are in model_files/.

A prompt can bring its own script, so that a test can drive an agent to anything:

    sandstorm-script: [{"text": "Now", "calls": [["Bash", {"command": "sleep 5"}]]}, {"text": "Done: {last_result}"}]

Keys of a step, each may be left out: text; calls (a list of [tool, input]); delay_s (thinking time); status (the model
answers with this HTTP error instead). {last_result} in a text is replaced by what the last tool call returned. A step
without calls ends the turn.
"""

import json
from dataclasses import dataclass
from pathlib import Path

SCRIPT_MARK = "sandstorm-script:"
FILES = Path(__file__).parent / "model_files"
HOME = "/home/user"


@dataclass(frozen=True)
class Step:
    """One answer of the model."""

    text: str = ""
    calls: tuple = ()
    delay_s: float = 0.0
    status: int = 0


# --- how steps are written down ------------------------------------------------------------------


def run(command, purpose):
    """A call that runs a shell command."""
    return ("Bash", {"command": command, "description": purpose})


def write(name):
    """A call that writes one of model_files/ into the agent's home."""
    return ("Write", {"file_path": f"{HOME}/{name}", "content": (FILES / name).read_text(encoding="utf-8")})


def read(name, lines):
    """A call that reads the first lines of a file in the agent's home."""
    return ("Read", {"file_path": f"{HOME}/{name}", "limit": lines})


def try_fetch(url):
    """A call that finds out whether a page can be reached."""
    program = f"import urllib.request as u; print(u.urlopen('{url}', timeout=4).status)"
    return run(f'python3 -c "{program}" 2>&1 | tail -n 1', f"Try to reach {url}")


# --- the scripts ---------------------------------------------------------------------------------


def companies():
    """Scrape the top 50 YC companies and save as CSV."""
    return [
        Step("I'll see first whether the site can be reached.", (try_fetch("https://www.ycombinator.com/companies"),)),
        Step(
            "It can't: this sandbox has no internet. I'll build the CSV from sample data instead and label it as such. "
            "First a program that makes the file.",
            (write("make_companies.py"),),
        ),
        Step(calls=(run("python3 make_companies.py", "Make companies.csv"),)),
        Step(calls=(read("companies.csv", 6),)),
        Step("Now a check by a program of its own.", (write("check_companies.py"),)),
        Step(calls=(run("python3 check_companies.py companies.csv", "Check companies.csv"),)),
        Step(
            "companies.csv holds 50 rows of **sample data** (well-known names from memory, marked `sample` in the "
            "column `source`; nothing was scraped, and the order is no ranking). The check said:\n\n{last_result}"
        ),
    ]


def dependencies():
    """Analyze Python dependency security for requests==2.31.0."""
    return [
        Step("I'll look at the Python of this sandbox.", (run("python3 --version && id -un && pwd", "Look around"),)),
        Step(
            "There is no package index to ask, so I'll analyse offline: the dependency ranges that requests 2.31.0 "
            "declares against a small sample list of advisories.",
            (write("advisories.json"), write("audit.py")),
        ),
        Step(calls=(run("python3 audit.py requests 2.31.0", "Audit the dependency tree"),)),
        Step(calls=(read("report.md", 40),)),
        Step(
            "I wrote report.json and report.md. The advisories are a **sample list** shipped with this demo, not a "
            "live database, so absence from it proves nothing. Upgrading to requests 2.32.4 or later clears both "
            "findings against requests itself."
        ),
    ]


def papers():
    """Fetch today's arxiv papers on LLM agents and write a summary."""
    return [
        Step("I'll try the arXiv API.", (try_fetch("https://export.arxiv.org/api/query?search_query=all:agents"),)),
        Step(
            "No internet here. I'll work on a sample of invented abstracts, labelled as invented, so that the method "
            "can be seen.",
            (write("papers.json"),),
        ),
        Step("Now a program that ranks them by topic and writes the summary.", (write("summarize.py"),)),
        Step(calls=(run("python3 summarize.py papers.json summary.md", "Write summary.md"),)),
        Step(calls=(run("wc -w summary.md && head -n 12 summary.md", "Check the summary"),)),
        Step("summary.md is written, from **invented sample abstracts**. Its head:\n\n{last_result}"),
    ]


def parks():
    """Build a SQLite DB of US national parks from NPS.gov."""
    return [
        Step("I'll check whether NPS.gov can be reached.", (try_fetch("https://www.nps.gov/"),)),
        Step("It can't, so I'll use a sample of parks and mark it as sample data.", (write("build_parks.py"),)),
        Step(calls=(run("python3 build_parks.py parks.db", "Build parks.db"),)),
        Step("Now some queries against the file.", (write("query_parks.py"),)),
        Step(calls=(run("python3 query_parks.py parks.db", "Query parks.db"),)),
        Step(
            "parks.db is a SQLite database with **sample data** (not fetched from NPS.gov; the table `about` says so "
            "too). The queries said:\n\n{last_result}"
        ),
    ]


def generic():
    """Any other prompt."""
    return [
        Step("I'll say so from a shell.", (run("echo scripted model, real shell in $PWD", "Say hello"),)),
        Step("No script knows this prompt, so I only ran one command. It said: {last_result}"),
    ]


# A piece of the prompt, in lower case, and its script.
SCRIPTS = (
    ("yc companies", companies),
    ("requests==2.31.0", dependencies),
    ("arxiv papers", papers),
    ("national parks", parks),
)


def carried_script(text):
    """The script that a prompt brings along; a script that cannot be read is one step that says why."""
    try:
        steps, _ = json.JSONDecoder().raw_decode(text.lstrip())
        return [Step(**{**step, "calls": tuple(map(tuple, step.get("calls", ())))}) for step in steps]
    except (ValueError, TypeError, AttributeError) as error:
        return [Step(f"The script in the prompt cannot be read: {error}")]


def script_for(prompt):
    """The steps to play for a prompt."""
    _, mark, carried = prompt.partition(SCRIPT_MARK)
    if mark:
        return carried_script(carried)
    return next((script for piece, script in SCRIPTS if piece in prompt.lower()), generic)()
