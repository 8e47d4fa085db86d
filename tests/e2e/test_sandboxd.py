"""sandboxd on its own: E2B's API on a unix socket, and what a sandbox can and cannot do."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness import procfs
from sandboxd_client import BUILD, SLOW, Daemon, children_of, cmdline, comm, facts, wait_for

TRUNCATED = (http.client.IncompleteRead, ConnectionError)


class Echo(BaseHTTPRequestHandler):
    """A service on the host's loopback."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"hello from the host")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def host_service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


# --- the control API ---


def test_a_created_sandbox_answers_in_e2b_shape(daemon):
    answer = daemon.post("/sandboxes", {"templateID": "base", "timeout": 60, "secure": True, "metadata": {"k": "v"}})
    assert answer.status == 201
    created = answer.json
    assert created["sandboxID"].startswith("i") and len(created["sandboxID"]) == 21
    assert created["clientID"] == "6532622b" and created["envdVersion"] and len(created["envdAccessToken"]) == 64
    detail = daemon.call("GET", f"/sandboxes/{created['sandboxID']}").json
    assert detail["state"] == "running" and detail["metadata"] == {"k": "v"} and detail["volumeMounts"] == []
    assert detail["startedAt"].endswith("Z") and detail["endAt"] > detail["startedAt"]


def test_v2_always_gives_a_token(daemon):
    assert daemon.create("/v2/sandboxes").token


@pytest.mark.parametrize("body, status, message", [
    ({"templateID": "nope"}, 404, "template 'nope' not found"),
    ({"templateID": "../base"}, 404, "template '../base' not found"),
    ({"templateID": "base", "timeout": 0}, 400, "Timeout must be greater than 0"),
    ({"templateID": "base", "timeout": 86401}, 400, "Timeout cannot be greater than 24 hours"),
    ({}, 400, "validation error: templateID is missing"),
])  # fmt: skip
def test_a_wrong_create_is_refused_in_words(daemon, body, status, message):
    answer = daemon.post("/sandboxes", body)
    assert (answer.status, answer.json) == (status, {"code": status, "message": message})
    assert daemon.children == []


def test_delete_is_204_then_404(sandbox):
    assert sandbox.kill().status == 204
    again = sandbox.kill()
    assert again.status == 404
    assert again.json["message"] == f"Sandbox \"{sandbox.id}\" doesn't exist or you don't have access to it"


def test_both_kinds_of_health(daemon, sandbox):
    api = daemon.call("GET", "/health")
    assert (api.status, api.body) == (200, b"Health check successful")
    assert sandbox.call("GET", "/health").status == 204
    by_host = daemon.call("GET", "/health", headers={"Host": f"49983-{sandbox.id}.e2b.local"})
    assert by_host.status == 204
    sandbox.kill()
    gone = sandbox.call("GET", "/health")
    assert gone.status == 502
    assert gone.json == {"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502}


def test_unknown_paths_and_methods_are_json(daemon, sandbox):
    assert daemon.call("GET", "/nothing").json["code"] == 404
    wrong = daemon.call("PUT", "/sandboxes")
    assert wrong.status == 405 and wrong.json["code"] == 405 and "POST" in wrong.headers["Allow"]
    assert sandbox.call("POST", "/init", "{}").json["path"] == "/init"
    other_port = daemon.call("GET", "/", headers={"E2b-Sandbox-Id": sandbox.id, "E2b-Sandbox-Port": "8080"})
    assert other_port.status == 502 and other_port.json["port"] == 8080


def test_list_filters_by_metadata_and_pages(daemon):
    wanted = {"a b": "c&d=é", "plain": "1"}
    mine = [daemon.create(metadata=wanted).id for _ in range(3)]
    daemon.create(metadata={"plain": "1"})
    query = "metadata=a%252520b%3Dc%252526d%25253D%2525C3%2525A9%26plain%3D1&state=running&limit=2"
    first = daemon.call("GET", f"/v2/sandboxes?{query}")
    assert [entry["sandboxID"] for entry in first.json] == [mine[2], mine[1]]
    token = first.headers["X-Next-Token"]
    second = daemon.call("GET", f"/v2/sandboxes?{query}&nextToken={token}")
    assert [entry["sandboxID"] for entry in second.json] == [mine[0]] and "X-Next-Token" not in second.headers
    assert daemon.call("GET", f"/v2/sandboxes?order=asc&nextToken={token}").json["message"] == "Invalid next token"
    assert daemon.call("GET", "/v2/sandboxes?limit=0").status == 400
    assert daemon.call("GET", "/v2/sandboxes?metadata=novalue").json["message"] == "Error parsing metadata"
    assert daemon.call("GET", "/v2/sandboxes?state=paused").json == []


@pytest.mark.alone
def test_a_sandbox_ends_at_its_time(daemon):
    """What stalls us or sandboxd only makes it worse: the promise holds if one of these shows it."""
    late = []
    while not late or min(late) >= 0.2 * SLOW:
        assert len(late) < 5, late
        began = time.monotonic()
        sandbox = daemon.create(timeout=2)
        assert sandbox.start("sleep 60").finish().trailer is None
        late.append(time.monotonic() - began - 2)
        assert late[-1] > -0.01
        assert sandbox.call("GET", "/health").status == 502
    wait_for(lambda: daemon.children == [], "no process left")


def test_timeout_can_shorten_and_lengthen(daemon):
    sandbox = daemon.create(timeout=3)  # time enough to ask for more
    path = f"/sandboxes/{sandbox.id}/timeout"
    assert daemon.post(path, {"timeout": 60}).status == 204
    stream = sandbox.start("sleep 3.3; echo alive")
    assert stream.finish().stdout == b"alive\n"
    assert daemon.post(path, {"timeout": 0}).status == 204
    wait_for(lambda: sandbox.call("GET", "/health").status == 502, "expired")
    assert daemon.post(path, {"timeout": 60}).status == 404


# --- commands ---


def test_a_command_streams_its_output_and_its_end(sandbox):
    result = sandbox.run("echo hi; echo err >&2; exit 3")
    assert (result.stdout, result.stderr) == (b"hi\n", b"err\n")
    assert "start" in result.events[0] and result.events[0]["start"]["pid"] > 1
    assert result.end == {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}
    assert result.trailer == {}


def test_success_has_no_exit_code(sandbox):
    assert sandbox.run("true").end == {"exited": True, "status": "exit status 0"}


def test_the_start_event_comes_before_the_output(sandbox):
    stream = sandbox.start("sleep 60")
    assert "start" in stream.next()
    stream.close()


def test_environment_and_directory(daemon):
    sandbox = daemon.create(envVars={"A": "global", "B": "global"})
    text = sandbox.run("echo $A $B $E2B_SANDBOX $E2B_SANDBOX_ID $HOME $USER; pwd; echo $PATH", envs={"B": "own"},
                       cwd="~").stdout.decode().splitlines()  # fmt: skip
    assert text[0] == f"global own true {sandbox.id} /home/user user"
    assert text[1:] == ["/home/user", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def test_failures_before_the_start_are_an_end_of_stream(sandbox):
    def error(**how):
        return sandbox.run("true", **how).trailer["error"]

    assert error(cwd="/nope") == {"code": "invalid_argument", "message": "cwd '/nope' does not exist"}
    assert error(cmd="/no/such/program")["message"].startswith("error starting process '/no/such/program'")
    nobody = error(headers={"Authorization": "Basic bm9zdWNoOg=="})
    assert nobody == {"code": "unauthenticated", "message": "invalid username: 'nosuch'"}
    assert error(headers={"Connect-Timeout-Ms": "12x"})["code"] == "invalid_argument"
    assert sandbox.run("id -un", headers={"Authorization": "Basic cm9vdDo="}).stdout == b"user\n"


def test_connect_timeout_ends_the_stream_and_the_process(sandbox):
    result = sandbox.run("sleep 60", headers={"Connect-Timeout-Ms": "300"})
    assert result.trailer == {"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}}
    wait_for(lambda: sandbox.rpc("List", {}).json == {}, "the process is gone")


def test_keepalives_come_while_nothing_is_said(sandbox):
    stream = sandbox.start("sleep 60", headers={"Keepalive-Ping-Interval": "1"})
    assert "start" in stream.next()
    assert stream.next() == {"keepalive": {}}
    stream.close()


def test_signals_and_list(sandbox):
    stream = sandbox.start("echo go; exec sleep 60")
    pid = stream.next()["start"]["pid"]
    stream.next()
    listed = sandbox.rpc("List", {}).json["processes"]
    assert [(p["pid"], p["config"]["cmd"]) for p in listed] == [(pid, "/bin/bash")]
    assert sandbox.rpc("SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}).json == {}
    assert stream.finish().end == {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}
    missing = sandbox.rpc("SendSignal", {"process": {"pid": 999999}, "signal": "SIGNAL_SIGKILL"})
    assert (missing.status, missing.json["code"]) == (404, "not_found")


def test_a_client_that_leaves_kills_nothing(sandbox):
    stream = sandbox.start("for i in $(seq 50); do echo $i; sleep 0.01; done; touch ~/done; sleep 60")
    stream.next()
    stream.close()
    wait_for(lambda: sandbox.read("/home/user/done").status == 200, "the command ran on")


def test_the_end_waits_for_the_pipes(sandbox):
    result = sandbox.run("(sleep 0.5; echo late) & echo early")
    assert result.stdout == b"early\nlate\n"


def test_a_slow_reader_stalls_the_command_and_loses_nothing(daemon, sandbox):
    size = 8_000_000
    stream = sandbox.start(f"head -c {size} /dev/zero | tr '\\0' x; echo end > ~/written")
    assert "start" in stream.next()
    before = resident_kib(daemon.process.pid)
    time.sleep(0.5)  # nothing to wait for: that it does *not* go on
    assert sandbox.read("/home/user/written").status == 404
    assert resident_kib(daemon.process.pid) - before < 4096 * SLOW
    assert stream.finish().stdout == b"x" * size


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_many_commands_at_once(sandbox):
    streams = [sandbox.start(f"echo {i}; sleep 0.2; echo {i}") for i in range(30)]
    assert [stream.finish().stdout for stream in streams] == [f"{i}\n{i}\n".encode() for i in range(30)]


def test_the_programs_agents_need_run(sandbox):
    if shutil.which("node", path="/usr/bin:/usr/local/bin"):
        assert sandbox.text("node -e 'console.log([1,2].map(x => x * 2).join())'") == "2,4\n"
    assert (
        sandbox.text("python3 -c 'import sqlite3, ssl; print(sqlite3.connect(\":memory:\") is not None)'") == "True\n"
    )
    sandbox.text("git init -q repo && cd repo && git config user.email a@b && git config user.name n"
                 " && touch x && git add x && git commit -qm x")  # fmt: skip
    assert sandbox.text("echo out > /dev/stdout; echo x > /tmp/x; cat /tmp/x") == "out\nx\n"


# --- files ---


def test_files_go_up_in_one_request_and_come_down(sandbox):
    files = {"/opt/agent-runner/r.mjs": b"code", "rel/b.bin": bytes([0, 255, 10, 13]), "/home/user/x y/é.txt": b"",
             "/tmp/%22.txt": b"\r\n--b0undar"}  # fmt: skip
    answer = sandbox.upload(files)
    assert answer.status == 200, answer
    paths = ["/opt/agent-runner/r.mjs", "/home/user/rel/b.bin", "/home/user/x y/é.txt", "/tmp/%22.txt"]
    assert [(entry["path"], entry["type"]) for entry in answer.json] == [(path, "file") for path in paths]
    assert [entry["name"] for entry in answer.json] == ["r.mjs", "b.bin", "é.txt", "%22.txt"]
    for path, content in zip(paths, files.values(), strict=True):
        down = sandbox.read(path)
        assert (down.status, down.body) == (200, content) and down.headers["Content-Length"] == str(len(content))
    assert sandbox.text("stat -c %U:%a ~/rel ~/rel/b.bin") == "user:755\nuser:644\n"


def test_octet_stream_and_path_for_every_part(sandbox):
    kind = {"Content-Type": "application/octet-stream"}
    assert sandbox.call("POST", "/files?path=~/o.bin", b"raw", kind).json[0]["path"] == "/home/user/o.bin"
    assert sandbox.read("o.bin").body == b"raw"
    assert sandbox.upload({"ignored": b"x"}, "?path=%2Ftmp%2Fp").json[0]["path"] == "/tmp/p"
    assert sandbox.call("POST", "/files", b"raw", kind).status == 400
    assert sandbox.call("POST", "/files?path=x", b"raw", {"Content-Type": "text/plain"}).status == 400


def test_chunked_bodies_are_taken(sandbox):
    kind = {"Content-Type": "application/octet-stream"}
    pieces = iter([b"one", b"two"])  # without a length http.client sends chunks
    assert sandbox.call("POST", "/files?path=c", pieces, kind).status == 200
    assert sandbox.read("c").body == b"onetwo"


def test_a_large_file_survives(sandbox):
    content = os.urandom(20_000_000)
    sandbox.upload({"/home/user/large": content})
    assert sandbox.read("large").body == content


def test_wrong_files_are_refused_in_words(sandbox):
    sandbox.text("mkfifo ~/fifo; ln -s /etc/passwd ~/link")
    missing = sandbox.read("/nope")
    assert (missing.status, missing.json) == (404, {"code": 404, "message": "path '/nope' does not exist"})
    assert sandbox.read("/tmp").json == {"code": 400, "message": "path '/tmp' is a directory"}
    assert sandbox.read("fifo").status == 400
    assert sandbox.upload({"fifo": b"x"}).status == 500
    assert sandbox.upload({"/tmp": b"x"}).json["message"] == "path is a directory: /tmp"
    assert sandbox.upload({"/usr/x": b"x"}).status == 500
    assert sandbox.upload({"a": b"1", "./../user/a": b"1"}).status == 200
    assert sandbox.read("link").body.startswith(b"root:x:0:0")  # the sandbox's own, not the host's
    assert sandbox.call("GET", "/files?path=x&username=nobody").status == 401


def test_a_full_disk_is_507(start_daemon):
    sandbox = start_daemon("--disk-mib", 16).create()
    answer = sandbox.upload({"big": bytes(20_000_000)})
    assert answer.status == 507 and "not enough disk space available" in answer.json["message"]


def test_a_body_over_the_limit_is_413(daemon, sandbox):
    api = daemon.call("POST", "/sandboxes", bytes(16 * 1024 * 1024 + 1))
    rpc = sandbox.call("POST", "/process.Process/List", bytes(64 * 1024 * 1024 + 1), {"Content-Type": "application/json"})
    assert [(answer.status, answer.json["code"]) for answer in (api, rpc)] == [(413, 413)] * 2


def test_a_secure_sandbox_wants_its_token(daemon):
    sandbox = daemon.create(secure=True)
    token, sandbox.token = sandbox.token, None
    assert sandbox.read("/etc/passwd").json["message"] == "missing signature query parameter"
    refused = sandbox.rpc("List", {})
    assert (refused.status, refused.json["code"]) == (401, 401)
    sandbox.token = "0" * 64
    assert sandbox.read("/etc/passwd").json["message"] == "access token present in header but does not match"
    assert sandbox.call("GET", "/health").status == 204
    sandbox.token = token
    assert sandbox.read("/etc/passwd").status == 200 and sandbox.rpc("List", {}).status == 200


# --- what a sandbox cannot do ---


def test_two_sandboxes_see_nothing_of_each_other(daemon):
    one, other = daemon.create(), daemon.create()
    one.upload({"/home/user/secret": b"s", "/tmp/secret": b"s", "/opt/agent-runner/secret": b"s"})
    hidden = one.start("exec -a find-me-in-ps sleep 60; ")
    hidden.next()
    look = "ls -A /home/user /tmp /opt/agent-runner /var/tmp /dev/shm; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    wait_for(lambda: "find-me" in one.text(look), "one sees its own process")
    seen = other.text(look)
    assert "secret" not in seen and "find-me" not in seen
    assert "secret" not in other.text("find / -xdev -name secret 2>/dev/null; true")
    hidden.close()


def test_a_sandbox_sees_nothing_of_the_host(sandbox, folder):
    (folder / "host-secret").write_text("x")
    assert sandbox.text(f"ls {folder} /root /home /srv 2>/dev/null; true").split() == ["/home:", "user"]
    assert sandbox.text("ls /proc | grep -c '^[0-9]'").strip() in {"3", "4", "5"}
    assert sandbox.text("cat /proc/1/environ /proc/1/maps 2>/dev/null; ls /proc/1/fd 2>/dev/null; true") == ""
    assert os.uname().nodename not in sandbox.text("uname -n; cat /etc/hosts; cat /etc/passwd")


def test_a_sandbox_has_no_powers(sandbox):
    status = sandbox.text("cat /proc/self/status")
    caps = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
    assert set(caps) == {"0000000000000000"}
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
    for command in ("touch /x", "touch /usr/x", "touch /etc/x", "touch /dev/x", "unshare -U true", "mount -t tmpfs x /tmp",
                    "kill -9 1 && sleep 0.2 && kill -0 1 && false", "echo x > /proc/sys/kernel/core_pattern"):  # fmt: skip
        assert sandbox.run(command).end.get("exitCode", 0) != 0, command
    assert sandbox.call("GET", "/health").status == 204


def test_what_can_be_written_is_bounded(start_daemon):
    sandbox = start_daemon("--disk-mib", 16, "--processes", 128).create()
    result = sandbox.run("head -c 20000000 /dev/zero > ~/big")
    assert b"No space left" in result.stderr
    assert b"No space left" in sandbox.run("head -c 100000000 /dev/zero > /dev/shm/big").stderr
    bomb = sandbox.run("for i in $(seq 300); do sleep 5 & done 2>/dev/null; jobs -p | wc -l; kill $(jobs -p)")
    assert 0 <= int(bomb.stdout or b"0") < 128
    wait_for(lambda: sandbox.run("true").end == {"exited": True, "status": "exit status 0"}, "it recovers")


# --- the end ---


def test_kill_ends_every_process_and_cuts_the_streams(daemon):
    sandbox, other = daemon.create(), daemon.create()
    streams = [sandbox.start("setsid sleep 1000 & trap '' TERM INT HUP; sleep 1000") for _ in range(3)]
    survivor = other.start("sleep 0.5; echo survived")
    for stream in streams:
        assert "start" in stream.next()
    wait_for(lambda: len(daemon.children) >= 3 + 2 + 6, "all sleep")
    assert sandbox.kill().status == 204
    left = [procfs.command(pid) for pid in daemon.children]
    assert not [line for line in left if "1000" in line]
    for stream in streams:
        with pytest.raises(TRUNCATED):
            stream.next()
        stream.close()
    assert survivor.finish().stdout == b"survived\n"


def shared_places() -> set[tuple[str, int]]:
    """What lies where every program may put something, and whose it is."""
    found = set()
    for folder in ("/dev/shm", "/tmp"):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                found.add((entry.path, entry.stat(follow_symlinks=False).st_uid))
    return found


def owner(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


def make_and_kill_sandboxes(daemon) -> set[int]:
    """Twenty of them, with files and processes; the users that they ran as."""
    users = set()
    for _ in range(5):
        sandboxes = [daemon.create() for _ in range(4)]
        for sandbox in sandboxes:
            sandbox.upload({"/home/user/f": b"x" * 1000})
            sandbox.start("sleep 1000 & sleep 1000").next()
        users |= set(facts(daemon.children, owner).values())
        assert all(sandbox.kill().status == 204 for sandbox in sandboxes)
        assert daemon.children == []
    return users


@pytest.mark.alone
def test_nothing_is_left_of_sandboxes(daemon, folder):
    """Others use the shared places too: what is new there after each try is a sandbox's, or what a sandbox owns at once."""
    mounts = Path("/proc/self/mounts").read_text()
    for _ in range(3):
        before = shared_places()
        users = make_and_kill_sandboxes(daemon) - {os.geteuid()}
        left = shared_places() - before
        with suppress(AssertionError):  # what others use for a moment
            wait_for(lambda: not left & shared_places(), "others to take theirs away", 5)
        left &= shared_places()
        assert not [path for path, owner in left if owner in users]
        if not left:
            break
    assert not left
    wait_for(lambda: daemon.descriptors == daemon.idle_fds, "descriptors given back")
    assert Path("/proc/self/mounts").read_text() == mounts
    assert sorted(os.listdir(daemon.folder)) == ["log", "sandboxd.sock"]


def test_a_killed_daemon_takes_its_sandboxes_along(start_daemon):
    daemon = start_daemon()
    daemon.create().start("sleep 1000 & sleep 1000").next()
    children = wait_for(lambda: len(daemon.children) >= 4 and daemon.children, "all sleep")
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    wait_for(lambda: not [pid for pid in children if procfs.is_alive(pid)], "all died")


def test_a_sandbox_whose_init_dies_is_gone(daemon, sandbox):
    stream = sandbox.start("sleep 1000")
    stream.next()
    [init] = [pid for pid, name in facts(daemon.children, comm).items() if "sandbox-init" in name]
    os.kill(init, signal.SIGKILL)
    assert stream.finish().trailer is None
    wait_for(lambda: sandbox.call("GET", "/health").status == 502, "gone")
    wait_for(lambda: daemon.children == [], "reaped")


# --- the network ---


def test_without_endpoints_there_is_no_network(start_daemon, host_service):
    sandbox = start_daemon("--network", "none").create()
    assert "PROXY" not in sandbox.text("env")
    assert sandbox.run(f"exec 3<>/dev/tcp/127.0.0.1/{host_service}").end["exitCode"] != 0
    assert sandbox.run("exec 3<>/dev/tcp/127.0.0.1/3128").end["exitCode"] != 0
    assert sandbox.text("cat /sys/class/net/*/operstate 2>/dev/null; wc -l < /proc/net/route").strip() in {"0", "1"}


GET = (
    "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/', timeout=30).read().decode())\""
)


def test_an_allowed_loopback_endpoint_is_reached_at_its_own_address(start_daemon, host_service):
    with socket.create_server(("127.0.0.1", 0)) as other:
        sandbox = start_daemon("--network", "none", "--network-allow", f"127.0.0.1:{host_service}").create()
        assert sandbox.text(GET.format(port=host_service)) == "hello from the host\n"
        refused = sandbox.run(f"exec 3<>/dev/tcp/127.0.0.1/{other.getsockname()[1]}")
        assert b"Connection refused" in refused.stderr
        assert "PROXY" not in sandbox.text("env")


def test_the_gate_relays_bodies_both_ways(start_daemon, host_service):
    sandbox = start_daemon("--network-allow", f"127.0.0.1:{host_service}").create()
    program = (
        "import urllib.request as u, hashlib, os; b = os.urandom(5000000)\n"
        f"r = u.urlopen('http://127.0.0.1:{host_service}/', data=b, timeout=60).read()\n"
        "print(r == b, len(r))"
    )
    sandbox.upload({"/home/user/t.py": program.encode()})
    assert sandbox.text("python3 t.py") == "True 5000000\n"
    many = " & ".join(["python3 t.py"] * 5) + " & wait"
    assert sandbox.text(many) == "True 5000000\n" * 5


def test_connections_end_with_their_sandbox(start_daemon, host_service):
    daemon = start_daemon("--network-allow", f"127.0.0.1:{host_service}")
    sandbox = daemon.create()
    stream = sandbox.start(f"exec 3<>/dev/tcp/127.0.0.1/{host_service}; echo open; sleep 1000")
    stream.next(), stream.next()
    sandbox.kill()
    stream.close()
    wait_for(lambda: daemon.descriptors == daemon.idle_fds, "descriptors given back")


# --- templates, users, the program ---


def test_a_template_is_read_only_in_every_sandbox(start_daemon, folder):
    package = folder / "templates" / "mine" / "node_modules" / "thing"
    package.mkdir(parents=True)
    (package / "index.js").write_text("exports.x = 1\n")
    daemon = start_daemon("--template-dir", folder / "templates")
    sandbox = daemon.create(templateID="Mine")
    assert sandbox.read("/opt/agent-runner/node_modules/thing/index.js").body == b"exports.x = 1\n"
    assert sandbox.run("touch /opt/agent-runner/node_modules/x").end["exitCode"] != 0
    assert sandbox.upload({"/opt/agent-runner/runner.mjs": b"x"}).status == 200
    assert daemon.create(templateID="base").run("ls /opt/agent-runner").stdout == b""
    assert list(package.parent.iterdir()) == [package]


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as an ordinary user already")
def test_it_works_for_an_ordinary_user(start_daemon, folder):
    programs = folder / "programs"
    programs.mkdir()
    for name in ("sandboxd", "sandbox-init"):
        shutil.copy(BUILD / name, programs)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            os.chmod(path, path.stat().st_mode | 0o711)
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    daemon = start_daemon(prefix=user, program=programs / "sandboxd", owner=65534)
    one, other = daemon.create(), daemon.create()
    assert one.text("id -u; id -un; pwd") == "1000\nuser\n/home/user\n"
    one.upload({"/home/user/f": b"x"})
    assert one.read("f").body == b"x" and other.read("f").status == 404
    one.start("sleep 1000").next()
    assert one.kill().status == 204 and other.kill().status == 204
    assert daemon.children == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has one uid")
def test_as_root_every_sandbox_has_a_host_uid_of_its_own(daemon):
    for _ in range(2):
        daemon.create().start("sleep 1000").next()

    def owners() -> set[int]:
        lines = facts(daemon.children, cmdline)
        return set(facts([pid for pid, line in lines.items() if b"1000" in line], owner).values())

    wait_for(lambda: len(owners()) == 2, "the two commands, each of a user of its own")
    assert 0 not in owners()
    everybody = [pid for pid, line in facts(children_of(daemon.process.pid), cmdline).items() if b"bwrap" in line]
    assert all("Uid:\t0" not in Path(f"/proc/{pid}/status").read_text() for pid in everybody)


def test_check_says_whether_this_machine_can(folder):
    good = subprocess.run([BUILD / "sandboxd", "--check"], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "sandboxd: this machine can run sandboxes\n"), good
    bad = subprocess.run([BUILD / "sandboxd", "--check", "--init", "/bin/false"], capture_output=True, text=True)
    assert bad.returncode == 1 and "cannot run sandboxes" in bad.stderr


@pytest.mark.parametrize("args", [["--bogus"], ["extra"], ["--network-allow", "nohost"], ["--network", "all"], ["--processes", "5"]])
def test_usage_errors_exit_2(args):
    assert subprocess.run([BUILD / "sandboxd", *args], capture_output=True).returncode == 2


def test_a_start_failure_says_why(folder):
    no_folder = subprocess.run([BUILD / "sandboxd", "--socket", folder / "no/s"], capture_output=True, text=True)
    assert no_folder.returncode == 1 and "No such file or directory" in no_folder.stderr
    no_socket = subprocess.run([BUILD / "sandboxd"], capture_output=True, text=True)
    assert no_socket.returncode == 1 and "LISTEN_FDS" in no_socket.stderr


def test_a_second_daemon_leaves_the_first_ones_socket(daemon):
    second = subprocess.run([BUILD / "sandboxd", "--socket", daemon.socket], capture_output=True, text=True)
    assert second.returncode == 1 and "in use" in second.stderr
    assert daemon.call("GET", "/health").status == 200


def test_an_inherited_socket_is_served(folder):
    path = folder / "inherited.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        program = 'exec 3<&$1; shift; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        process = subprocess.Popen(["bash", "-c", program, "x", str(listener.fileno()), BUILD / "sandboxd"],
                                   pass_fds=[listener.fileno()], stderr=subprocess.PIPE)  # fmt: skip
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(str(path))
    client.request("GET", "/health")
    assert client.getresponse().status == 200
    client.close()
    process.terminate()
    assert process.wait(10 * SLOW) == 0, process.stderr.read()
    process.stderr.close()


@pytest.mark.alone
def test_create_and_first_command_take_60_ms(daemon):
    """What else goes on on the machine only makes it worse: the promise holds if the median of one round shows it."""
    medians = []
    while not medians or min(medians) >= 0.060 * SLOW:
        assert len(medians) < 5, medians
        taken = []
        for _ in range(15):
            started = time.monotonic()
            sandbox = daemon.create()
            assert sandbox.text("echo hi") == "hi\n"
            taken.append(time.monotonic() - started)
            sandbox.kill()
        medians.append(sorted(taken)[len(taken) // 2])
    print(json.dumps({"create_and_first_command_ms": round(min(medians) * 1000, 1)}))
