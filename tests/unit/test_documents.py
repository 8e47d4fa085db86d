"""The documents name exactly the settings of the table, with its defaults."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("SANDSTORM_BUILD", "build") / "sandstorm"


def settings() -> list[str]:
    """The keys, from the program itself."""
    text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    keys = re.findall(r"^  --([a-z0-9-]+) {2,}", text[text.index("Settings") :], re.MULTILINE)
    assert len(keys) > 20
    return [key.replace("-", "_") for key in keys]


def help_defaults() -> dict[str, str]:
    """The defaults that --help shows."""
    text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    shown = re.findall(r"^  --([a-z0-9-]+) .* \[([^]]*)\]$", text[text.index("Settings") :], re.MULTILINE)
    assert len(shown) > 20
    return {key.replace("-", "_"): value for key, value in shown}


def test_the_settings_file_names_every_setting_once():
    text = (ROOT / "etc/sandstorm.conf").read_text()
    assert re.findall(r"^# ([a-z0-9_]+) =", text, re.MULTILINE) == settings()


def test_the_defaults_in_the_settings_file_are_the_programs_own(tmp_path):
    text = (ROOT / "etc/sandstorm.conf").read_text()
    given = tmp_path / "all.conf"
    given.write_text(re.sub(r"^# ([a-z0-9_]+ = \S.*)$", r"\1", text, flags=re.MULTILINE))

    def values(*args: str) -> list[str]:
        command = [PROGRAM, "--check", *args]
        env = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "x", "E2B_API_KEY": "e2b_0"}
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        return re.findall(r"^([a-z0-9_]+ = .*?) +# ", text, re.MULTILINE)

    assert values("--config", str(given)) == values()


def manual_entries() -> dict[str, str]:
    """What sandstorm.conf(5) says of each setting, in its order."""
    text = (ROOT / "man/sandstorm.conf.5").read_text()
    text = text[text.index(".Sh SETTINGS") : text.index(".Sh FILES")]
    found = re.findall(r"^\.It Ic ([a-z0-9_]+) Ar .*\n((?:(?!\.It |\.El).*\n)*)", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "a setting is described twice"
    return dict(found)


def test_the_manual_describes_every_setting_with_its_default():
    entries = manual_entries()
    assert list(entries) == settings()
    shown = {key: re.findall(r"^Default:\n\.Ql (.*) \.$", text, re.MULTILINE) for key, text in entries.items()}
    assert {key: values[0] for key, values in shown.items() if values} == help_defaults()
    assert all("Default:" in text for text in entries.values())


def test_the_manual_says_what_a_reload_cannot_change():
    table = (ROOT / "common/settings_table.c").read_text()
    fixed = re.findall(r'^    \{"([a-z0-9_]+)", TYPE_[A-Z]+, FIXED,', table, re.MULTILINE)
    assert [key for key, text in manual_entries().items() if "Needs a restart." in text] == fixed
    caveat = (ROOT / "man/sandstorm.8").read_text().split("A local runtime is started with the server")[1]
    assert sorted(re.findall(r"^\.Ic ([a-z0-9_]+)", caveat, re.MULTILINE)) == sorted(fixed)


@pytest.mark.parametrize(("command", "begin", "least"), [((), "DESCRIPTION", 10), (("template",), "TEMPLATES", 4)])
def test_the_manual_of_sandboxd_describes_every_option(command, begin, least):
    help_command = [PROGRAM.parent / "sandboxd", *command, "--help"]
    text = subprocess.run(help_command, capture_output=True, text=True, check=True).stdout
    options = re.findall(r"^  --([a-z0-9-]+)", text, re.MULTILINE)
    manual = (ROOT / "man/sandboxd.8").read_text()
    section = manual[manual.index(f".Sh {begin}\n") :]
    section = section[: section.index("\n.Sh ")]
    assert len(options) > least
    assert re.findall(r"^\.It Fl Fl ([a-z0-9-]+)", section, re.MULTILINE) == options
    for option in options:
        assert f"Fl Fl {option}" in manual[: manual.index(".Sh DESCRIPTION")], f"--{option} is not in the synopsis"


def test_the_manuals_are_sound():
    """Not a word of complaint. mandoc looks for what they refer to among the installed ones: ours need not be there."""
    pages = sorted((ROOT / "man").iterdir())
    lint = subprocess.run(["mandoc", "-T", "lint", *pages], capture_output=True, text=True, check=False)
    known = "|".join(re.escape(f"{page.stem} {page.suffix[1:]}") for page in pages)
    ignored = re.compile(rf"referenced manual not found: Xr ({known})( \(\d times\))?$|outdated mandoc\.db")
    assert len(pages) == 12
    assert [line for line in (lint.stdout + lint.stderr).splitlines() if not ignored.search(line)] == []


def test_the_readme_names_every_setting_once():
    text = (ROOT / "README.md").read_text()
    rows = text[text.index("| setting | default |") : text.index("| variable | meaning |")]
    assert re.findall(r"^\| `([a-z0-9_]+)` \|", rows, re.MULTILINE) == settings()


DS_COMMANDS = ["query", "runs", "show", "cancel", "status", "replay", "doctor", "template", "init", "add", "trigger", "webhook",
               "serve", "check"]  # fmt: skip
# Options of all commands that ask a server: the manual has them once.
DS_SERVER_OPTIONS = ["server", "api-key", "ca-file", "cert", "key"]


def ds_help(*words: str) -> str:
    """What ds says of itself."""
    return subprocess.run([PROGRAM.parent / "ds", *words, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_manual_of_ds_has_every_command():
    assert re.findall(r"^  (?!ds )([a-z]+) ", ds_help(), re.MULTILINE) == DS_COMMANDS
    text = (ROOT / "man/ds.1").read_text()
    assert re.findall(r"^\.Ss ([a-z]+)$", text, re.MULTILINE) == DS_COMMANDS


@pytest.mark.parametrize("command", DS_COMMANDS)
def test_the_manual_and_the_completion_have_every_option_of_ds(command):
    told = [name for row in re.findall(r"^ +(-.*?)(?:  |$)", ds_help(command), re.MULTILINE) for name in re.findall(r"--([a-z0-9-]+)", row)]
    manual = (ROOT / "man/ds.1").read_text()
    section = re.search(rf"^\.Ss {command}\n(.*?)^\.S[sh] ", manual, re.MULTILINE | re.DOTALL)[1]
    own = [name for name in told if name not in DS_SERVER_OPTIONS]
    for name in own:
        assert re.search(rf"Fl Fl {name}\b", section), f"--{name} of {command} is not in its section"
    completion = (ROOT / "cli/completion/ds.bash").read_text()
    entry = re.search(rf"^ +{command}\) (.*?)$|^ +{command}\)\n(.*?);;", completion, re.MULTILINE | re.DOTALL)
    entry = entry[1] or entry[2]
    assert not [name for name in own if f"--{name}" not in entry]
    assert ("$server" in entry) == ("server" in told)
