"""The documents name exactly the settings of the table, with its defaults."""

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("SANDSTORM_BUILD", "build") / "sandstorm"


def settings() -> list[str]:
    """The keys, from the program itself."""
    text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    keys = re.findall(r"^  --([a-z-]+) {2,}", text[text.index("Settings") :], re.MULTILINE)
    assert len(keys) > 20
    return [key.replace("-", "_") for key in keys]


def test_the_settings_file_names_every_setting_once():
    text = (ROOT / "etc/sandstorm.conf").read_text()
    assert re.findall(r"^# ([a-z_]+) =", text, re.MULTILINE) == settings()


def test_the_defaults_in_the_settings_file_are_the_programs_own(tmp_path):
    text = (ROOT / "etc/sandstorm.conf").read_text()
    given = tmp_path / "all.conf"
    given.write_text(re.sub(r"^# ([a-z_]+ = \S.*)$", r"\1", text, flags=re.MULTILINE))

    def values(*args: str) -> list[str]:
        command = [PROGRAM, "--check", *args]
        env = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "x", "E2B_API_KEY": "e2b_0"}
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        return re.findall(r"^([a-z_]+ = .*?) +# ", text, re.MULTILINE)

    assert values("--config", str(given)) == values()


def test_the_readme_names_every_setting_once():
    text = (ROOT / "README.md").read_text()
    rows = text[text.index("| setting | default |") : text.index("| variable | meaning |")]
    assert re.findall(r"^\| `([a-z_]+)` \|", rows, re.MULTILINE) == settings()
