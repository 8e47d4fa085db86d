"""What the guides of section 7, the other manuals and README.md refer to exists; what must be told is told."""

import json
import pathlib
import re
import subprocess

import pytest
from test_documents import PROGRAM, ROOT, settings

PAGES = sorted((ROOT / "man").iterdir())
GUIDES = [page for page in PAGES if page.suffix == ".7"]
SYSTEM = {("apt-get", "8")}
OURS = {(page.stem, page.suffix[1:]) for page in PAGES}
SOURCES = [path for folder in ("common", "master", "worker", "cli") for path in sorted((ROOT / folder).glob("*.[ch]"))]


def by_name(pages: list[pathlib.Path]):
    """Runs a test with each page."""
    return pytest.mark.parametrize("page", pages, ids=[page.name for page in pages])


def section(page: str, begin: str, end: str) -> str:
    """A part of a page of section 7."""
    text = (ROOT / "man" / page).read_text()
    return text[text.index(f"\n.Sh {begin}\n") : text.index(f"\n.Sh {end}\n")]


@by_name(PAGES)
def test_links_lead_to_pages_of_ours(page):
    found = re.findall(r"\bXr (\S+) (\d)", page.read_text())
    assert found
    assert not [link for link in found if link not in OURS | SYSTEM]
    assert (page.stem, page.suffix[1:]) not in found, "a link to itself"


@by_name(GUIDES)
def test_a_guide_is_listed(page):
    """By the server's manual, by the first guide, and by README.md."""
    name = page.stem
    assert f".Xr {name} 7" in (ROOT / "man/sandstorm.8").read_text().split(".Sh SEE ALSO")[1]
    assert name == "sandstorm-guide" or f".It Xr {name} 7" in (ROOT / "man/sandstorm-guide.7").read_text()
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if "`sandstorm-guide(7)`" in line)
    assert f"-{name.removeprefix('sandstorm-')}(7)" in row


def test_what_the_readme_refers_to_is_there():
    found = re.findall(r"`([a-z][a-z0-9.-]*)\((\d)\)`", (ROOT / "README.md").read_text())
    assert len(found) > 10
    assert not [link for link in found if link not in OURS]


@by_name(GUIDES)
def test_settings_that_a_guide_names_exist(page):
    """A word with an underscore behind Ic is a setting, as is every other that balancers' examples do not have."""
    known = settings()
    named = {word for row in re.findall(r"\bIc (.*)$", page.read_text(), re.MULTILINE) for word in re.findall(r"[a-z0-9_.-]+", row)}
    named = {word for word in named if "_" in word or word in ("user", "instance", "template", "network", "timeout")}
    assert not named - set(known)


@by_name(GUIDES)
def test_variables_that_a_guide_names_are_read(page):
    """By the server or by ds; a setting's variable is made of its name."""
    source = "".join(path.read_text() for path in SOURCES)
    named = {word for row in re.findall(r"^\.It? ?Ev (.*)$|^\.Ev (\S+)", page.read_text(), re.MULTILINE)
             for word in re.findall(r"[A-Z][A-Z0-9_]+", " ".join(row))}  # fmt: skip
    of_settings = {f"SANDSTORM_{key.upper()}" for key in settings()}
    assert not [name for name in named - of_settings if f'"{name}"' not in source]


def test_the_guide_of_the_api_has_every_route():
    text = section("sandstorm-api.7", "ROUTES", "REQUEST")
    routes = [tuple(row.split()) for row in re.findall(r"^\.It Li (.*)$", text, re.MULTILINE)]
    assert len(routes) == len(set(routes))
    described = json.loads((ROOT / "worker/pages/openapi.json").read_text())["paths"]
    assert set(routes) == {(method.upper(), path) for path, methods in described.items() for method in methods}


def test_the_guide_of_the_api_has_every_code():
    text = section("sandstorm-api.7", "REFUSALS AND FAULTS", "EXAMPLES")
    told = {word for row in re.findall(r"^\.It Li (.*)$", text, re.MULTILINE) for word in re.findall(r"[a-z]\w+", row)}
    assert told == set(re.findall(r'= "([a-z]\w+)"', (ROOT / "worker/run_error.c").read_text()))


def test_the_guide_of_schedules_has_every_shorthand():
    text = (ROOT / "man/sandstorm-triggers.7").read_text()
    shorthands = re.findall(r'\{"(@\w+)"', (ROOT / "common/cron.c").read_text())
    assert len(shorthands) == 7
    assert re.findall(r"^\.Ql (@\w+)", text, re.MULTILINE) == shorthands


def test_ds_check_takes_the_words_of_the_guides():
    """Commands that are shown without being run are commands."""
    shown = {word for page in GUIDES for word in re.findall(r"^\.Dl \$ ds (\w+)", page.read_text(), re.MULTILINE)}
    told = subprocess.run([PROGRAM.parent / "ds", "--help"], capture_output=True, text=True, check=True).stdout
    assert shown
    assert not shown - set(re.findall(r"^  ([a-z]+) ", told, re.MULTILINE))
