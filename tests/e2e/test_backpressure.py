"""A slow client slows its own agent: nothing is lost, and the worker's memory stays small (http-api.md 5.7)."""

import json
import time
from pathlib import Path

from harness import procfs
from harness.client import RawConnection, body_of, dechunk, query, query_bytes, script
from harness.server import memory_slack_kib, seconds_since
from harness.waiting import deadline, eventually, eventually_async


def largest_buffer(direction: str) -> int:
    """Bytes that the kernel lets a socket hold, when it finds that it is worth it."""
    return int(Path(f"/proc/sys/net/ipv4/tcp_{direction}mem").read_text().split()[2])


# Between an agent and its client who reads nothing: what the service sends, what the worker receives, what it sends.
HELD_BY_KERNEL = largest_buffer("w") + largest_buffer("r") + largest_buffer("w")
HELD_BY_WORKER = 2**20
FLOOD_MIB = max(48, (HELD_BY_KERNEL + HELD_BY_WORKER) // 2**20 + 4)
EVENT_BYTES = 4000
READERS = 3
# output_buffer (256 KiB) and one transport read a reader, and the allocator's slack; far below a flood.
MEMORY_KIB = 4096
SMALL_RECEIVE_BUFFER_BYTES = 16384
STILL_SECONDS = 0.5
# A run beside a slow reader. Others on the machine can only make it longer: the best of some shows it.
QUICK_SECONDS = deadline(2)
TRIES = 3


def standstill(double, run_ids: list[str]):
    """A condition: the agents' output has not moved for a while, and not all of it is out."""
    seen = {"at": time.monotonic(), "bytes": -1}

    def condition() -> bool:
        total = sum(double.ledger.streamed[run_id] for run_id in run_ids)
        if total != seen["bytes"]:
            seen.update(at=time.monotonic(), bytes=total)
        return total > 0 and seconds_since(seen["at"]) > STILL_SECONDS

    return condition


def check_flood(answer: bytes) -> None:
    """Every event of the flood, in order, and a proper end."""
    content, complete = dechunk(body_of(answer))
    assert complete
    events = [json.loads(block.removeprefix(b"data: ")) for block in content.split(b"\n\n") if block.startswith(b"data: ")]
    numbers = [event["seq"] for event in events if "seq" in event]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) * EVENT_BYTES > 0.9 * FLOOD_MIB * 2**20
    assert events[-1]["type"] == "result"


def test_slow_readers_lose_nothing_and_cost_no_memory(double, start_server):
    server = start_server(workers=1)
    (worker,) = server.workers()
    prompt = script(flood_mib=FLOOD_MIB, bytes=EVENT_BYTES)
    with RawConnection(server) as warm_up:
        warm_up.send(query_bytes(server, prompt))
        check_flood(warm_up.read_to_end())
    before = procfs.private_kib(worker)
    readers = [RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) for _ in range(READERS)]
    for reader in readers:
        reader.send(query_bytes(server, prompt))
    double.wait(lambda ledger: ledger.open_streams() == READERS, 10, "the agents")
    run_ids = list(double.ledger.open)
    eventually(standstill(double, run_ids), 60, "the agents to be stopped by their clients")
    eventually(lambda: procfs.private_kib(worker) <= before + memory_slack_kib(MEMORY_KIB), 5, "the worker's memory to be small")
    for run_id in run_ids:
        assert double.ledger.streamed[run_id] <= HELD_BY_KERNEL + HELD_BY_WORKER, "the agent was not slowed down"
    for reader in readers:
        check_flood(reader.read_to_end())
        reader.socket.close()


async def test_a_slow_reader_does_not_slow_others(double, start_server, client):
    server = start_server(workers=1)
    with RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) as slow:
        slow.send(query_bytes(server, script(flood_mib=FLOOD_MIB, bytes=EVENT_BYTES)))
        await double.until(lambda ledger: ledger.open_streams() == 1, 10, "the slow agent")
        run_ids = list(double.ledger.open)
        await eventually_async(standstill(double, run_ids), 60, "the slow agent to stand still")
        seconds = []
        while len(seconds) < TRIES and min(seconds, default=QUICK_SECONDS) >= QUICK_SECONDS:
            begin = time.monotonic()
            (await query(client, server, script(events=50))).check_complete(50)
            seconds.append(seconds_since(begin))
        assert min(seconds) < QUICK_SECONDS, seconds


def test_a_client_that_reads_nothing_is_given_up(double, start_server):
    server = start_server("--client-stall-timeout", "1")
    with RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) as stalled:
        stalled.send(query_bytes(server, script(flood_mib=FLOOD_MIB, bytes=EVENT_BYTES)))
        double.wait(lambda ledger: ledger.began, 10, "the agent")
        double.wait(lambda ledger: not ledger.alive(), 30, "the end of the stalled run")
        _, complete = dechunk(body_of(stalled.read_to_end()))
        assert not complete


def test_a_client_that_reads_slowly_is_not_given_up(double, start_server):
    server = start_server("--client-stall-timeout", "4")  # a busy machine may keep both from their work for a second
    with RawConnection(server, SMALL_RECEIVE_BUFFER_BYTES) as slow:
        slow.send(query_bytes(server, script(flood_mib=FLOOD_MIB, bytes=EVENT_BYTES)))
        got = slow.read_until(b"\r\n\r\n")
        begin = time.monotonic()
        while seconds_since(begin) < 6:
            time.sleep(0.05)  # the client's own pace, not a synchronisation
            got += slow.read_some(65536)
        got += slow.read_to_end()
    check_flood(got)
