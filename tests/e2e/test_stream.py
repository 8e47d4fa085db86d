"""How the agent's output becomes Server-Sent Events (http-api.md 5.1 to 5.8), byte by byte."""

import base64
import json
import re
import time
from email.utils import parsedate_to_datetime

import pytest
from harness.client import (
    RawConnection,
    body_of,
    dechunk,
    open_query,
    query,
    query_bytes,
    script,
    status_of,
)
from harness.waiting import TICK_SECONDS, deadline


def raw_query(server, prompt: str, version: str = "1.1") -> bytes:
    """The exact bytes of a stream's content."""
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, prompt, version))
        answer = connection.read_to_end()
    assert status_of(answer) == 200
    if version == "1.0":
        assert b"transfer-encoding" not in answer.lower()
        return body_of(answer)
    content, complete = dechunk(body_of(answer))
    assert complete, "the last chunk is missing"
    return content


def printing(stdout: bytes, **fields) -> str:
    """A script that prints exactly these bytes on stdout."""
    quiet = {"init": False, "events": 0, "result": False}
    return script(raw=base64.b64encode(stdout).decode(), **quiet | fields)


# stdout of the agent → the events' bytes.
FRAMES = {
    "a line": (b'{"a":1}\n', b'data: {"a":1}\n\n'),
    "no JSON": (b"hello\n", b"data: hello\n\n"),
    "a scalar and an array": (b"1\n[]\n", b"data: 1\n\ndata: []\n\n"),
    "CR before LF is dropped": (b"a\r\n", b"data: a\n\n"),
    "only one CR is dropped": (b"a\r\r\n", b"data: a\ndata: \n\n"),
    "CR at the end of an unterminated line": (b"a\r", b"data: a\ndata: \n\n"),
    "CR inside begins a line": (b"a\rb\n", b"data: a\ndata: b\n\n"),
    "CR first": (b"\rb\n", b"data: \ndata: b\n\n"),
    "blank lines are skipped": (b"\n  \n\t\na\n", b"data: a\n\n"),
    "blanks stay": (b"  a  \n", b"data:   a  \n\n"),
    "no BOM is eaten": (b"\xef\xbb\xbfa\n", b"data: \xef\xbb\xbfa\n\n"),
    "other line separators": ("a\u2028b\u2029c\u0085d\x0be\n".encode(), "data: a\u2028b\u2029c\u0085d\x0be\n\n".encode()),
    "invalid UTF-8": (b"\xff\xc3\x28\xed\xa0\x80\n", b"data: \xff\xc3\x28\xed\xa0\x80\n\n"),
    "NUL": (b"a\x00b\n", b"data: a\x00b\n\n"),
    "a colon first": (b": not a comment\n", b"data: : not a comment\n\n"),
    "unterminated": (b"a\nlast", b"data: a\n\ndata: last\n\n"),
}


@pytest.mark.parametrize("split", [0, 1, 3])
def test_lines_are_framed_exactly(server, split):
    wrong = {}
    for name, (stdout, wanted) in FRAMES.items():
        content = raw_query(server, printing(stdout, split=split))
        last = content.removeprefix(wanted)
        if not content.startswith(wanted) or json.loads(last.removeprefix(b"data: "))["code"] != "agent_exit":
            wrong[name] = (content, wanted)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_head_of_a_stream_goes_out_before_a_sandbox_exists(double, server, version):
    """5.1: these headers and no others."""
    double.inject("create", "hold", gate="create")
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(), version))
        head = connection.read_until(b"\r\n\r\n").decode()
        assert not double.ledger.alive()
        double.release("create")
        connection.read_to_end()
    line, *fields = head.split("\r\n")[:-2]
    assert line == f"HTTP/{version} 200 OK"
    found = dict(field.split(": ", 1) for field in fields)
    assert parsedate_to_datetime(found.pop("Date"))
    assert re.fullmatch(r"[0-9a-f]{16}", found.pop("X-Sandstorm-Run-Id"))
    assert found == {
        "Server": "sandstorm",
        "Connection": "close",
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    } | ({"Transfer-Encoding": "chunked"} if version == "1.1" else {})


def test_http_1_0_clients_get_the_stream_without_chunks(server):
    assert raw_query(server, printing(b"a\n"), version="1.0").startswith(b"data: a\n\ndata: ")


@pytest.mark.parametrize("shape", [{"split": 1}, {"split": 7}, {"split": 4093}, {"pack": 10}, {"batch": 10}, {"dribble": 3}])
async def test_events_do_not_depend_on_the_transport(server, client, shape):
    answer = await query(client, server, script(events=40, bytes=60, **shape))
    answer.check_complete(40)
    assert {event["text"] for event in answer.events if "seq" in event} == {"é✓🙂"}


def test_what_comes_together_leaves_together(server):
    """A burst is read by 2 KiB: it is not sent so, since each chunk is a system call here and a wake-up there."""
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(events=400, bytes=60, batch=400)))
        body = body_of(connection.read_to_end())
    content, complete = dechunk(body)
    assert complete and content.count(b"data: ") >= 400
    assert len(re.findall(rb"(?:^|\n\n\r\n)[0-9a-f]+\r\ndata: ", body)) <= len(content) // 4096


async def test_an_unterminated_result_counts(server, client):
    answer = await query(client, server, script(events=1, unterminated=True))
    answer.check_complete(1)
    assert answer.error_code is None


async def test_a_line_of_many_mebibytes_passes(server, client):
    size = 8 * 2**20
    answer = await query(client, server, script(events=1, huge=size))
    assert len(answer.of_type("huge")[0]["pad"]) == size
    assert answer.events[-1]["type"] == "result"


async def test_a_line_over_the_limit_ends_the_run(double, start_server, client):
    server = start_server("--line-limit", "64KiB")
    answer = await query(client, server, script(events=2, huge=70000))
    assert answer.error_code == "line_too_long"
    assert [event["seq"] for event in answer.events if "seq" in event] == [0, 1]
    assert not double.ledger.of_stage("collect", answer.run_id)


async def test_stderr_comes_as_one_trimmed_event_in_its_place(server, client):
    answer = await query(client, server, script(events=2, stderr=[[1, " one\ntwo \n"]], interval_ms=20))
    assert answer.of_type("stderr") == [{"type": "stderr", "data": "one\ntwo"}]
    assert [e["type"] for e in answer.events] == ["system", "assistant", "stderr", "assistant", "result"]


async def test_an_unterminated_rest_of_stderr_comes_before_the_end(server, client):
    answer = await query(client, server, script(events=0, result=False, stderr=[[0, "dying: é"]], exit=1))
    assert [event["data"] for event in answer.of_type("stderr")] == ["dying: é"]
    assert answer.error_code == "agent_exit"


async def test_an_unterminated_rest_of_stderr_does_not_wait_for_more(double, server, client):
    async with open_query(client, server, script(events=1, stderr=[[1, "password: "]], hold="answer", hold_after=1)) as stream:
        while (event := json.loads(await stream.next()))["type"] != "stderr":
            assert event["type"] in ("system", "assistant")
        assert event["data"] == "password:"
        double.release("answer")
        (await stream.rest()).check_complete(1)


async def test_blank_stderr_gives_no_event(server, client):
    answer = await query(client, server, script(stderr=[[0, " \n\n\t\n"]]))
    assert not answer.of_type("stderr")


def test_pings_fill_the_silence_only(double, start_server):
    server = start_server("--ping-interval", "100ms")
    double.inject("create", "hold", gate="create")
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(events=1, hold="agent", hold_after=1)))
        quiet = connection.read_until(b": ping\n\n")
        assert b"data:" not in quiet
        double.release("create")
        talking = connection.read_until(b'"seq":0')
        pinged = connection.read_until(b": ping\n\n")
        double.release("agent")
        rest = connection.read_to_end()
    content, complete = dechunk(body_of(quiet + talking + pinged + rest))
    assert complete
    blocks = content.split(b"\n\n")
    assert blocks.pop() == b""
    assert all(block == b": ping" or block.startswith(b"data: {") for block in blocks), blocks


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "agent exited with code 0 before it gave a result"),
        ({"exit": 3}, "agent exited with code 3 before it gave a result"),
        ({"signal": "killed"}, None),
    ],
)
async def test_an_agent_without_a_result_is_an_error(server, client, fields, text):
    answer = await query(client, server, script(events=1, result=False, **fields))
    assert answer.error_code == "agent_exit"
    assert text is None or answer.events[-1]["error"] == text


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "no such model"},
        {"result": {"subtype": "error_max_turns", "is_error": True}, "exit": 1},
        {"result": {"is_error": True}},
    ],
)
async def test_the_runners_own_terminal_line_stays_alone(server, client, fields):
    answer = await query(client, server, script(events=1, **fields))
    assert answer.error_code is None
    assert answer.events[-1]["type"] == ("error" if "error" in fields else "result")


async def test_a_nested_result_is_not_terminal(server, client):
    line = json.dumps({"type": "user", "message": {"type": "result"}})
    answer = await query(client, server, script(events=0, result=False, lines=[line, '"result"', "[1]"]))
    assert answer.error_code == "agent_exit"
    assert answer.texts[1:4] == [line, '"result"', "[1]"]


async def test_output_after_the_terminal_line_is_forwarded(server, client):
    lines = [json.dumps({"type": "result", "subtype": "success"}), json.dumps({"type": "system", "late": True})]
    answer = await query(client, server, script(events=0, result=False, lines=lines))
    assert answer.texts[-2:] == lines


async def test_the_terminal_line_decides_when_the_stream_is_lost_after_it(double, server, client):
    async with open_query(client, server, script(events=1, linger="never")) as stream:
        while json.loads(await stream.next())["type"] != "result":
            pass
        double.lose(stream.run_id)
        answer = await stream.rest()
    assert answer.error_code is None
    assert answer.events[-1]["type"] == "result"


async def test_an_agent_that_does_not_exit_after_its_result_is_ended(double, server, client):
    answer = await query(client, server, script(events=1, linger="never"))
    answer.check_complete(1)


async def test_the_deadline_ends_a_run_and_its_files_are_saved(double, server, client):
    begin = time.monotonic()
    answer = await query(client, server, script(events=1, hold="never", hold_after=1, files={"half.txt": "x"}), timeout=5)
    assert answer.error_code == "run_timeout"
    assert answer.events[-1]["error"] == "run exceeded its timeout of 5 s"
    assert [event["name"] for event in answer.of_type("file")] == ["half.txt"]
    (killed,) = double.ledger.of_stage("signal", answer.run_id)
    assert 5 - TICK_SECONDS <= killed.at - begin  # the run begins later than that
    # The next limit, of the sandbox, is a minute away: a busy machine has time.
    assert killed.at - double.ledger.sandbox_of(answer.run_id).made_at <= 5 + deadline(3)
