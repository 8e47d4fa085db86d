"""The Debian package: sound for lintian, complete, with what it needs, and what is in it runs."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*words: object) -> str:
    """What a program prints; it must succeed."""
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module", name="deb")
def fixture_deb() -> pathlib.Path:
    """The package that `make deb` built."""
    return next((ROOT / "build/deb").glob("sandstorm_*.deb"))


@pytest.fixture(scope="module", name="tree")
def fixture_tree(deb, tmp_path_factory) -> pathlib.Path:
    """What is in it."""
    tree = tmp_path_factory.mktemp("tree")
    run("dpkg-deb", "-x", deb, tree)
    return tree


def test_lintian_finds_no_fault(deb):
    changes = next(deb.parent.glob("sandstorm_*.changes"))
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", changes) == ""


def test_the_version_is_the_programs(deb, tree):
    assert run(tree / "usr/bin/sandstorm", "--version") == f"sandstorm {run('dpkg-deb', '-f', deb, 'Version').strip()}\n"


def test_dependencies_are_declared(deb):
    depends = run("dpkg-deb", "-f", deb, "Depends")
    for name in ("libcurl4", "libevent-2.1-7", "libjansson4", "libseccomp2", "libssl3", "zlib1g", "ca-certificates",
                 "systemd"):  # fmt: skip
        assert re.search(rf"(^|[ |]){re.escape(name)}\b", depends), f"{name} is not in {depends}"
    assert "bubblewrap" in run("dpkg-deb", "-f", deb, "Recommends")


def test_settings_are_conffiles_and_keys_are_guarded(deb, tree):
    conffiles = run("dpkg-deb", "-I", deb, "conffiles").split()
    ours = [f"/etc/sandstorm/sandstorm.{kind}" for kind in ("conf", "env", "json")]
    assert sorted(conffiles) == sorted(["/etc/logrotate.d/sandstorm", *ours])
    assert (tree / "etc/sandstorm/sandstorm.env").stat().st_mode & 0o777 == 0o640


def test_the_user_comes_before_its_files_and_those_before_the_start(deb):
    script = run("dpkg-deb", "-I", deb, "postinst")
    steps = [script.index(step) for step in ("systemd-sysusers", "systemd-tmpfiles", "deb-systemd-invoke start",
                                             "-USR2")]  # fmt: skip
    assert steps == sorted(steps)


def test_an_upgrade_does_not_stop_the_server(deb):
    script = run("dpkg-deb", "-I", deb, "prerm")
    stopped = re.findall(r"invoke stop '?sandstorm\.(\w+)", script)
    assert stopped == ["socket", "service"]
    for unit in stopped:
        before = re.split(rf"invoke stop '?sandstorm\.{unit}", script)[0]
        assert '"$1" = remove' in before.rsplit("\nif ", 1)[1]


def test_the_sandboxes_of_the_package_work(tree):
    assert "this machine can run sandboxes" in run(tree / "usr/libexec/sandstorm/sandboxd", "--check")
