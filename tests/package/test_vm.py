"""The package on a booted Debian 12: installed by apt, run by systemd, reloaded, upgraded, killed, purged.

The tests share one machine and build on one another: they run in the order of this file.
"""

import asyncio
import base64
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import versions
from harness.asking import asking
from harness.client import new_client, open_query, query, script
from harness.running import running_double
from harness.server import refuses
from harness.waiting import eventually, eventually_async
from machine import Machine

ROOT = Path(__file__).resolve().parents[2]
CONF = "/etc/sandstorm/sandstorm.conf"
ENV = "/etc/sandstorm/sandstorm.env"
DROP_INS = "/etc/systemd/system/sandstorm.service.d"
WATCHDOG_SECONDS = 3
OWN = re.search(r"^VERSION *:= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
AGENT_STEPS = [{"text": "Now", "calls": [["Bash", {"command": "echo made >made.txt"}]]}, {"text": "Done"}]

pytestmark = pytest.mark.timeout(300)


class Service:
    """sandstorm.service on a machine, as an operator sees it."""

    url = "http://127.0.0.1:8000"
    port = 8000

    def __init__(self, machine: Machine):
        self.machine = machine

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.machine.run(f"systemctl show --property={name} --value sandstorm").stdout.strip()

    @property
    def main_pid(self) -> int:
        """The master, as the machine numbers it."""
        return int(self.show("MainPID"))

    def workers(self) -> list[dict]:
        """Those that serve."""
        status = self.machine.run(f"sandstorm status --json --config {CONF}", check=False)
        workers = json.loads(status.stdout)["workers"] if status.returncode == 0 else []
        return [worker for worker in workers if worker["state"] == "serving"]

    def generation(self) -> int:
        """The newest generation of workers that serves; 0 when none does."""
        return max((worker["generation"] for worker in self.workers()), default=0)

    def is_newer(self, generation: int) -> bool:
        """Whether workers serve, and only newer ones: for a moment the old ones serve beside them."""
        generations = {worker["generation"] for worker in self.workers()}
        return min(generations, default=0) > generation

    def reload(self) -> None:
        """systemctl reload, until new workers serve."""
        before = self.generation()
        self.machine.run("systemctl reload sandstorm")
        eventually(lambda: self.is_newer(before), 20, "the next generation")

    def restart(self) -> None:
        """systemctl restart, which waits until it is ready."""
        self.machine.run("systemctl daemon-reload && systemctl restart sandstorm")

    def log(self) -> str:
        """The journal of the unit."""
        return self.machine.run("journalctl --no-pager --output=cat --unit=sandstorm").stdout

    def wait_log(self, text: str) -> None:
        """Waits until the journal holds a text: journald takes its time."""
        eventually(lambda: text in self.log(), 20, f"{text!r} in the journal")


@pytest.fixture(scope="module", name="machine")
def fixture_machine(tmp_path_factory):
    """A fresh machine, whose loopback is that of these tests too."""
    folder = tmp_path_factory.mktemp("machine")
    templates = ROOT / "build/templates"
    machine = Machine(ROOT / "build/vm/base", folder, f"--bind-ro={templates.resolve()}:/srv/templates")
    try:
        with machine.network():
            yield machine
        print(machine.run("journalctl --no-pager --unit=sandstorm", check=False).stdout[-8000:])
    finally:
        machine.stop()


@pytest.fixture(scope="module", name="double")
def fixture_double(machine):
    """An E2B double on the machine's loopback."""
    assert machine.leader
    with running_double() as running:
        yield running


@pytest.fixture(scope="module", name="service")
def fixture_service(machine):
    """The service; the first test installs it."""
    return Service(machine)


@pytest.fixture(name="client")
async def fixture_client():
    """An HTTP client for this test."""
    async with new_client() as opened:
        yield opened


@pytest.fixture(name="deb", scope="module")
def fixture_deb(machine) -> str:
    """The package, on the machine."""
    package = next((ROOT / "build/deb").glob("sandstorm_*.deb"))
    (machine.root / "root/sandstorm.deb").write_bytes(package.read_bytes())
    return "/root/sandstorm.deb"


def test_apt_installs_it_and_it_serves(machine, service, deb):
    machine.run(f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {deb}")
    assert machine.run("systemctl is-active sandstorm").stdout.strip() == "active"
    assert machine.run("systemctl is-enabled sandstorm").stdout.strip() == "enabled"
    assert machine.run("systemctl is-enabled sandstorm.socket", check=False).stdout.strip() == "disabled"
    assert re.fullmatch(r"\d+ workers, 0 runs, listening on 127\.0\.0\.1:8000", service.show("StatusText"))
    owners = machine.run(f"stat -c '%U:%G %a' {ENV} {CONF} /var/lib/sandstorm/state /var/lib/sandstorm/templates").stdout
    assert owners.split("\n")[:4] == ["root:sandstorm 640", "root:root 644", "sandstorm:sandstorm 700", "root:root 755"]
    users = machine.run(f"ps -o user= -p {service.main_pid} --ppid {service.main_pid}").stdout.split()
    assert len(users) > 1 and set(users) == {"sandstor+"} or set(users) == {"sandstorm"}


async def test_keys_in_the_env_file_count_after_a_reload(machine, service, double, client):
    lines = [f"E2B_API_KEY={double.key}", f"E2B_API_URL={double.url}", f"E2B_SANDBOX_URL={double.url}",
             "ANTHROPIC_API_KEY=test-key"]  # fmt: skip
    machine.put(ENV, "\n".join(lines) + "\n")
    service.reload()
    answer = await query(client, service, script(events=3))
    assert answer.status == 200
    answer.check_complete(3)


async def test_reloads_cut_no_stream(service, double, client):
    master = service.main_pid
    async with open_query(client, service, script(events=40, hold="reloads", hold_after=20)) as stream:
        for _ in range(20):
            await stream.next_numbered()
        for _ in range(3):
            service.reload()
        double.release("reloads")
        answer = await stream.rest()
    answer.check_complete(40)
    assert service.main_pid == master


@pytest.mark.parametrize(
    ("lines", "reason"),
    [("worker_timeout = soon", 'worker_timeout: "soon"'),
     ("max_runs = 7", "setting max_runs changed, and needs a restart"),
     ("tls_cert = /etc/ssl/none.pem", "setting tls_cert: /etc/ssl/none.pem: No such file or directory"),
     ("tls_cert = /etc/shadow", "setting tls_cert: /etc/shadow: Permission denied"),
     ("bind = 127.0.0.1:8000, 127.0.0.1:{busy}", "cannot listen on 127.0.0.1:{busy}: Address already in use")],
)  # fmt: skip
async def test_a_configuration_that_is_no_good_fails_the_reload_and_changes_nothing(machine, service, double, client, lines, reason):
    good = machine.run(f"cat {CONF}").stdout
    master, generation = service.main_pid, service.generation()
    for _ in range(2):  # the second finds the notice of the first in the status
        machine.put(CONF, f"{good}{lines.format(busy=double.port)}\n")
        failed = machine.run("systemctl reload sandstorm", check=False)
        machine.put(CONF, good)
        assert failed.returncode != 0
        status = service.show("StatusText")
        assert "; reload refused: " in status and reason.format(busy=double.port) in status
    assert (service.main_pid, service.generation(), service.show("ActiveState")) == (master, generation, "active")
    service.wait_log("reload: the old settings stay in use: reload refused")
    (await query(client, service, script(events=3))).check_complete(3)
    service.reload()
    assert "refused" not in service.show("StatusText")


async def test_keys_may_be_credentials(machine, service, double, client):
    """In /etc/credstore, for root alone; the server sees them where systemd puts them."""
    with_keys = machine.run(f"cat {ENV}").stdout
    bearer = "a-credential-of-more-than-32-bytes-0001"
    machine.put(ENV, re.sub(r"^E2B_API_KEY=.*\n", "", with_keys, flags=re.MULTILINE))
    machine.put("/etc/credstore/sandstorm.e2b_api_key", double.key + "\n")
    machine.put("/etc/credstore/sandstorm.api_key", bearer + "\n")
    machine.run("chmod 600 /etc/credstore/*")
    service.restart()
    assert (await client.get(f"{service.url}/runs")).status_code == 401
    client.headers["Authorization"] = f"Bearer {bearer}"
    (await query(client, service, script(events=3))).check_complete(3)
    machine.run("systemctl reload sandstorm")
    (await query(client, service, script(events=3))).check_complete(3)
    assert double.key not in service.log() and bearer not in service.log()
    machine.put(ENV, with_keys)
    machine.run("rm /etc/credstore/sandstorm.*")
    service.restart()


async def test_with_its_socket_unit_a_restart_cuts_nobody_off(machine, service, client):
    """A first connection starts a server that does not run. A request that meets the stop is told to come again."""
    machine.run("systemctl stop sandstorm && systemctl start sandstorm.socket")
    assert service.show("ActiveState") == "inactive"
    (await query(client, service, script(events=3))).check_complete(3)
    assert service.show("ActiveState") == "active"
    master = service.main_pid
    restarting = asyncio.create_task(asyncio.to_thread(service.restart))
    served = 0
    while not restarting.done() or not served:
        async with open_query(client, service, script(events=3)) as stream:
            if stream.answer.status == 503:
                assert stream.answer.headers["Retry-After"]
                continue
            (await stream.rest()).check_complete(3)
            served += 1
    await restarting
    assert service.main_pid != master
    machine.run("systemctl stop sandstorm.socket sandstorm && systemctl start sandstorm")


def install_again(machine: Machine, deb: str) -> str:
    """Upgrades; what apt and the scripts of the package say."""
    command = f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q --reinstall {deb} 2>&1"
    return machine.run(command).stdout


def next_version(machine: Machine, deb: str) -> str:
    """The package with the next version of the program in it."""
    tree = "/root/next"
    machine.run(f"rm -rf {tree} && dpkg-deb -R {deb} {tree}")
    program = machine.root / tree.lstrip("/") / "usr/bin/sandstorm"
    versions.install_next(program, program)
    machine.run(
        f"sed -i 's/^Version: .*/Version: {versions.NEXT}/' {tree}/DEBIAN/control && "
        f"sed -i '/ usr.bin.sandstorm$/d' {tree}/DEBIAN/md5sums && dpkg-deb -b {tree} {tree}.deb"
    )
    return f"{tree}.deb"


@pytest.mark.parametrize("version", [versions.NEXT, OWN])
async def test_an_upgrade_under_load_takes_over_and_cuts_no_stream(machine, service, deb, double, client, version):
    """To the next version, and back."""
    package = next_version(machine, deb) if version == versions.NEXT else f"--allow-downgrades {deb}"
    master, generation = service.main_pid, service.generation()
    async with open_query(client, service, script(events=4, hold=version, hold_after=2)) as stream:
        await stream.next_numbered()
        async with asking(client, service, runs=True):
            said = await asyncio.to_thread(install_again, machine, package)
            await eventually_async(lambda: service.is_newer(generation), 20, "workers of the new program")
        double.release(version)
        answer = await stream.rest()
    answer.check_complete(4)
    assert "still runs" not in said
    assert service.main_pid == master
    assert (await client.get(f"{service.url}/health")).json()["version"] == version
    (await query(client, service, script(events=3))).check_complete(3)


def test_an_upgrade_that_cannot_take_over_says_so_and_changes_nothing(machine, service, deb):
    good = machine.run(f"cat {CONF}").stdout
    master, generation = service.main_pid, service.generation()
    machine.put(CONF, good + "max_runs = 7\n")
    said = install_again(machine, deb)
    machine.put(CONF, good)
    assert "the old program still runs" in said
    assert "max_runs" in service.show("StatusText")
    assert (service.main_pid, service.generation()) == (master, generation)
    install_again(machine, deb)
    eventually(lambda: service.is_newer(generation), 20, "workers of the new program")


def test_the_log_may_go_to_a_file_that_is_rotated(machine, service):
    """The commands of the package's logrotate file, without the program, which is not installed here."""
    good = machine.run(f"cat {CONF}").stdout
    log = "/var/log/sandstorm/sandstorm.log"
    machine.put(CONF, f"{good}log_file = {log}\n")
    service.restart()
    assert "ready:" in machine.run(f"cat {log}").stdout
    machine.run(f"mv {log} {log}.1")
    rotated = machine.run("sed -n 's/^ *\\(systemctl kill.*\\)/\\1/p' /etc/logrotate.d/sandstorm").stdout
    machine.run(rotated)
    eventually(lambda: machine.run(f"test -e {log}", check=False).returncode == 0, 10, "a new log")
    machine.put(CONF, good)
    service.restart()


async def test_a_stop_lets_streams_end(machine, service, double, client):
    async with open_query(client, service, script(events=4, hold="stop", hold_after=2)) as stream:
        await stream.next_numbered()
        stopping = machine.start("systemctl stop sandstorm")
        await eventually_async(lambda: service.show("ActiveState") == "deactivating", 10, "the stop to begin")
        double.release("stop")
        answer = await stream.rest()
    answer.check_complete(4)
    await eventually_async(lambda: stopping.poll() is not None, 20, "the end of the stop")
    assert stopping.returncode == 0
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    machine.run("systemctl start sandstorm")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_or_stopped_master_is_replaced_and_leaves_no_sandbox(machine, service, double, client, number):
    """A stopped one is the watchdog's to find. The workers still end their runs and delete what they made."""
    machine.put(f"{DROP_INS}/watchdog.conf", f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}s\n")
    service.restart()
    master = service.main_pid
    async with open_query(client, service, script(events=4, hold=f"death-{number}", hold_after=2)) as stream:
        await stream.next_numbered()
        machine.run(f"kill -{int(number)} {master}")
        answer = await stream.rest()
    assert answer.error_code == "server_shutdown"
    await double.until(lambda ledger: not ledger.alive(), 15, "the deletion of the sandbox")
    await eventually_async(lambda: service.main_pid not in (0, master), 30, "another master")
    await eventually_async(lambda: service.show("ActiveState") == "active", 30, "the service to be up")
    (await query(client, service, script(events=3))).check_complete(3)
    machine.run(f"rm {DROP_INS}/watchdog.conf")


def test_a_worker_that_does_not_end_does_not_outlive_the_service(machine, service):
    """Nobody is left to look after it: the unit itself ends it."""
    machine.put(f"{DROP_INS}/hurry.conf", "[Service]\nExecStopPost=\n"
                "ExecStopPost=/usr/libexec/sandstorm/end-workers 1\n")  # fmt: skip
    service.restart()
    master = service.main_pid
    worker = service.workers()[0]["pid"]
    machine.run(f"kill -STOP {worker} && kill -KILL {master}")
    eventually(lambda: service.main_pid not in (0, master), 30, "another master")
    assert machine.run(f"kill -0 {worker}", check=False).returncode != 0
    service.wait_log(f"process {worker} does not end: killed")
    machine.run(f"rm {DROP_INS}/hurry.conf")


@pytest.fixture(name="model")
def fixture_model(machine):
    """The URL of a scripted model on the machine's loopback."""
    assert machine.leader
    command = [sys.executable, ROOT / "tests/fake/model.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()


async def test_a_real_agent_runs_in_a_local_sandbox_with_the_drop_in(machine, service, model, client):
    """node and the Agent SDK: under the drop-in they may do all that they need."""
    machine.uncover_proc()
    machine.run(f"mkdir -p {DROP_INS} && cp /usr/share/sandstorm/systemd/local-runtime.conf {DROP_INS}/")
    good = machine.run(f"cat {CONF}").stdout
    machine.put(CONF, good.replace("/var/lib/sandstorm/templates", "/srv/templates"))
    machine.put(ENV, f"ANTHROPIC_API_KEY=test-key\nANTHROPIC_BASE_URL={model}\n")
    service.restart()
    answer = await query(client, service, f"sandstorm-script: {json.dumps(AGENT_STEPS)}")
    assert answer.of_type("result")[0]["subtype"] == "success", answer.texts
    assert [(event["name"], base64.b64decode(event["data"])) for event in answer.of_type("file")] == [("made.txt", b"made\n")]
    machine.put(CONF, good)
    machine.run(f"rm -r {DROP_INS}")


def test_a_purge_leaves_nothing(machine):
    machine.run("systemctl stop sandstorm && systemctl enable --now sandstorm.socket sandstorm")
    machine.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y -q sandstorm")
    left = machine.run(
        "find / -xdev -name '*sandstorm*' -not -path '/var/cache/apt/*' -not -path '/root/*' -not -path '/srv/*'"
    ).stdout.split()
    assert left == []
    assert machine.run("getent passwd sandstorm; getent group sandstorm", check=False).stdout == ""
    assert machine.run("systemctl cat sandstorm", check=False).returncode != 0
    assert refuses(Service.port)
    assert machine.run("pgrep -l sandstorm", check=False).stdout == ""
