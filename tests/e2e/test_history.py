"""The history of runs on disk and the directory it is in (http-api.md sections 9 and 16.7)."""

import asyncio
import json
import os
import re
import resource
import signal
import stat
from pathlib import Path

import pytest
from harness import procfs
from harness.client import open_query, query, script
from harness.record import RECORD_KEYS
from harness.server import run_program
from harness.waiting import eventually, eventually_async

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"
# A row as the Python reference writes it: twenty keys, blanks, contents of files.
REFERENCE_ROW = {
    "id": "00000000000000aa", "prompt": "of the reference", "model": "m", "status": "completed",
    "started_at": "2026-01-31T10:00:00+00:00", "cost_usd": 0.5, "num_turns": 2, "duration_secs": 1.5, "error": None,
    "files_count": 1, "feedback": "up", "feedback_user": "U", "raw_prompt": "of the reference", "agent_session_id": "s",
    "sandbox_id": "x", "team_id": None, "user_id": None, "channel_id": None, "thread_ts": None,
    "config_snapshot": {"model": "m", "max_turns": None, "timeout": 300, "allowed_tools": None,
                        "files": {"a.txt": "TOP SECRET"}},
}  # fmt: skip


@pytest.fixture
def state(tmp_path) -> Path:
    """A state directory that outlives a server; it is not made yet."""
    return tmp_path / "state"


@pytest.fixture
def start(start_server, state):
    """Starts servers on this state directory."""

    def start(*args, **options):
        return start_server("--state-dir", state, *args, **options)

    return start


def lines(state: Path) -> list[dict]:
    """Every record of the file, once it ends with a whole line: who reads while one is written may see a part of it."""

    def whole() -> tuple[str] | None:
        text = (state / "runs.jsonl").read_text()
        return (text,) if text.endswith("\n") or not text else None

    (text,) = eventually(whole, 5, "a whole line at the end of the file")
    return [json.loads(line) for line in text.splitlines()]


def of_run(state: Path, run_id: str) -> list[dict]:
    """The lines of one run."""
    return [record for record in lines(state) if record["id"] == run_id]


async def wait_for_end(state: Path, run_id: str) -> dict:
    """The final record of a run, once it is written."""

    def final() -> dict | None:
        found = of_run(state, run_id)
        return found[-1] if found and found[-1]["status"] != "running" else None

    return await eventually_async(final, 10, f"the end of run {run_id} in the file")


async def known_runs(client, server) -> list[dict]:
    """Every record the server answers, the newest first."""
    answer = await client.get(f"{server.url}/runs?limit=1000")
    assert answer.status_code == 200
    return answer.json()


async def cancel(client, server, run_id: str) -> tuple[int, dict]:
    """What a cancel of a run is answered."""
    answer = await client.post(f"{server.url}/runs/{run_id}/cancel")
    return answer.status_code, answer.json()


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def kill_all(server) -> None:
    """The machine is gone: every process of the server, with nobody left to notice."""
    server.signal(signal.SIGSTOP)
    eventually(lambda: procfs.stat_fields(server.pid)[0] == "T", 5, "the master to stop")
    for pid in procfs.session(server.pid) - {server.pid}:
        os.kill(pid, signal.SIGKILL)
    server.signal(signal.SIGKILL)
    assert server.wait_exit() == -signal.SIGKILL


async def until_state_is_kept(client, server) -> None:
    """The file has the records a moment before its writer says that it can write again."""

    async def is_kept() -> bool:
        return await deep_state(client, server)

    await eventually_async(is_kept, 10, "the state to be kept again")


async def deep_state(client, server) -> bool:
    """What deep health says of the state."""
    answer = (await client.get(f"{server.url}/health?deep=1")).json()
    assert answer["status"] == ("ok" if answer["checks"]["state"] else "degraded")
    return answer["checks"]["state"]


# --- what is written ---


async def test_each_change_of_a_run_is_a_whole_line(state, start, client):
    server = start()
    answer = await query(client, server, "hello", model="m-1", max_turns=3)
    final = await wait_for_end(state, answer.run_id)
    admitted, known, ended = of_run(state, answer.run_id)
    assert [list(record) for record in (admitted, known, ended)] == [RECORD_KEYS] * 3
    assert (admitted["status"], admitted["sandbox_id"], admitted["ended_at"]) == ("running", None, None)
    assert (known["status"], known["sandbox_id"]) == ("running", final["sandbox_id"])
    assert final["sandbox_id"] and final["status"] == "completed"
    assert re.fullmatch(TIME, final["started_at"]) and re.fullmatch(TIME, final["ended_at"])
    assert final["started_at"] == admitted["started_at"] < final["ended_at"]
    assert isinstance(final["duration_secs"], float)
    assert mode(state) == 0o700 and mode(state / "runs.jsonl") == 0o600


async def test_runs_of_all_workers_are_in_one_file_line_by_line(state, start, client):
    server = start(workers=4)
    answers = await asyncio.gather(*(query(client, server, f"{number} " + "ä" * 3000) for number in range(60)))
    for answer in answers:
        await wait_for_end(state, answer.run_id)
    found = lines(state)
    assert len(found) == 3 * 60
    assert {record["id"] for record in found} == {answer.run_id for answer in answers}


@pytest.mark.parametrize("stored", ["on", "off"])
async def test_no_secret_is_written_and_no_prompt_if_so_wished(double, state, start, client, stored):
    server = start("--store-prompts", stored)
    secrets = {"anthropic_api_key": "sk-of-the-caller", "openrouter_api_key": "or-of-the-caller"}
    files = {"notes/a.txt": "content of a file"}
    answer = await query(client, server, "a prompt of the caller", files=files, e2b_api_key=double.key, **secrets)
    final = await wait_for_end(state, answer.run_id)
    text = (state / "runs.jsonl").read_text()
    for secret in (*secrets.values(), *files.values(), double.key, "test-key"):
        assert secret not in text
    assert final["config_snapshot"]["files"] == {"notes/a.txt": len("content of a file")}
    assert ("a prompt of the caller" in text) == (stored == "on")


async def test_a_new_generation_goes_on_in_the_same_file(state, start, client):
    server = start()
    first = await query(client, server, "hello")
    old = server.workers()
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: len(server.workers()) == 2 and not server.workers() & old, 10, "new workers")
    second = await query(client, server, "hello")
    for answer in (first, second):
        await wait_for_end(state, answer.run_id)
    assert [len(of_run(state, answer.run_id)) for answer in (first, second)] == [3, 3]


# --- what a start makes of it ---


async def test_a_restart_keeps_the_records_and_shortens_the_file(state, start, client):
    server = start()
    answers = [await query(client, server, "hello") for _ in range(3)]
    for answer in answers:
        await wait_for_end(state, answer.run_id)
    finals = [of_run(state, answer.run_id)[-1] for answer in answers]
    known = await known_runs(client, server)
    assert known == finals[::-1]
    assert server.stop() == 0
    again = start()
    assert await known_runs(client, again) == known
    assert (await cancel(client, again, known[0]["id"]))[0] == 409
    await eventually_async(lambda: lines(state) == finals, 10, "the file to be compacted")
    assert mode(state / "runs.jsonl") == 0o600
    assert await deep_state(client, again)
    newest = await query(client, again, "hello")
    assert [record["id"] for record in await known_runs(client, again)] == [newest.run_id, *(run["id"] for run in known)]


async def test_an_accepted_cancel_is_accepted_again_after_a_restart(double, state, start, client):
    server = start()
    async with open_query(client, server, script(events=2, hold="go", hold_after=1)) as stream:
        await stream.next_numbered()
        accepted = await cancel(client, server, stream.run_id)
        assert accepted[0] == 200
        assert (await stream.rest()).error_code == "cancelled"
    double.release("go")
    await wait_for_end(state, stream.run_id)
    assert server.stop() == 0
    assert await cancel(client, start(), stream.run_id) == accepted


async def test_what_was_running_when_the_machine_died_is_over(double, state, start, client):
    server = start()
    async with open_query(client, server, script(events=2, hold="go", hold_after=1)) as stream:
        await stream.next_numbered()
        run_id = stream.run_id
        await eventually_async(lambda: len(of_run(state, run_id)) == 2, 10, "both lines of the live run")
        double.accept_left([run_id])  # nobody is left to delete it
        kill_all(server)
    assert [record["status"] for record in of_run(state, run_id)] == ["running", "running"]
    again = start()
    again.wait_log("1 runs restored")
    final = await wait_for_end(state, run_id)
    assert (final["status"], final["error_code"], final["error"]) == ("error", "server_shutdown", "server restarted")
    assert await known_runs(client, again) == [final]
    await eventually_async(lambda: len(lines(state)) == 1, 10, "the file to be compacted")
    kill_all(again)
    assert await known_runs(client, start()) == [final]
    assert of_run(state, run_id) == [final]
    double.release("go")


def test_rows_of_the_reference_and_garbage_are_taken_for_what_they_are(state, start):
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    history = state / "runs.jsonl"
    foreign = REFERENCE_ROW | {"id": "3f2504e0", "prompt": "TOP SECRET"}
    history.write_text(json.dumps(REFERENCE_ROW) + "\n\nnot json\n" + json.dumps(foreign) + '\n{"id":"0000')
    history.chmod(0o644)
    server = start()
    log = server.wait_log("1 runs restored")
    assert log.count("are no records of runs and were skipped") == 1
    assert "4 lines are no records of runs and were skipped, the first is line 2" in log
    assert (mode(state), mode(history)) == (0o700, 0o600)
    eventually(lambda: "TOP SECRET" not in history.read_text(), 10, "contents of files to be gone")
    (record,) = (row for row in map(json.loads, filter(None, history.read_text().split("\n"))) if row["id"] == "0" * 14 + "aa")
    assert list(record) == RECORD_KEYS
    assert record["config_snapshot"] == REFERENCE_ROW["config_snapshot"] | {"files": {"a.txt": 10}}
    same = [key for key in REFERENCE_ROW if key not in ("config_snapshot", "started_at", "feedback", "feedback_user")]
    assert {key: record[key] for key in same} == {key: REFERENCE_ROW[key] for key in same}
    assert record["started_at"] == "2026-01-31T10:00:00.000000+00:00"


async def test_the_file_stays_small_while_runs_come_and_go(state, start, client):
    server = start("--run-history", "4")
    answers = []
    for _ in range(8):
        answers += await asyncio.gather(*(query(client, server, "hello") for _ in range(10)))

    async def is_small() -> bool:
        """What comes while it is compacted stays until the next time."""
        answers.append(await query(client, server, "hello"))
        return len(lines(state)) <= 4 * 10

    await eventually_async(is_small, 60, "the file to be compacted")
    await asyncio.to_thread(server.wait_log, "lines kept")
    last = await query(client, server, "hello")
    await wait_for_end(state, last.run_id)
    assert {record["id"] for record in lines(state)} <= {answer.run_id for answer in [*answers, last]}
    assert server.stop() == 0
    server = start("--run-history", "4")
    known = await known_runs(client, server)
    await eventually_async(lambda: len(lines(state)) == 4, 10, "the file to be compacted")
    assert sorted(record["id"] for record in known) == sorted(record["id"] for record in lines(state))
    assert (known[0]["id"], known[0]["status"]) == (last.run_id, "completed")


# --- where it cannot be written ---


async def test_a_full_disk_costs_no_run_and_no_record(state, start, client):
    server = start()
    first = await query(client, server, "x" * 100_000)  # the file is larger than the log, which the limit is not for
    await wait_for_end(state, first.run_id)
    size = (state / "runs.jsonl").stat().st_size
    for pid in server.workers():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    answers = await asyncio.gather(*(query(client, server, "hello") for _ in range(20)))
    assert all(answer.events[-1]["type"] == "result" for answer in answers)
    assert not await deep_state(client, server)
    # A worker that could not have the lock tries in a moment, and takes back what did not fit.
    eventually(lambda: (state / "runs.jsonl").stat().st_size == size, 5, "the file to be as it was")
    for pid in server.workers():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for answer in answers:
        await wait_for_end(state, answer.run_id)
    assert len(lines(state)) == 3 * 21
    await until_state_is_kept(client, server)
    warnings = server.stderr.count("runs go on, and their records wait in memory")
    assert 1 <= warnings <= 2  # one of each worker
    assert server.stderr.count("is written again; 0 records were lost") == warnings


async def test_a_directory_that_cannot_be_made_costs_the_history_only(tmp_path, start_server, client):
    (tmp_path / "file").write_text("")
    server = start_server("--state-dir", tmp_path / "file" / "state", env={"SANDSTORM_INSTANCE": None})
    answer = await query(client, server, "hello")
    assert answer.events[-1]["type"] == "result"
    assert server.stderr.count("warn: state_dir") == 1
    assert "Not a directory: neither a history of runs nor the name of the instance is kept" in server.stderr
    assert not await deep_state(client, server)


async def test_a_directory_that_goes_away_is_missed_and_taken_again(state, start, client):
    server = start()
    state.rename(state.with_name("moved"))
    assert not await deep_state(client, server)
    answer = await query(client, server, "hello")
    assert answer.events[-1]["type"] == "result"
    state.with_name("moved").rename(state)
    await wait_for_end(state, answer.run_id)
    await until_state_is_kept(client, server)


# --- the directory ---


async def test_a_second_master_is_refused_and_the_first_goes_on(state, start, client):
    server = start()
    second = start(ready=False)
    assert second.wait_exit() == 1
    assert f"state_dir {state} is held by another server, pid {server.pid}: stop that one" in second.stderr
    assert (await query(client, server, "hello")).events[-1]["type"] == "result"


async def test_the_lock_ends_with_the_master_whoever_is_left(double, state, start, client):
    server = start()
    async with open_query(client, server, script(events=2, hold="go", hold_after=1)) as stream:
        await stream.next_numbered()
        stopped = next(iter(server.workers()))  # a worker that does not see its master go
        server.signal(signal.SIGSTOP, stopped)
        await eventually_async(lambda: procfs.stat_fields(stopped)[0] == "T", 5, "the worker to stop")
        server.signal(signal.SIGKILL)
        server.wait_exit()
        start()
        os.kill(stopped, signal.SIGCONT)
        double.release("go")


async def test_the_name_of_the_instance_is_kept_unless_one_is_given(double, state, start, client):
    names = []
    for given in (None, None, "given", None):
        server = start(env={"SANDSTORM_INSTANCE": given})
        answer = await query(client, server, "hello")
        names.append(double.ledger.sandbox_of(answer.run_id).metadata["sandstorm_instance"])
        assert server.stop() == 0
    assert re.fullmatch("[0-9a-f]{16}", names[0])
    assert names == [names[0], names[0], "given", names[0]]
    assert (state / "instance").read_text() == names[0] + "\n"
    assert mode(state / "instance") == 0o600


def test_a_check_makes_nothing_and_tells_what_is_wrong(tmp_path, start, state):
    env = {"E2B_API_KEY": "k", "HOME": str(tmp_path)}
    checked = run_program("--check", "--project-dir", str(tmp_path), env=env)
    assert (checked.returncode, "state_dir" in checked.stderr, list(tmp_path.iterdir())) == (0, False, [])
    checked = run_program("--check", "--project-dir", str(tmp_path), "--state-dir", str(tmp_path / "a" / "b"), env=env)
    assert checked.returncode == 0
    assert "No such file or directory: no history of runs would be kept" in checked.stderr
    assert not list(tmp_path.iterdir())
    start()
    checked = run_program("--check", "--state-dir", str(state), env=env)  # as before a reload
    assert (checked.returncode, "warn" in checked.stderr) == (0, False)
