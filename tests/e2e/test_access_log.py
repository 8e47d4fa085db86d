"""The access log: a line for each request, in two formats, through rotations and full disks, without a secret."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import struct

import httpx
import pytest
from harness import procfs
from harness.client import RawConnection, open_query, query, query_bytes, script, status_of
from harness.server import run_program
from harness.waiting import deadline, eventually, eventually_async

KEY = "k" * 40
COMMON = re.compile(
    r'(?P<client>\S+) - - \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] '
    r'"(?P<method>\S+) (?P<path>\S+) (?P<protocol>HTTP/1\.[01])" (?P<status>\d{3}|-) (?P<bytes>\d+) '
    r'"-" "(?P<agent>[^"\\]|(?:[^"\\]|\\x[0-9a-f]{2})*)" (?P<seconds>\d+\.\d{3})'
    r'(?: run=(?P<run>[0-9a-f]{16}) state=(?P<state>\w+) code=(?P<code>\w+|-) first_event=(?P<first>\d+\.\d{3}|-) '
    r'events=(?P<events>\d+) sandbox=(?P<sandbox>\S+) model="(?P<model>[^"]*)")?'
)  # fmt: skip


def common_lines(path) -> list[dict]:
    """Every line, by a parser that takes nothing else."""
    parsed = [COMMON.fullmatch(line) for line in path.read_text().splitlines()]
    assert all(parsed), path.read_text()
    return [match.groupdict() for match in parsed]


def json_lines(*paths) -> list[dict]:
    """Every line of these files."""
    text = "".join(path.read_text() for path in paths)
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


async def wait_lines(count: int, *paths) -> None:
    """A line is written when the client has taken the answer: it may see its end first."""
    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    await eventually_async(lambda: lines() >= count, 5, f"{count} lines in {paths}")
    assert lines() == count


@pytest.fixture
def access(tmp_path):
    """Where the access log is."""
    return tmp_path / "access.log"


@pytest.fixture
def start(start_server, access):
    """A server with one worker that writes a log."""

    def started(log_format: str, *args, **options):
        options = {"workers": 1} | options
        server = start_server("--access-log", access, "--access-log-format", log_format, *args, **options)
        httpx.get(f"{server.url}/the-last-probe", timeout=deadline(10))
        eventually(lambda: "/the-last-probe" in access.read_text(), 5, "the line of the last probe")
        os.truncate(access, 0)
        return server

    return started


# --- what the lines say ---


async def test_common_lines_say_what_the_clients_saw(start, access, client):
    server = start("common", env={"SANDSTORM_API_KEY": KEY})
    bearer = {"Authorization": f"Bearer {KEY}"}
    answers = []
    for method, target, headers in [("GET", "/health?deep=no", {}), ("HEAD", "/health", {}), ("GET", "/runs?limit=2", bearer),
                                    ("GET", "/runs", {}), ("GET", "/nope", {}), ("GET", "/docs", {}), ("PUT", "/query", {}),
                                    ("POST", "/query", bearer), ("GET", "/health/", {})]:  # fmt: skip
        with RawConnection(server) as raw:
            fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            raw.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: m\"e\r\n{fields}\r\n".encode())
            answers.append((method, target.partition("?")[0], raw.read_to_end() if target[:7] != "/health" or target == "/health/"
                            else raw.read_until(b"\r\n\r\n")))
    await wait_lines(len(answers), access)
    lines = common_lines(access)
    for line, (method, path, answer) in zip(lines, answers, strict=True):
        assert (line["method"], line["path"], line["client"]) == (method, path, "127.0.0.1")
        assert line["status"] == answer.split()[1].decode()
        assert line["agent"] == r"m\x22e"
        assert line["run"] is None
        if path != "/health":
            assert int(line["bytes"]) == len(answer)
    assert [line["status"] for line in lines] == ["200", "200", "200", "401", "404", "200", "405", "422", "307"]


async def test_common_lines_of_runs(start, access, client):
    server = start("common")
    answer = await query(client, server, script(events=3), model="m\u00f6del \"x\"")
    await wait_lines(1, access)
    (line,) = common_lines(access)
    assert (line["method"], line["path"], line["status"]) == ("POST", "/query", "200")
    assert (line["run"], line["state"], line["code"]) == (answer.run_id, "completed", "-")
    assert int(line["events"]) == len(answer.texts)
    assert 0 <= float(line["first"]) <= float(line["seconds"])
    assert line["model"] == r"m\xc3\xb6del \x22x\x22"


async def test_json_lines_of_runs_say_how_each_ended(start, access, client, double):
    server = start("json")
    completed = await query(client, server, script(events=3), model="m\u00f6del \"x\"")
    failed = await query(client, server, script(events=1, result=False, exit=3))
    async with open_query(client, server, script(events=1, hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
    double.inject("create", "status", status=400)
    refused = await query(client, server, script(events=1))
    invalid = await client.post(f"{server.url}/query", json={"prompt": 5})
    assert invalid.status_code == 422
    await wait_lines(5, access)
    by_run = {line.get("run_id"): line for line in json_lines(access)}
    line = by_run[completed.run_id]
    assert (line["status"], line["state"], line["error_code"], line["complete"]) == (200, "completed", None, True)
    assert line["events"] == len(completed.texts)
    assert 0 <= line["first_event_ms"] <= line["duration_ms"]
    assert line["bytes"] > sum(len(text) for text in completed.texts)
    assert line["model"] == "m\u00f6del \"x\""
    assert line["sandbox_id"] in {sandbox.id for sandbox in double.ledger.created()}
    assert {line["client"], line["method"], line["path"], line["protocol"]} == {"127.0.0.1", "POST", "/query", "HTTP/1.1"}
    assert line["user_agent"].startswith("python-httpx/")
    line = by_run[failed.run_id]
    assert (line["state"], line["error_code"], line["complete"]) == ("error", "agent_exit", True)
    assert line["events"] == len(failed.texts)
    line = by_run[stream.run_id]
    assert (line["status"], line["state"], line["error_code"], line["complete"]) == (200, "cancelled", "client_gone", False)
    line = by_run[refused.run_id]
    assert (line["state"], line["error_code"]) == ("error", "sandbox_create_failed")
    assert (line["sandbox_id"], line["first_event_ms"], line["model"]) == (None, None, None)
    line = by_run[None]
    assert (line["status"], line["path"]) == (422, "/query")
    assert "state" not in line and "events" not in line


@pytest.mark.parametrize("linger", [None, struct.pack("ii", 1, 0)])
def test_a_client_that_leaves_a_flood_has_a_line_with_its_run(start, access, double, linger):
    server = start("json", "--output-buffer", "64KiB")
    with RawConnection(server, receive_buffer=4096) as raw:
        raw.send(query_bytes(server, script(flood_mib=64)))
        head = raw.read_until(b'"seq":9')
        if linger:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    eventually(lambda: access.read_bytes().endswith(b"\n"), 10, "the line")
    (line,) = json_lines(access)
    assert line["run_id"].encode() in head
    assert (line["state"], line["error_code"], line["complete"]) == ("cancelled", "client_gone", False)
    assert line["bytes"] >= len(head) and line["events"] >= 9


async def test_json_lines_of_every_kind_of_end(start, access):
    # Longer than any of us may be kept from sending what is wanted in time.
    server = start("json", "--header-timeout", "2s", "--body-timeout", "2s", "--body-limit", "1KiB")
    head = b"POST /query HTTP/1.1\r\nHost: a\r\n"
    for request in (
        b"NONSENSE\r\n\r\n",  # 400
        b"GET /",  # 408
        head + b"Content-Length: 2000\r\n\r\n",  # 413
        head + b"Content-Length: 2\r\n\r\nx",  # 408, with a head
        b"GET /nope HTTP/1.0\r\nUser-Agent: \xff\xc3\xa9\r\n\r\n",  # 404
    ):
        with RawConnection(server) as raw:
            raw.send(request)
            raw.read_to_end()
    await wait_lines(5, access)
    with RawConnection(server) as raw:
        raw.send(head + b"Content-Length: 2\r\n\r\nx")  # and leaves
    await wait_lines(6, access)
    with RawConnection(server) as raw:
        raw.send(b"")  # nothing was asked
    with RawConnection(server) as raw:
        raw.send(b"GET /he")  # nor was this
    with RawConnection(server) as raw:
        for _ in range(3):
            raw.send(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
            raw.read_until(b'"}')
    await wait_lines(9, access)
    lines = json_lines(access)
    assert [line["status"] for line in lines] == [400, 408, 413, 408, 404, None, 200, 200, 200]
    assert [line["path"] for line in lines] == [None, None, "/query", "/query", "/nope", "/query"] + ["/health"] * 3
    assert [line["complete"] for line in lines] == [True] * 5 + [False] + [True] * 3
    assert {line["client"] for line in lines[:6]} == {"127.0.0.1"}
    assert {line["client"] for line in lines[6:]} == {"203.0.113.9"}
    assert (lines[4]["user_agent"], lines[4]["protocol"]) == ("\ufffd\u00e9", "HTTP/1.0")
    assert all(line["duration_ms"] >= 1990 for line in lines if line["status"] == 408)


async def test_lines_on_stderr_stand_beside_the_log(start_server, client):
    server = start_server("--access-log", "stderr", "--access-log-format", "json", workers=1)
    answer = await query(client, server, script(events=1))
    log = await asyncio.to_thread(server.wait_log, f'"run_id":"{answer.run_id}"')
    (line,) = [json.loads(line) for line in log.splitlines() if answer.run_id in line and line.startswith("{")]
    assert line["state"] == "completed"


async def test_a_flood_of_requests_has_a_line_each(start, access, client):
    server = start("json")
    for _ in range(100):
        assert (await client.get(f"{server.url}/nope")).status_code == 404
    await wait_lines(100, access)


# --- the file ---


async def test_it_is_off_by_default(server, client, tmp_path):
    await query(client, server, script(events=1))
    assert '"POST /query' not in server.stderr
    for pid in server.workers():
        assert not [path for path in procfs.descriptors(pid).values() if path.endswith("access.log")]


@pytest.mark.parametrize("mode", [["--check"], []])
def test_a_file_that_cannot_be_opened_refuses_the_start(tmp_path, mode):
    done = run_program(*mode, "--access-log", "/nonexistent/a", "--state-dir", str(tmp_path), env={"E2B_API_KEY": "e2b_00"})
    assert done.returncode == 1
    assert "setting access_log: /nonexistent/a: No such file or directory" in done.stderr


async def test_a_reload_turns_it_on_and_off(start_server, client, access, tmp_path):
    config = tmp_path / "sandstorm.conf"
    config.write_text("")
    server = start_server("--config", config, workers=1)
    for generation, text in [(2, f"access_log = {access}\n"), (3, f"access_log = {access}\naccess_log_format = json\n"), (4, "")]:
        config.write_text(text)
        old = server.workers()
        server.signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait_log, f"generation {generation} serves")
        # The old workers hear of it a moment later, and take connections until then.
        await eventually_async(lambda: not old & server.workers(), 10, "the end of the old workers")  # noqa: B023
        await query(client, server, script(events=1))
        if generation == 2:
            await wait_lines(1, access)
            common_lines(access)
            access.unlink()
    await wait_lines(1, access)
    assert [line["path"] for line in json_lines(access)] == ["/query"]
    config.write_text("access_log = /nonexistent/a\n")
    server.signal(signal.SIGHUP)
    await asyncio.to_thread(server.wait_log, "reload refused")
    assert "setting access_log: /nonexistent/a: No such file or directory" in server.stderr


async def test_a_rotation_under_load_loses_and_tears_no_line(start, access, client):
    server = start("json", workers=4)
    sent: list[str] = []
    done = asyncio.Event()

    async def load(name: int):
        async with httpx.AsyncClient(trust_env=False, timeout=deadline(30)) as own:
            while not done.is_set():
                sent.append(f"client {name} request {len(sent)}")
                target = "/health" if name % 2 else "/nope"
                await own.get(f"{server.url}{target}", headers={"User-Agent": sent[-1], "Connection": "close"})

    tasks = [asyncio.create_task(load(name)) for name in range(16)]
    for number in range(1, 6):
        before = len(sent)
        await eventually_async(lambda: len(sent) > before + 200, 60, "some requests")  # noqa: B023
        old = access.rename(f"{access}.{number}")
        server.signal(signal.SIGUSR1)
        await eventually_async(
            lambda: not any(str(old) in procfs.descriptors(pid).values() for pid in server.workers()),  # noqa: B023
            10, "the workers to let go of the old file",
        )  # fmt: skip
    done.set()
    await asyncio.gather(*tasks)
    files = [access, *access.parent.glob("access.log.*")]

    def is_written() -> bool:
        texts = [path.read_text() for path in files]
        written = sum(text.count('"user_agent":"client ') for text in texts)
        return written == len(sent) and all(text.endswith("\n") for text in texts if text)

    await eventually_async(is_written, 5, "a line for each request")
    agents = [line["user_agent"] for line in json_lines(*files)]
    assert sorted(agent for agent in agents if agent.startswith("client ")) == sorted(sent)
    assert all(path.stat().st_size > 0 for path in files if path != access)


async def test_a_full_disk_costs_lines_and_nothing_else(start, access, client):
    server = start("json")
    access.write_text("".join(f'{{"filler":"{"x" * 986}"}}\n' for _ in range(1000)))  # more than all other files
    (worker,) = server.workers()
    size = access.stat().st_size
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))
    for _ in range(5):
        with RawConnection(server) as raw:
            raw.send(b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status_of(raw.read_to_end()) == 404
    log = await asyncio.to_thread(server.wait_log, "its lines are lost")
    assert f"error: cannot write the access log {access}, its lines are lost: File too large" in log
    assert access.stat().st_size == size + 40
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (await client.get(f"{server.url}/docs")).status_code == 200
    assert (await client.get(f"{server.url}/docs")).status_code == 200
    log = await asyncio.to_thread(server.wait_log, "lines of the access log")
    lost = int(re.search(rf"error: (\d+) lines of the access log {access} are lost: File too large", log)[1])
    assert lost >= 4
    # The last one's connection may be closed before its line is written: then there was room for it.
    late = ["/nope"] * (5 - lost)
    await wait_lines(1000 + 3 + len(late), access)
    torn, *whole = access.read_text()[size:].splitlines()
    assert len(torn) == 40
    assert [json.loads(line)["path"] for line in whole] == [*late, "/docs", "/docs"]


# --- secrets ---


@pytest.mark.parametrize("log_format", ["common", "json"])
async def test_no_secret_is_in_any_log(start, access, client, double, tmp_path, log_format):
    log = tmp_path / "sandstorm.log"
    project = tmp_path / "project"
    project.mkdir()

    def secret(name: str) -> str:
        return f"SECRET-{name}-" + "s" * 32

    (project / ".env").write_text(f"DOTENV_TOKEN={secret('dotenv')}\n")
    (project / "sandstorm.json").write_text(
        json.dumps({"mcp_servers": {"m": {"command": "x", "env": {"T": "${DOTENV_TOKEN}", "U": secret("mcp")}}}})
    )
    server = start(
        log_format, "--log-file", log, "--log-level", "debug", "--project-dir", project,
        env={"SANDSTORM_API_KEY": secret("key"), "SANDSTORM_API_KEY_PREVIOUS": secret("previous"),
             "ANTHROPIC_API_KEY": secret("anthropic"), "ANTHROPIC_AUTH_TOKEN": secret("auth")},
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {secret('key')}", "Cookie": secret("cookie"), "X-Api-Key": secret("x"),
               "Referer": f"http://a/{secret('referer')}"}  # fmt: skip
    body = {"anthropic_api_key": secret("body-anthropic"), "openrouter_api_key": secret("body-openrouter"),
            "user_id": secret("user"), "files": {"a.txt": secret("file")}, "model": "a model",
            "prompt": script(events=2, marker=secret("prompt"), stderr=[[1, secret("stderr")]])}  # fmt: skip
    answer = await client.post(f"{server.url}/query", json=body, headers=headers)
    assert '"type":"result"' in answer.text
    await client.post(f"{server.url}/query", json={"prompt": 5, "e2b_api_key": secret("body-e2b")}, headers=headers)
    answer = await client.post(f"{server.url}/query", json=body | {"e2b_api_key": double.key}, headers=headers)
    assert '"type":"result"' in answer.text
    double.inject("create", "status", status=500, body=json.dumps({"code": 500, "message": "broken"}))
    await client.post(f"{server.url}/query", json=body, headers=headers)
    for authorization in (f"Bearer {secret('wrong')}", f"Basic {secret('basic')}", f"Bearer {secret('previous')}"):
        await client.get(f"{server.url}/runs", headers={"Authorization": authorization})
    await client.get(f"{server.url}/runs?token={secret('query')}", headers=headers)
    with RawConnection(server) as raw:
        raw.send(f"GET http://user:{secret('userinfo')}@h/nope?a={secret('query')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        raw.read_to_end()
    with RawConnection(server) as raw:
        raw.send(query_bytes(server, "x", extra=f"Authorization: Bearer {secret('key')}\r\n") + secret("after").encode())
        raw.read_to_end()
    await eventually_async(lambda: access.read_text().count("\n") >= 9, 5, "the lines")
    assert server.stop() == 0
    texts = {"access log": access.read_text(), "log": log.read_text(), "stderr": server.stderr, "stdout": server.stdout}
    assert "run=" in texts["access log"] or '"run_id"' in texts["access log"]
    assert "SECRET" not in "".join(texts.values()), texts
    for sandbox in double.ledger.created():
        assert sandbox.token not in "".join(texts.values())
    assert double.key not in "".join(texts.values())
