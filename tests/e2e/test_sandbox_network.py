"""What sandboxes reach: every class of address that is refused and that it would be reached, names, limits, programs.

The internet is a machine of the test's own (two_machines.py).
"""

import json
import os
import re
import shutil
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from harness import procfs
from sandboxd_client import running_daemons, wait_for
from two_machines import HERE, HERE_V6, THERE, THERE_V6, TwoMachines

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes machines of namespaces")

PROBE = Path(__file__).with_name("probe.py").read_bytes()
ENDPOINTS_MAX = 16

# Address, what the refusal calls it, whether the one web server or the other is there when nobody refuses. Where it is
# not, no TCP connection is possible at all, and the refusal is told from the failure by its status.
REFUSED = [
    ("0.0.0.0", "an address of this machine (0.0.0.0/8)", "here"),
    ("0.1.2.3", "an address of this machine (0.0.0.0/8)", "there"),
    ("10.1.2.3", "a private address (10.0.0.0/8)", "there"),
    ("100.64.1.1", "a private address (100.64.0.0/10)", "there"),
    ("100.100.100.200", "a private address (100.64.0.0/10)", "there"),
    ("127.0.0.1", "the host's loopback (127.0.0.0/8)", "here"),
    ("127.1.2.3", "the host's loopback (127.0.0.0/8)", "here"),
    ("168.63.129.16", "cloud metadata (168.63.129.16)", "there"),
    ("169.254.169.254", "cloud metadata (169.254.169.254)", "there"),
    ("169.254.1.1", "a link-local address (169.254.0.0/16)", "there"),
    ("172.16.5.4", "a private address (172.16.0.0/12)", "there"),
    ("172.31.255.1", "a private address (172.16.0.0/12)", "there"),
    ("192.0.0.192", "a reserved address (192.0.0.0/24)", "there"),
    ("192.168.7.7", "a private address (192.168.0.0/16)", "there"),
    ("198.18.0.1", "a private address (198.18.0.0/15)", "there"),
    ("224.0.0.1", "a multicast address (224.0.0.0/4)", None),
    ("240.0.0.1", "a reserved address (240.0.0.0/4)", "there"),
    ("255.255.255.255", "the broadcast address (255.255.255.255)", None),
    (HERE, "an address of this machine", "here"),
    ("198.51.100.7", "an address of this machine", "here"),
    ("203.0.113.255", "a broadcast address", None),
    ("::", "an address of this machine (::)", "here"),
    ("::1", "the host's loopback (::1)", "here"),
    ("100::1", "a reserved address (outside 2000::/3)", "there"),
    ("2001::1", "a tunnel's address (2001::/32)", "there"),
    ("fc00::1", "a private address (fc00::/7)", "there"),
    ("fd00:ec2::254", "cloud metadata (fd00:ec2::254)", "there"),
    ("fe80::1", "a link-local address (fe80::/10)", None),
    ("fec0::1", "a private address (fec0::/10)", "there"),
    ("ff02::1", "a multicast address (ff00::/8)", None),
    (HERE_V6, "an address of this machine", "here"),
    ("::ffff:10.1.2.3", "a private address (10.0.0.0/8)", "there"),
    ("::ffff:127.0.0.1", "the host's loopback (127.0.0.0/8)", "here"),
    ("::ffff:169.254.169.254", "cloud metadata (169.254.169.254)", "there"),
    (f"::ffff:{HERE}", "an address of this machine", "here"),
    ("64:ff9b::10.1.2.3", "a private address (10.0.0.0/8)", "there"),
    ("64:ff9b::127.0.0.1", "the host's loopback (127.0.0.0/8)", "there"),
    ("64:ff9b::169.254.169.254", "cloud metadata (169.254.169.254)", "there"),
    (f"64:ff9b::{HERE}", "an address of this machine", "there"),
    ("64:ff9b:1::a01:203", "a private address (64:ff9b:1::/48)", "there"),
    ("2002:a01:203::1", "a private address (10.0.0.0/8)", "there"),
    ("2002:cb00:7101::1", "an address of this machine", "there"),
]  # fmt: skip

# Their neighbours, and what translators make of a public address.
OPEN = [THERE, THERE_V6, "198.51.100.8", "169.253.255.255", "172.32.0.1", f"::ffff:{THERE}", f"64:ff9b::{THERE}",
        "2002:cb00:710a::1"]  # fmt: skip


def endpoint(host: str, port: int = 80) -> str:
    """As sandboxd writes it: an IPv6 address has one spelling."""
    if ":" in host:
        host = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture
def machines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    machines = TwoMachines(folder)
    yield machines
    machines.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(machines, folder):
    """Starts daemons on the machine "here"; each must end well."""
    with running_daemons(folder) as start_daemon:
        yield partial(start_daemon, prefix=machines.here.enter)


def new_sandbox(daemon, **fields):
    sandbox = daemon.create(**fields)
    assert sandbox.upload({"/home/user/probe.py": PROBE}).status == 200
    return sandbox


def probe(sandbox, *targets) -> list[dict]:
    """What the proxy says to a CONNECT to each; of those that are connected, also what the web server there says."""
    return json.loads(sandbox.text(f"python3 probe.py {' '.join(targets)}"))


def allow(*endpoints) -> list[str]:
    return [argument for one in endpoints for argument in ("--network-allow", one)]


# --- addresses ---


def test_no_address_but_public_ones_is_reached_unless_it_is_named(machines, start):
    """Each is reached as soon as network_allow names it, so what refuses it is the check and nothing else."""
    for address in OPEN + [address for address, _, where in REFUSED if where == "there"]:
        if address not in (THERE, THERE_V6) and not address.startswith("::ffff:"):
            machines.there.add_address(address, "wire")
    machines.here.add_address("198.51.100.7", "lo")
    daemon = start()
    sandbox = new_sandbox(daemon)
    answers = probe(sandbox, *(endpoint(address) for address, _, _ in REFUSED))
    for (address, what, _), answer in zip(REFUSED, answers, strict=True):
        shown = endpoint(address)
        text = f"{shown} is not allowed: it leads to {what}. The setting network_allow = {shown} would allow it.\n"
        assert (answer["status"], answer["text"]) == (403, text), address
    for address, answer in zip(OPEN, probe(sandbox, *map(endpoint, OPEN)), strict=True):
        assert (answer["status"], answer["machine"]) == (200, "there"), address
    assert "gate refuses 10.1.2.3:80: 10.1.2.3:80 is not allowed: it leads to a private address" in daemon.log
    for first in range(0, len(REFUSED), ENDPOINTS_MAX):
        some = REFUSED[first : first + ENDPOINTS_MAX]
        targets = [endpoint(address) for address, _, _ in some]
        named = new_sandbox(start(*allow(*targets)))
        for (address, _, where), answer in zip(some, probe(named, *targets), strict=True):
            assert (answer["status"], answer.get("machine")) == (200 if where else 502, where), (address, answer)
        other_port = probe(named, *(endpoint(address, 81) for address, _, _ in some))
        assert {answer["status"] for answer in other_port} == {403}


def test_an_address_that_the_machine_gets_later_is_its_own(machines, start):
    machines.there.add_address("198.51.100.8", "wire")
    sandbox = new_sandbox(start())
    assert probe(sandbox, "198.51.100.8:80")[0]["machine"] == "there"
    machines.here.add_address("198.51.100.8", "wire")
    answer = probe(sandbox, "198.51.100.8:80")[0]
    assert answer["status"] == 403 and "leads to an address of this machine." in answer["text"]
    machines.here.run("ip", "address", "del", "198.51.100.8/32", "dev", "wire")
    assert probe(sandbox, "198.51.100.8:80")[0]["machine"] == "there"


# --- names ---


def test_a_name_is_judged_by_the_address_connected_to(machines, start):
    machines.there.add_address("10.1.2.3", "wire")
    machines.set_names(**{"peer.test": [THERE], "six.test": [THERE_V6], "private.test": ["10.1.2.3"],
                          "loopback.test": ["127.0.0.1"], "mapped.test": ["::ffff:127.0.0.1"],
                          "mixed.test": ["127.0.0.1", "10.1.2.3", THERE]})  # fmt: skip
    sandbox = new_sandbox(start(*allow("10.9.9.9:80")))
    good = probe(sandbox, "peer.test:80", "PEER.test:80", "six.test:80", "mixed.test:80")
    assert [answer["address"] for answer in good] == [THERE, THERE, THERE_V6, THERE]
    bad = probe(sandbox, "private.test:80", "loopback.test:80", "mapped.test:80", "localhost:80")
    assert {answer["status"] for answer in bad} == {403}
    assert "private.test:80 is not allowed: it leads to a private address (10.0.0.0/8)." in bad[0]["text"]
    for spelling in ("127.1:80", "0x7f000001:80", "2130706433:80", "none.test:80"):
        assert probe(sandbox, spelling)[0]["status"] == 502, spelling
    for spelling in ("user@peer.test:80", "peer.test", "[::1%lo]:80", "[peer.test:80"):
        assert probe(sandbox, spelling)[0]["status"] == 400, spelling


def test_a_name_that_changes_its_address_gains_nothing(machines, start):
    machines.there.add_address("10.1.2.3", "wire")
    machines.set_names(**{"rebind.test": ["flip", THERE, "10.1.2.3", "127.0.0.1"]})
    sandbox = new_sandbox(start())
    answers = probe(sandbox, *["rebind.test:80"] * 60)
    reached = {answer["address"] for answer in answers if answer["status"] == 200}
    assert reached == {THERE} and {answer["status"] for answer in answers} == {200, 403}


def test_network_allow_names_a_host_and_a_port(machines, start):
    for address in ("10.1.2.3", "10.1.2.4"):
        machines.there.add_address(address, "wire")
    machines.set_names(**{"db.test": ["10.1.2.3"], "alias.test": ["10.1.2.3"], "by-address.test": ["10.1.2.4"]})
    sandbox = new_sandbox(start(*allow("db.test:80", "10.1.2.4:80")))
    named, by_address, direct = probe(sandbox, "db.test:80", "by-address.test:80", "10.1.2.4:80")
    assert (named["address"], by_address["address"], direct["address"]) == ("10.1.2.3", "10.1.2.4", "10.1.2.4")
    # The address of an allowed name under another name, and other ports, are what they were.
    answers = probe(sandbox, "alias.test:80", "10.1.2.3:80", "db.test:81", "10.1.2.4:81")
    assert [answer["status"] for answer in answers] == [403] * 4


def test_changed_name_servers_are_read_again(machines, start):
    machines.set_names(**{"peer.test": [THERE]})
    machines.resolv_conf.write_text("nameserver 203.0.113.99\noptions timeout:1 attempts:1\n")
    sandbox = new_sandbox(start())
    assert probe(sandbox, "hosts.test:80")[0]["status"] in (502, 504)
    machines.resolv_conf.write_text(f"nameserver {THERE}\n")
    assert probe(sandbox, "peer.test:80")[0]["machine"] == "there"
    machines.hosts.write_text(f"{THERE} hosts.test\n")
    assert probe(sandbox, "hosts.test:80")[0]["machine"] == "there"


def test_names_without_an_answer_do_not_hold_up_a_neighbour(machines, start):
    """Nor the daemon: everything goes on while one sandbox waits for all the names it may ask for at once."""
    machines.set_names(**{"peer.test": [THERE], "slow.test": None})
    daemon = start()
    attacker, neighbour = new_sandbox(daemon), new_sandbox(daemon)
    waiting = attacker.start(f"python3 probe.py {'slow.test:80 ' * 3} & " * 100 + "wait")
    wait_for(lambda: machines.asked.count("slow.test") >= 200, "questions", 40)
    assert probe(neighbour, "peer.test:80")[0]["machine"] == "there"
    assert "slow.test" in machines.asked and waiting.result.end is None
    attacker.kill()
    waiting.close()
    wait_for(lambda: daemon.descriptors <= daemon.idle_fds + 16, "descriptors given back")


# --- who has no internet ---


@pytest.mark.parametrize("daemon_args, fields, why", [
    (("--network", "none"), {}, "sandboxes have no internet (the setting network is none)"),
    ((), {"allow_internet_access": False},
     "this sandbox was created without internet (allow_internet_access is false)"),
])  # fmt: skip
def test_without_internet_only_the_allowed_endpoints_are_reached(machines, start, daemon_args, fields, why):
    machines.there.add_address("10.1.2.3", "wire")
    machines.set_names(**{"peer.test": [THERE], "model.test": ["10.1.2.3"]})
    daemon = start(*daemon_args, *allow("model.test:80", "127.0.0.1:8080"))
    sandbox = new_sandbox(daemon, **fields)
    answers = probe(sandbox, "peer.test:80", endpoint(THERE), endpoint(THERE_V6), "10.1.2.3:80", "127.0.0.1:81")
    assert [answer["status"] for answer in answers] == [403] * 5
    assert answers[0]["text"] == (
        f"peer.test:80 is not allowed: {why}. The setting network_allow = peer.test:80 would allow it.\n"
    )
    assert machines.asked == []
    model, loopback = probe(sandbox, "model.test:80", "127.0.0.1:8080")
    assert (model["address"], loopback["machine"]) == ("10.1.2.3", "here")
    assert json.loads(sandbox.text("curl -s http://127.0.0.1:8080/direct"))["machine"] == "here"
    detail = daemon.call("GET", f"/sandboxes/{sandbox.id}").json
    assert detail["allowInternetAccess"] is False


@pytest.mark.parametrize("value", [True, None])
def test_a_create_that_does_not_forbid_it_has_the_internet(machines, start, value):
    daemon = start()
    sandbox = new_sandbox(daemon, allow_internet_access=value)
    assert probe(sandbox, endpoint(THERE))[0]["machine"] == "there"
    assert daemon.call("GET", f"/sandboxes/{sandbox.id}").json["allowInternetAccess"] is True


def test_a_wrong_allow_internet_access_is_refused(machines, start):
    answer = start().post("/sandboxes", {"templateID": "base", "allow_internet_access": "no"})
    assert answer.status == 400 and "allow_internet_access" in answer.json["message"]


def test_the_rules_of_a_create_take_away_and_never_give(machines, start):
    for address in ("198.51.100.8", "10.1.2.3"):
        machines.there.add_address(address, "wire")
    machines.set_names(**{"peer.test": [THERE], "sub.peer.test": ["198.51.100.8"], "private.test": ["10.1.2.3"]})
    daemon = start(*allow("127.0.0.1:8080"))
    rules = {"denyOut": ["0.0.0.0/0"], "allowOut": ["*.peer.test", "private.test", "10.0.0.0/8"]}
    sandbox = new_sandbox(daemon, network=rules)
    denied = probe(sandbox, "peer.test:80", endpoint(THERE), endpoint(THERE_V6), "198.51.100.8:80")
    text = "peer.test:80 is not allowed: denyOut of this sandbox's network has it. An entry in its allowOut would allow it."
    assert denied[0]["text"] == text + "\n"
    assert {answer["status"] for answer in denied} == {403}
    assert probe(sandbox, "sub.peer.test:80")[0]["address"] == "198.51.100.8"
    private = probe(sandbox, "private.test:80", "10.1.2.3:80")
    assert [answer["status"] for answer in private] == [403, 403] and "private address" in private[0]["text"]
    assert probe(sandbox, "127.0.0.1:8080")[0]["machine"] == "here"
    assert daemon.call("GET", f"/sandboxes/{sandbox.id}").json["network"] == rules
    named = new_sandbox(daemon, network={"denyOut": ["0.0.0.0/0"], "allowOut": ["sub.peer.test"]})
    assert [answer["status"] for answer in probe(named, "secret.peer.test:80", "sub.peer.test:80")] == [403, 200]
    assert "secret.peer.test" not in machines.asked
    some = new_sandbox(daemon, network={"denyOut": [f"{THERE}/32"]})
    assert probe(some, "peer.test:80")[0]["status"] == 403
    assert probe(some, "sub.peer.test:80")[0]["address"] == "198.51.100.8"


def test_wrong_rules_are_refused(machines, start):
    answer = start().post("/sandboxes", {"templateID": "base", "network": {"denyOut": ["peer.test"]}})
    assert answer.status == 400
    assert answer.json["message"] == "validation error: network.denyOut[0] is no address or range"


# --- what programs send ---


def test_programs_find_the_proxy(machines, start):
    machines.set_names(**{"peer.test": [THERE]})
    sandbox = new_sandbox(start())
    (machines.folder / "package").write_text(json.dumps({
        "name": "package", "dist-tags": {"latest": "1.2.3"},
        "versions": {"1.2.3": {"name": "package", "version": "1.2.3", "dist": {"tarball": "http://peer.test/x.tgz"}}},
    }))  # fmt: skip
    repository = machines.folder / "r"
    (repository / "info").mkdir(parents=True)
    (repository / "info/refs").write_text("1234567890123456789012345678901234567890\trefs/heads/main\n")
    (repository / "HEAD").write_text("ref: refs/heads/main\n")
    programs = {
        "curl -s http://peer.test/": '"machine": "there"',
        "curl -s --proxytunnel http://peer.test/": '"machine": "there"',
        "curl -s -x socks5h://127.0.0.1:3128 http://peer.test/": '"machine": "there"',
        f"curl -s -x socks5://127.0.0.1:3128 http://{THERE}/": '"machine": "there"',
        f"curl -s -x socks5h://127.0.0.1:3128 http://[{THERE_V6}]/": '"machine": "there"',
        "python3 -c \"import urllib.request as u; print(u.urlopen('http://peer.test/').read().decode())\"": '"there"',
        "npm view --registry http://peer.test/files/ package version": "1.2.3",
        "GIT_SMART_HTTP=0 git ls-remote http://peer.test/files/r": "refs/heads/main",
    }
    for command, expected in programs.items():
        assert expected in sandbox.text(command), command
    refused = sandbox.text("curl -s http://10.0.0.1/; curl -s http://127.0.0.1:3128/")
    assert "10.0.0.1:80 is not allowed: it leads to a private address" in refused and "this is a proxy" in refused
    socks = sandbox.run("curl -sS -x socks5h://127.0.0.1:3128 http://10.0.0.1/")
    assert socks.end["exitCode"] == 97 and b"(2)" in socks.stderr
    envs = sandbox.start("env", envs={"HTTP_PROXY": "http://mine"}).finish().stdout.decode()
    assert "HTTP_PROXY=http://mine\n" in envs and "HTTPS_PROXY=http://127.0.0.1:3128\n" in envs


def test_a_servers_loopback_is_the_sandboxes_own(machines, start):
    """NO_PROXY leads there directly, and the proxy means the host's, which it refuses."""
    sandbox = new_sandbox(start())
    server = sandbox.start("echo inside > page; exec python3 -m http.server 8000 --bind 127.0.0.1")
    asked = "until curl -sf http://localhost:8000/page; do sleep 0.1; done"
    assert sandbox.text(asked) == "inside\n"
    assert "host's loopback" in sandbox.text("curl -s --noproxy '' http://127.0.0.1:8000/page")
    server.close()


FORWARD = """
import json, socket, sys
def ask(raw):
    with socket.create_connection(("127.0.0.1", 3128), 30) as proxy:
        proxy.sendall(raw)
        return proxy.makefile("rb").read()
for raw in json.load(sys.stdin):
    print(json.dumps(ask(raw.encode()).decode()))
"""


def test_a_plain_request_is_passed_on_as_an_origin_wants_it(machines, start):
    machines.set_names(**{"peer.test": [THERE]})
    sandbox = new_sandbox(start())
    requests = [
        "GET http://peer.test/a?b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: secret\r\nX-Kept: 1\r\n\r\n",
        "PUT http://peer.test/put HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "PUT http://peer.test/chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    sandbox.upload({"/home/user/ask.py": FORWARD.encode(), "/home/user/in": json.dumps(requests).encode()})
    answers = [json.loads(line) for line in sandbox.text("python3 ask.py < in").splitlines()]
    told = [json.loads(answer.split("\r\n\r\n", 1)[1]) for answer in answers]
    assert [one["path"] for one in told] == ["/a?b", "/put", "/chunked"]
    assert [one["body_bytes"] for one in told] == [0, 5, 5]
    assert told[0]["headers"] == {"Host": "peer.test", "X-Kept": "1", "Connection": "close"}
    assert machines.requests == ["GET /a?b HTTP/1.1", "PUT /put HTTP/1.1", "PUT /chunked HTTP/1.1"]


STRAY = r"""
import socket, sys
with socket.create_connection(("127.0.0.1", 3128), 30) as proxy:
    proxy.sendall(sys.stdin.buffer.read())
    reader = proxy.makefile("rb")
    list(iter(reader.readline, b"\r\n"))
    print(reader.read(2).decode())
    try:
        proxy.sendall(b"GET http://other.test/later HTTP/1.1\r\nAuthorization: x\r\n\r\n")
    except OSError:
        pass
"""


@pytest.mark.parametrize("framing, body", [
    ("Accept: */*", ""),
    ("Content-Length: 5", "hello"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
])  # fmt: skip
def test_what_follows_a_plain_request_never_gets_to_its_origin(machines, start, framing, body):
    """Not even to one that keeps the connection open: it may be a request to another host, with its credentials."""
    daemon = start()
    sandbox = new_sandbox(daemon)
    request = f"PUT http://{THERE}:8081/ HTTP/1.1\r\n{framing}\r\n\r\n{body}"
    second = "GET http://other.test/stray HTTP/1.1\r\nAuthorization: x\r\n\r\n"
    sandbox.upload({"/home/user/stray.py": STRAY.encode(), "/home/user/in": (request + second).encode()})
    assert sandbox.text("python3 stray.py < in") == "ok\n"
    got = wait_for(lambda: machines.raw, "the origin's end")
    assert got == [f"PUT / HTTP/1.1\r\nHost: {THERE}:8081\r\n{framing}\r\nConnection: close\r\n\r\n{body}".encode()]


HALF = r"""
import socket, sys
with socket.create_connection(("127.0.0.1", 3128), 30) as proxy:
    proxy.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\r\n\r\n".encode() + b"x" * int(sys.argv[2]))
    proxy.shutdown(socket.SHUT_WR)
    print(proxy.makefile("rb").read().split(b"\r\n\r\n", 1)[1].decode())
"""


def test_the_end_of_one_direction_is_not_that_of_the_other(machines, start):
    sandbox = new_sandbox(start())
    sandbox.upload({"/home/user/half.py": HALF.encode()})
    for sent in (0, 1, 1000000):
        assert sandbox.text(f"python3 half.py {THERE}:8081 {sent}") == f"got {sent}\n"


def test_credentials_are_not_in_the_log(machines, start):
    daemon = start()
    sandbox = new_sandbox(daemon)
    requests = ["GET http://user:hunter2@10.0.0.1/hunter3 HTTP/1.1\r\nProxy-Authorization: hunter4\r\n\r\n",
                "GET http://10.0.0.1/hunter5?hunter6 HTTP/1.1\r\nAuthorization: hunter7\r\n\r\n"]  # fmt: skip
    sandbox.upload({"/home/user/ask.py": FORWARD.encode(), "/home/user/in": json.dumps(requests).encode()})
    first, second = sandbox.text("python3 ask.py < in").splitlines()
    assert "400 Bad Request" in first and "403 Forbidden" in second
    assert daemon.log.count("gate refuses") == 2 and "hunter" not in daemon.log


# --- limits ---


def test_refusals_are_logged_a_few_times_a_minute(machines, start):
    daemon = start()
    sandbox = new_sandbox(daemon)
    assert {answer["status"] for answer in probe(sandbox, *["10.0.0.1:80"] * 60)} == {403}
    assert daemon.log.count("gate refuses") == 30


HOLD = """
import socket, sys
held = []
for i in range(int(sys.argv[1])):
    s = socket.create_connection(("127.0.0.1", 3128), 30)
    s.sendall(f"CONNECT {sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
    held.append(s)
statuses = [s.makefile("rb").readline().split()[1].decode() for s in held]
for s in (s for s, status in zip(held, statuses) if status == "200"):
    s.sendall(sys.argv[3].encode() + b"\\r\\n\\r\\n")
print(statuses.count("200"), statuses.count("503"), flush=True)
sys.stdin.read()
"""


def test_connections_of_a_sandbox_are_bounded_and_end_with_it(machines, start):
    daemon = start()
    greedy, neighbour = new_sandbox(daemon), new_sandbox(daemon)
    before = daemon.descriptors
    greedy.upload({"/home/user/hold.py": HOLD.encode()})
    holding = greedy.start(f"python3 hold.py 140 {THERE}:80 'GET /hold HTTP/1.1'", stdin=True)
    wait_for(lambda: holding.next() and holding.result.stdout.endswith(b"\n"), "all answered")
    assert holding.result.stdout == b"128 12\n"
    assert "gate refuses a connection: too many connections at once" in daemon.log
    assert probe(neighbour, f"{THERE}:80")[0]["machine"] == "there"
    greedy.kill()
    holding.close()
    wait_for(lambda: daemon.descriptors <= before, "descriptors given back")


def test_who_does_not_read_costs_no_memory_and_no_neighbour(machines, start, monkeypatch):
    """Eight floods of 64 MiB each that nobody takes."""
    # What a sanitizer keeps of freed memory is not the daemon's.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1")
    daemon = start()
    sink, neighbour = new_sandbox(daemon), new_sandbox(daemon)
    sink.upload({"/home/user/hold.py": HOLD.encode()})
    before = procfs.own_kib(daemon.process.pid)
    holding = sink.start(f"python3 hold.py 8 {THERE}:80 'GET /flood HTTP/1.1'", stdin=True)
    wait_for(lambda: holding.next() and holding.result.stdout.endswith(b"\n"), "all answered")
    wait_for(lambda: machines.requests.count("GET /flood HTTP/1.1") == 8, "all asked")
    # Long enough for the rate of a sandbox to fill the kernel's buffers, and then the daemon's if they had no bound.
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert probe(neighbour, f"{THERE}:80")[0]["machine"] == "there"
    grown = procfs.own_kib(daemon.process.pid) - before
    assert grown < 16 * 1024, f"{grown} KiB"
    sink.kill()
    holding.close()


def test_a_sandbox_has_its_rate_over_all_connections(machines, start):
    """Four floods at once, as much as four seconds give; it would be a fraction of one otherwise."""
    sandbox = new_sandbox(start())
    flood = f"curl -s http://{THERE}/flood | wc -c"
    began = time.monotonic()
    assert sandbox.text(f"({flood}) & ({flood}) & ({flood}) & {flood}; wait").split() == [str(64 * 1024 * 1024)] * 4
    assert time.monotonic() - began > (4 * 64 - 8 - 64) / 64


def test_who_says_nothing_is_given_up(machines, start):
    """An address after ten seconds, so that the next one has its turn; a caller without a request likewise."""
    machines.set_names(**{"two.test": ["198.51.100.99", THERE], "dead.test": ["198.51.100.99"]})
    sandbox = new_sandbox(start())
    silent = "import socket; s = socket.create_connection(('127.0.0.1', 3128)); print(s.recv(1))"
    waiting = sandbox.start(f'python3 -c "{silent}"')
    began = time.monotonic()
    two = sandbox.start("python3 probe.py two.test:80")
    dead = probe(sandbox, "dead.test:80")[0]
    assert (dead["status"], dead["text"]) == (502, "the endpoint cannot be reached\n")
    assert time.monotonic() - began > 9.9
    assert json.loads(two.finish().stdout)[0]["address"] == THERE
    assert waiting.finish().stdout == b"b''\n"


def test_bodies_pass_both_ways_whole(machines, start):
    machines.set_names(**{"peer.test": [THERE]})
    sandbox = new_sandbox(start())
    both = "head -c 20000000 /dev/zero > z; curl -s -T z http://peer.test/; curl -s {} http://peer.test/flood | wc -c"
    for how in ("", "--proxytunnel"):
        told, received = re.fullmatch(r"(\{.*\})(\d+)\n", sandbox.text(both.format(how))).groups()
        assert json.loads(told)["body_bytes"] == 20000000 and int(received) == 64 * 1024 * 1024
    chunked = "curl -s -H 'Transfer-Encoding: chunked' -T - http://peer.test/ < z"
    assert json.loads(sandbox.text(chunked))["body_bytes"] == 20000000
