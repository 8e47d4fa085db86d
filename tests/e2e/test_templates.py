"""sandboxd template: what is built from npm packages, Debian packages and files, and what a sandbox sees of it."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from harness import procfs
from sandboxd_client import BUILD, REPOSITORY, SLOW, wait_for

LOCK_FILES = ("package.json", "package-lock.json", ".npmrc")
SDK = "node_modules/@anthropic-ai"

# Counts its calls, installs a private file and a package for musl; fails or waits when told to.
FAKE_NPM = f"""#!/bin/sh
echo "$@" >>"$NPM_CALLS"
mkdir -p {SDK}/claude-agent-sdk {SDK}/claude-agent-sdk-linux-x64-musl
[ -z "$NPM_FAILS" ] || exit 1
[ -z "$NPM_WAITS" ] || exec sleep 1000
echo "{{}}" >{SDK}/claude-agent-sdk/package.json
chmod 600 {SDK}/claude-agent-sdk/package.json
"""


class Workshop:
    """A template directory, and what is needed to build into it."""

    def __init__(self, folder: Path, program: Path = BUILD / "sandboxd", prefix=()):
        self.folder, self.program, self.prefix = folder, program, prefix
        self.templates = folder / "templates"
        self.calls = folder / "calls"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder)}

    def fake_npm(self):
        """From here on npm is the fake one, and lock() a folder of pins for it."""
        (self.folder / "bin").mkdir()
        npm = self.folder / "bin/npm"
        npm.write_text(FAKE_NPM)
        npm.chmod(0o755)
        self.env |= {"PATH": f"{npm.parent}:{self.env['PATH']}", "NPM_CALLS": str(self.calls)}
        self.lock = self.folder / "agent"
        self.lock.mkdir()
        for name in LOCK_FILES:
            shutil.copy(REPOSITORY / "agent" / name, self.lock)
        return self

    def command(self, *args) -> list:
        return [*self.prefix, self.program, "template", *args, "--template-dir", self.templates]

    def run(self, *args, **env) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*args), env=self.env | env, cwd=self.folder, capture_output=True, text=True, timeout=60 * SLOW
        )

    def build(self, *args, **env) -> Path:
        """A build that must work, and leave nothing but the template."""
        done = self.run("build", *args, **env)
        assert done.returncode == 0, done.stderr
        assert self.leftovers == []
        return self.templates / args[0]

    def build_pinned(self, **env) -> subprocess.CompletedProcess:
        return self.run("build", "sandstorm", "--npm-lock", self.lock, **env)

    def fails(self, *args, code=1, **env) -> str:
        """What a build says that must fail and leave nothing."""
        done = self.run("build", *args, **env)
        assert done.returncode == code, done
        assert self.leftovers == []
        return done.stderr

    @property
    def leftovers(self) -> list[str]:
        """Hidden things beside the templates, but for locks."""
        if not self.templates.exists():
            return []
        return [name for name in os.listdir(self.templates) if name.startswith(".") and not name.endswith(".lock")]

    @property
    def npm_calls(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def workshop(folder):
    return Workshop(folder)


@pytest.fixture(params=["root", "ordinary user"])
def anyones(request, folder):
    """A workshop of root's, and one of an ordinary user's, with the daemon's wishes to match."""
    if request.param == "root":
        if os.geteuid() != 0:
            pytest.skip("not root")
        return Workshop(folder), {}
    if os.geteuid() != 0:
        return Workshop(folder), {}
    own = folder / "own"
    own.mkdir()
    for name in ("sandboxd", "sandbox-init"):
        shutil.copy(BUILD / name, own)
    os.chown(own, 65534, 65534)
    for path in (folder, *(path for path in folder.parents if path.name.startswith(("pytest-", "popen-")))):
        path.chmod(0o755)
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    how = {"prefix": user, "program": own / "sandboxd", "owner": 65534}
    return Workshop(own, own / "sandboxd", user), how


def tgz(path: Path, files: dict[str, str]) -> Path:
    """An npm package as a file."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def deb(folder: Path, name: str, control: str, files: dict[str, str], links: dict[str, str] | None = None):
    """Builds a Debian package into the repository folder; its entry of the index."""
    root = folder / f"tree-{name}"
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o4755 if "bin/" in path else 0o600)
    for path, target in (links or {}).items():
        (root / path).symlink_to(target)
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@localhost>\n{control}Description: test\n"
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(control)
    file = folder / f"{name}_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, file], check=True, capture_output=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{control}Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n\n"


@pytest.fixture
def greetings(folder):
    """Settings of apt for a repository of two packages, the first of which needs the other."""
    repository = folder / "repository"
    repository.mkdir()
    program = "#!/bin/sh\ncat /usr/share/greet/text /etc/greet/conf\n"
    index = deb(repository, "greet", "Depends: greet-data\n", {"usr/bin/greet": program, "bin/greet-too": program})
    index += deb(
        repository,
        "greet-data",
        "",
        {"usr/share/greet/text": "hello ", "etc/greet/conf": "world\n", "etc/passwd": "evil\n", "var/lib/greet/x": ""},
        {"usr/share/greet/out": "/tmp"},
    )
    (repository / "Packages").write_text(index)
    (folder / "sources").write_text(f"deb [trusted=yes] copy:{repository} ./\n")
    config = folder / "apt.conf"
    for name in ("lists", "cache"):
        (folder / name).mkdir()
    config.write_text(f'Dir::Etc::sourcelist "{folder}/sources";\nDir::Etc::sourceparts "-";\n'
                      f'Dir::State::lists "{folder}/lists";\nDir::Cache "{folder}/cache";\nAPT::Sandbox::User "root";\n')  # fmt: skip
    settings = {"APT_CONFIG": str(config)}
    subprocess.run(["apt-get", "-qq", "update"], check=True, env=os.environ | settings, capture_output=True)
    for path in (folder / "lists").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return settings


# --- what a sandbox sees ---


def test_a_sandbox_sees_all_parts_of_its_template(anyones, greetings, start_daemon):
    workshop, how = anyones
    package = tgz(workshop.folder / "thing.tgz", {"package.json": '{"name": "thing", "version": "1.2.3"}', "index.js": "module.exports = 7"})
    tools = workshop.folder / "tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin/run").write_text("#!/bin/sh\necho ran\n")
    (tools / "bin/run").chmod(0o700)
    if how:
        subprocess.run(["chown", "-R", "65534:65534", tools, package], check=True)
    workshop.build("mine", "--npm", package, "--apt", "greet", "--file", f"{tools}:/opt/tools",
                   "--file", f"{tools}/bin/run:/usr/local/bin/run-it", **greetings)  # fmt: skip
    daemon = start_daemon("--template-dir", workshop.templates, **how)
    mine, base = daemon.create(templateID="mine"), daemon.create()
    assert mine.text("greet && greet-too && /bin/greet-too") == "hello world\n" * 3
    assert mine.text("/opt/tools/bin/run && run-it") == "ran\nran\n"
    assert json.loads(mine.text("cat /opt/agent-runner/node_modules/thing/package.json"))["version"] == "1.2.3"
    assert mine.text("id -un; ls /usr/bin/env") == "user\n/usr/bin/env\n"
    mine.upload({"/opt/agent-runner/runner.mjs": b"x"})
    assert base.run("greet").end["exitCode"] == 127 and base.run("ls /opt/tools").end["exitCode"] == 2
    for path in ("/usr/bin/new", "/usr/share/greet/text", "/etc/greet/conf", "/etc/new", "/opt/tools/new"):
        assert mine.run(f"echo x >{path}").end["exitCode"] == 1, path


def test_a_template_gives_no_more_rights_and_nothing_of_the_sandboxs_own(workshop, greetings):
    root = workshop.build("mine", "--apt", "greet", **greetings) / "root"
    assert sorted(path.name for path in root.iterdir()) == ["etc", "usr"]
    assert [path.name for path in (root / "etc").iterdir()] == ["greet"]
    assert (root / "usr/bin/greet").stat().st_mode & 0o7777 == 0o755
    assert (root / "etc/greet/conf").stat().st_mode & 0o7777 == 0o644
    assert {path.lstat().st_uid for path in root.rglob("*")} == {os.geteuid()}
    assert not (root / "usr/lib64").exists()


def test_a_create_knows_the_template_from_its_build_to_its_removal(workshop, start_daemon):
    source = workshop.folder / "f"
    source.write_text("1")
    workshop.templates.mkdir()
    daemon = start_daemon("--template-dir", workshop.templates)

    def create():
        return daemon.post("/sandboxes", {"templateID": "mine", "timeout": 60})

    assert create().json == {"code": 404, "message": "template 'mine' not found"}
    workshop.build("mine", "--file", f"{source}:/opt/f")
    assert create().status == 201
    assert workshop.run("remove", "mine").returncode == 0
    assert create().status == 404
    assert workshop.leftovers == [] and not (workshop.templates / "mine").exists()
    again = workshop.run("remove", "mine")
    assert (again.returncode, again.stderr) == (1, "sandboxd: there is no template mine to be removed\n")


def test_a_template_is_never_missing_while_it_is_replaced(workshop):
    source = workshop.folder / "f"
    source.write_text("1")
    template = workshop.build("mine", "--file", f"{source}:/opt/f")
    ended, missing = threading.Event(), threading.Event()

    def look():
        while not ended.is_set():
            if not template.exists():
                missing.set()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(10):
            workshop.build("mine", "--file", f"{source}:/opt/f")
    finally:
        ended.set()
        looker.join()
    assert not missing.is_set()


def test_the_list_says_what_each_is_made_of(workshop, greetings):
    assert workshop.build("mine", "--apt", "greet=1.0", **greetings)
    machine = " ".join((os.uname().sysname, os.uname().machine))
    assert workshop.run("list").stdout == (
        f"mine\n  machine {machine}\n  apt greet=1.0\n  unpacked greet-data_1.0_all.deb\n  unpacked greet_1.0_all.deb\n"
        "base\n  nothing: this machine's /usr\n"
    )


# --- npm's lock file ---


def test_pins_are_installed_for_every_uid_to_read_without_packages_for_musl(workshop):
    workshop.fake_npm()
    assert workshop.build_pinned().returncode == 0
    assert [call.split()[0] for call in workshop.npm_calls] == ["ci"]
    template = workshop.templates / "sandstorm"
    assert os.listdir(template / SDK) == ["claude-agent-sdk"]
    assert (template / SDK / "claude-agent-sdk/package.json").stat().st_mode & 0o777 == 0o644
    assert template.stat().st_mode & 0o777 == 0o755
    assert workshop.leftovers == []


def test_the_agents_template_needs_no_options(workshop):
    template = workshop.fake_npm().build("sandstorm")
    for name in LOCK_FILES:
        assert (template / name).read_bytes() == (REPOSITORY / "agent" / name).read_bytes()


def test_nothing_is_done_until_the_pins_change(workshop):
    workshop.fake_npm().build_pinned()
    assert "is up to date" in workshop.build_pinned().stdout
    assert len(workshop.npm_calls) == 1
    (workshop.lock / "package-lock.json").write_text("{}")
    assert "is built" in workshop.build_pinned().stdout
    assert len(workshop.npm_calls) == 2
    assert workshop.leftovers == []


def test_a_failed_build_leaves_the_old_template_and_nothing_else(workshop):
    workshop.fake_npm().build_pinned()
    (workshop.lock / "package-lock.json").write_text("{}")
    failed = workshop.build_pinned(NPM_FAILS="1")
    assert failed.returncode == 1
    assert "npm failed with exit status 1" in failed.stderr and "was not built" in failed.stderr
    assert (workshop.templates / "sandstorm" / SDK / "claude-agent-sdk/package.json").exists()
    assert workshop.leftovers == []


def test_several_at_once_build_once(workshop):
    workshop.fake_npm()
    builds = [
        subprocess.Popen(workshop.command("build", "sandstorm", "--npm-lock", workshop.lock), env=workshop.env, stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [build.wait(30 * SLOW) for build in builds] == [0, 0, 0]
    assert len(workshop.npm_calls) == 1
    assert workshop.leftovers == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_build_and_leaves_nothing(workshop, number):
    workshop.fake_npm()
    command = workshop.command("build", "sandstorm", "--npm-lock", workshop.lock)
    build = subprocess.Popen(command, env=workshop.env | {"NPM_WAITS": "1"}, stderr=subprocess.PIPE, text=True)
    npm = wait_for(lambda: [pid for pid in procfs.children(build.pid) if "sleep" in procfs.command(pid)], "npm")[0]
    build.send_signal(number)
    assert build.wait(10 * SLOW) == 1
    assert "interrupted" in build.stderr.read()
    build.stderr.close()
    assert not procfs.is_alive(npm)
    assert os.listdir(workshop.templates) == [".sandstorm.lock"]


def test_what_a_killed_build_left_is_cleared_by_the_next(workshop):
    workshop.fake_npm()
    locked = workshop.templates / ".sandstorm.new.abc123/template/node_modules"
    locked.mkdir(parents=True)
    locked.chmod(0)
    assert workshop.build_pinned().returncode == 0
    assert workshop.leftovers == []


def test_a_missing_program_is_said_so(workshop):
    workshop.fake_npm()
    (workshop.folder / "bin/npm").unlink()
    (workshop.folder / "bin/cp").symlink_to("/usr/bin/cp")
    said = workshop.fails("sandstorm", "--npm-lock", workshop.lock, PATH=str(workshop.folder / "bin"))
    assert "sandboxd: npm: no such program in PATH" in said


# --- errors ---


def test_an_unknown_debian_package_is_said_so(workshop, greetings):
    said = workshop.fails("mine", "--apt", "no-such-package", **greetings)
    assert "Unable to locate package no-such-package" in said and "apt-get update" in said


def test_a_file_does_not_leave_the_template_by_a_link_of_a_package(workshop, greetings):
    """The package's link leads to /tmp, which is the host's while the template is built."""
    source = workshop.folder / f"stray-{os.getpid()}"
    source.write_text("x")
    said = workshop.fails("mine", "--apt", "greet", "--file", f"{source}:/usr/share/greet/out/{source.name}", **greetings)
    assert "Read-only file system" in said
    assert not Path("/tmp", source.name).exists()


def test_a_file_replaces_nothing(workshop, greetings):
    source = workshop.folder / "f"
    source.write_text("x")
    said = workshop.fails("mine", "--apt", "greet", "--file", f"{source}:/usr/bin/greet", **greetings)
    assert "/usr/bin/greet is there already" in said


def test_a_device_is_no_part_of_a_template(workshop):
    source = workshop.folder / "fifos"
    source.mkdir()
    os.mkfifo(source / "pipe")
    assert "pipe is neither a file, a folder nor a symbolic link" in workshop.fails("mine", "--file", f"{source}:/opt/f")


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("bake", "x"),
        ("build",),
        ("build", "x"),
        ("build", "x", "y", "--npm", "a@1.0.0"),
        ("build", "Upper", "--npm", "a@1.0.0"),
        ("build", "../x", "--npm", "a@1.0.0"),
        ("build", ".x", "--npm", "a@1.0.0"),
        ("build", "x", "--npm", "a"),
        ("build", "x", "--npm", "a@latest"),
        ("build", "x", "--npm", "a@^1.0.0"),
        ("build", "x", "--npm", "a@1.0"),
        ("build", "x", "--npm", "@scope@1.0.0"),
        ("build", "x", "--npm", "--global@1.0.0"),
        ("build", "x", "--npm", "no-such-file.tgz"),
        ("build", "x", "--npm-lock", "/no/such/folder"),
        ("build", "x", "--apt", "--reinstall"),
        ("build", "x", "--apt", "bash-"),
        ("build", "x", "--apt", "bash/testing"),
        ("build", "x", "--apt", "./x.deb"),
        ("build", "x", "--apt", "bash="),
        ("build", "x", "--file", "/etc/hostname"),
        ("build", "x", "--file", "/etc/hostname:relative"),
        ("build", "x", "--file", "/etc/hostname:/home/user/x"),
        ("build", "x", "--file", "/etc/hostname:/opt/../home/x"),
        ("build", "x", "--file", "/etc/hostname:/etc/passwd"),
        ("build", "x", "--file", "/etc/hostname:/opt/agent-runner/x"),
        ("build", "x", "--file", "/no/such/file:/opt/x"),
        ("build", "x", "--bogus"),
        ("list", "x"),
        ("list", "--apt", "jq"),
        ("remove",),
        ("remove", "x", "y"),
    ],
)
def test_a_wrong_command_line_builds_nothing(workshop, args):
    done = subprocess.run([BUILD / "sandboxd", "template", *args, "--template-dir", workshop.templates], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("sandboxd: "), done
    assert not workshop.templates.exists()


def test_help_names_every_option(workshop):
    done = workshop.run("--help")
    assert done.returncode == 0
    for option in ("--npm ", "--npm-lock ", "--apt ", "--file ", "--template-dir "):
        assert option in done.stdout
