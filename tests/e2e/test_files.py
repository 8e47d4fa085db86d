"""What an agent leaves behind comes back as file events (http-api.md 5.6, 6.10)."""

import base64
import json

import pytest
from harness import procfs
from harness.client import RawConnection, body_of, dechunk, open_query, query, query_bytes, script
from harness.server import memory_slack_kib
from harness.waiting import eventually

LARGE_BYTES = 25 * 2**20
SMALL_RECEIVE_BUFFER_BYTES = 16384
# output_buffer (256 KiB), a block on its way, and the allocator's slack.
MEMORY_KIB = 600
# Every kind of name that a file system takes and a header, a URL or JSON might not.
NAMES = [
    "plain.txt", "with space.txt", 'quote".txt', "back\\slash.txt", "per%cent%20.txt", "new\nline.txt", "tab\t.txt",
    "ünïcode/ñ.txt", "q?m&a=b#c.txt", "semi;colon,.txt",
]  # fmt: skip


async def test_files_the_agent_made_come_back(double, server, client):
    made = {"out/report.csv": "a,b\n1,2\n", "bin.dat": 70000, "empty": "", "ünï code.txt": "é"}
    answer = await query(client, server, script(files=made))
    files = {event["relative_path"]: event for event in answer.of_type("file")}
    assert list(files) == sorted(made)
    assert base64.b64decode(files["out/report.csv"]["data"]) == made["out/report.csv"].encode()
    assert base64.b64decode(files["bin.dat"]["data"]) == bytes(70000)
    assert (files["empty"]["data"], files["empty"]["size"]) == ("", 0)
    assert files["bin.dat"] | {"data": ""} == {
        "type": "file", "name": "bin.dat", "relative_path": "bin.dat", "path": "/home/user/bin.dat", "size": 70000,
        "data": "",
    }  # fmt: skip
    assert list(files["bin.dat"]) == ["type", "name", "relative_path", "path", "size", "data"]
    assert [event["type"] for event in answer.events][-5:] == ["result", "file", "file", "file", "file"]


async def test_names_survive(double, server, client):
    answer = await query(client, server, script(files={name: f"in {name}" for name in NAMES}))
    files = {event["relative_path"]: base64.b64decode(event["data"]).decode() for event in answer.of_type("file")}
    assert files == {name: f"in {name}" for name in NAMES}
    assert {event["name"] for event in answer.of_type("file")} == {name.rpartition("/")[2] for name in NAMES}


async def test_what_was_given_and_not_changed_stays(double, server, client):
    given = {"same.txt": "as given", "other.txt": "old", "a//longer.txt": "1"}
    left = {"same.txt": "as given", "other.txt": "new", "a/longer.txt": "12", "same": "as given"}
    answer = await query(client, server, script(files=left), files=given)
    assert [event["relative_path"] for event in answer.of_type("file")] == ["a/longer.txt", "other.txt", "same"]
    assert not answer.of_type("warning")


async def test_at_most_ten_files_come_back_and_the_rest_is_named(double, server, client):
    answer = await query(client, server, script(files={f"{n:02}.txt": "x" for n in range(12)}))
    assert [event["name"] for event in answer.of_type("file")] == [f"{n:02}.txt" for n in range(10)]
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]


async def test_at_most_fifty_mib_come_back(double, server, client):
    size = 20 * 2**20
    answer = await query(client, server, script(files={"a": size, "b": size, "c": size, "d": "small"}))
    assert [event["name"] for event in answer.of_type("file")] == ["a", "b"]
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]


async def test_a_file_over_the_limit_is_not_listed(double, start_server, client):
    server = start_server("--extract-file-limit", "1KiB")
    await query(client, server, script(files={"a": "x"}))
    assert "-size -1025c " in double.ledger.of_stage("collect")[0].command


@pytest.mark.parametrize("action", ["status", "reset", "short"])
async def test_a_file_that_cannot_be_read_is_left_out(double, server, client, action):
    double.inject("read", action, path="a.txt", status=404, times=None)
    answer = await query(client, server, script(files={"a.txt": "1", "b.txt": "2"}))
    assert [event["name"] for event in answer.of_type("file")] == ["b.txt"]
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert answer.error_code is None


async def test_a_read_that_is_cut_begins_anew(double, server, client):
    double.inject("read", "short", status=200, body="half of it, then ")
    answer = await query(client, server, script(files={"a.txt": "whole"}))
    assert [base64.b64decode(event["data"]) for event in answer.of_type("file")] == [b"whole"]
    assert not answer.of_type("warning")
    assert len(double.ledger.of_stage("read")) == 2


@pytest.mark.parametrize("message, tries", [("The sandbox was not found", 2), ("The sandbox is running but port is not open", 1)])
async def test_a_sandbox_that_is_gone_is_asked_for_no_more_files(double, server, client, message, tries):
    double.inject("read", "status", status=502, message=message, times=None)
    answer = await query(client, server, script(files={"a.txt": "1", "b.txt": "2"}))
    assert not answer.of_type("file") and answer.error_code is None
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert len(double.ledger.of_stage("read")) == tries


async def test_collecting_has_an_end(double, start_server, client):
    server = start_server("--extract-timeout", "5")
    double.inject("read", "silence", path="b.txt", times=None)
    answer = await query(client, server, script(files={"a.txt": "1", "b.txt": "2"}))
    assert [event["name"] for event in answer.of_type("file")] == ["a.txt"]
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert answer.error_code is None


async def test_a_full_disk_costs_the_file_and_not_the_run(double, start_server, client):
    server = start_server(env={"TMPDIR": "/nowhere"})
    answer = await query(client, server, script(files={"large": LARGE_BYTES, "small": "fits in memory"}))
    assert [event["name"] for event in answer.of_type("file")] == ["small"]
    assert [event["code"] for event in answer.of_type("warning")] == ["files_incomplete"]
    assert "a file is not returned: No such file or directory" in server.stderr


def read_events(connection: RawConnection) -> list[dict]:
    """All events of an answer, which must be whole."""
    content, complete = dechunk(body_of(connection.read_to_end()))
    assert complete
    return [json.loads(block.removeprefix(b"data: ")) for block in content.split(b"\n\n") if block]


def test_a_large_file_for_a_slow_client_costs_neither_memory_nor_its_sandbox(double, start_server):
    server = start_server(workers=1)
    (worker,) = server.workers()
    with RawConnection(server) as warm_up:
        warm_up.send(query_bytes(server, script(files={"large": LARGE_BYTES})))
        read_events(warm_up)
    before = procfs.anonymous_kib(worker)
    with RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) as slow:
        slow.send(query_bytes(server, script(files={"a": LARGE_BYTES, "b": "small", "c": LARGE_BYTES - 10})))
        double.wait(lambda ledger: len(ledger.of_stage("kill")) == 2, 20, "the deletion, before the client took a byte")
        allowed_kib = before + memory_slack_kib(MEMORY_KIB)
        eventually(lambda: procfs.anonymous_kib(worker) <= allowed_kib, 5, f"the worker to have {allowed_kib} KiB")
        events = read_events(slow)
    assert [(event["type"], event.get("name"), event.get("size")) for event in events][-4:] == [
        ("result", None, None), ("file", "a", LARGE_BYTES), ("file", "b", 5), ("file", "c", LARGE_BYTES - 10),
    ]  # fmt: skip
    assert base64.b64decode(events[-3]["data"]) == bytes(LARGE_BYTES)
    assert base64.b64decode(events[-1]["data"]) == bytes(LARGE_BYTES - 10)


def test_a_client_that_takes_no_file_is_given_up(double, start_server):
    server = start_server("--client-stall-timeout", "1")
    with RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) as stalled:
        stalled.send(query_bytes(server, script(files={"a": LARGE_BYTES})))
        double.wait(lambda ledger: ledger.of_stage("kill"), 10, "the deletion")
        server.wait_log("was not taken: the client took nothing for client_stall_timeout")
        _, complete = dechunk(body_of(stalled.read_to_end()))
        assert not complete


async def test_a_client_that_leaves_among_its_files_leaves_nothing(double, server, client):
    async with open_query(client, server, script(files={"a": LARGE_BYTES})) as stream:
        while json.loads(await stream.next())["type"] != "result":
            pass
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
