"""`ds runs`, `show`, `cancel`, `status`, `replay`: a server's runs, through pipes and on a terminal."""

import json
import re

import pytest
from harness.client import script
from harness.ds import COLUMNS, CTRL_C, FAILED, INTERRUPTED, OK, USAGE, ds, ds_on_terminal, ds_shown
from harness.waiting import eventually

UNKNOWN = "0123456789abcdef"


def run_id_of(run) -> str:
    """The run that a `ds PROMPT` told of."""
    return re.search(r"run (\w+)\n$", run.stderr)[1]


@pytest.fixture
def done(faulty_server) -> str:
    """A run that went well, on the shared server."""
    return run_id_of(ds(script(events=0, marker="done", result={"num_turns": 4, "total_cost_usd": 0.5}), server=faulty_server))


def test_the_list(faulty_server, done):
    run = ds("runs", "--limit", "1", server=faulty_server)
    assert run.returncode == OK
    titles, row = run.stdout.splitlines()
    assert titles.split() == ["RUN", "STATUS", "MODEL", "TURNS", "COST", "TIME", "STARTED", "(UTC)", "PROMPT"]
    assert row.startswith(f"{done}  completed  double-model") and "$0.5000" in row and '"marker": "done"' in row
    records = json.loads(ds("runs", "--json", "--status", "completed", server=faulty_server).stdout)
    assert records[0]["id"] == done and {record["status"] for record in records} == {"completed"}


def test_the_list_on_a_terminal_fits_it(faulty_server):
    ds(script(events=0, marker="x\033[31m" + "é" * 200), server=faulty_server)
    code, shown = ds_shown("runs", server=faulty_server, env={"NO_COLOR": "1"})
    assert code == OK and "\033" not in shown
    assert max(map(len, shown.splitlines())) == COLUMNS
    assert shown.splitlines()[1].endswith("…")


def test_one_run(faulty_server, done):
    run = ds("show", done, server=faulty_server)
    assert run.returncode == OK
    rows = dict(re.split(r" {2,}", row, maxsplit=1) for row in run.stdout.splitlines()[:10] if "  " in row)
    assert (rows["run"], rows["status"], rows["turns"], rows["cost"]) == (done, "completed", "4", "$0.5000")
    assert run.stdout.endswith('"total_cost_usd": 0.5}}\n')
    assert json.loads(ds("show", "--json", done, server=faulty_server).stdout)["id"] == done
    code, shown = ds_shown("show", done, server=faulty_server)
    assert code == OK and f"run         {done}" in shown


@pytest.mark.parametrize("words", [("show", UNKNOWN), ("replay", UNKNOWN), ("show", "../health")])
def test_a_run_nobody_knows(faulty_server, words):
    run = ds(*words, server=faulty_server)
    assert run.returncode == FAILED and run.stdout == ""
    assert "Unknown run id" in run.stderr or "Not Found" in run.stderr
    code, shown = ds_shown(*words, server=faulty_server)
    assert code == FAILED and shown == run.stderr


def test_cancel(double, server):
    with ds_on_terminal(script(hold="gate"), server=server) as screen:
        screen.wait("double-model")
        live = json.loads(ds("runs", "--json", "--status", "running", server=server).stdout)[0]["id"]
        run = ds("cancel", live, UNKNOWN, server=server)
        assert run.returncode == FAILED
        assert run.stdout == f"{live} cancelled\n"
        assert run.stderr == f"ds cancel: unknown run_id\nds cancel: not cancelled: {UNKNOWN}\n"
        assert screen.finish() == FAILED
        assert "cancelled by user" in screen.text
    assert ds_shown("cancel", live, server=server) == (OK, f"{live} cancelled\n")  # as often as one likes
    ended = run_id_of(ds("p", server=server))
    refused = ds("cancel", ended, server=server)
    assert refused.returncode == FAILED and "run status is completed, cannot cancel" in refused.stderr


def test_status(double, server):
    with ds_on_terminal(script(hold="gate", marker="live"), server=server) as screen:
        screen.wait("double-model")
        run = ds("status", server=server)
        assert run.returncode == OK
        assert re.search(r"^runs +1 live of 1024; since the start 0 completed", run.stdout, re.MULTILINE)
        assert len(re.findall(r"^\d+ +\d+  serving", run.stdout, re.MULTILINE)) == 2
        assert '"marker": "live"' in run.stdout
        report = json.loads(ds("status", "--json", server=server).stdout)
        assert (report["runs"]["live"], len(report["live"]), len(report["workers"])) == (1, 1, 2)
        double.release("gate")
        assert screen.finish() == OK
    code, shown = ds_shown("status", server=server)
    assert code == OK and "0 live of 1024" in shown


def test_watching_redraws_until_ctrl_c(server):
    with ds_on_terminal("status", "--watch", server=server) as screen:
        screen.wait("0 completed")
        ds("p", server=server)
        shown = screen.wait("1 completed")
        assert shown.count("\033[H\033[2J") >= 2
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED
    with ds_on_terminal("runs", "--watch", "--json", server=server) as screen:
        frame = next(frame for frame in screen.wait("}]").split("\033[3J") if "}]" in frame)  # the next may have begun
        assert json.JSONDecoder().raw_decode(frame.lstrip())[0][0]["status"] == "completed"
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED


def test_watching_goes_on_while_the_server_restarts(start_server):
    server = start_server()
    with ds_on_terminal("status", "--watch", server=server) as screen:
        screen.wait("0 live")
        assert server.stop() == OK
        before = len(screen.wait("cannot reach"))
        start_server(port=server.port)
        eventually(lambda: "0 live" in screen.more()[before:], 20, "the server's status")
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED
    assert ds_shown("status", "--watch", server=server, env={"SANDSTORM_URL": "http://127.0.0.1:9"})[0] == FAILED


def test_replay(faulty_server, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    prompt = script(events=0, result={"num_turns": 2, "total_cost_usd": 0.5})
    first = run_id_of(ds(prompt, "-m", "one", "-t", "77", "-f", "a.txt", server=faulty_server, cwd=tmp_path))
    missing = ds("replay", first, server=faulty_server)
    assert missing.returncode == FAILED and "say -f a.txt" in missing.stderr
    run = ds("replay", first, "-m", "two", "-f", "a.txt", server=faulty_server, cwd=tmp_path)
    assert run.returncode == OK
    said, table = run.stdout.split("\n\n")
    second = run_id_of(run)
    assert said == "done"
    rows = {row.split()[0]: row.split()[1:] for row in table.splitlines()[1:]}
    assert rows["run"] == [first, second]
    assert rows["model"] == ["one", "two"]
    assert rows["cost"] == ["$0.5000", "$0.5000", "+0", "%"]
    config = json.loads(ds("show", "--json", second, server=faulty_server).stdout)["config_snapshot"]
    assert config == {"model": "two", "max_turns": None, "timeout": 77, "allowed_tools": None, "files": {"a.txt": 1}}
    code, shown = ds_shown("replay", first, "-f", "a.txt", server=faulty_server, cwd=tmp_path)
    assert code == OK and re.search(r"status +completed +completed", shown)


def test_a_prompt_that_was_not_kept_cannot_be_replayed(start_server):
    server = start_server("--store-prompts", "off")
    run = ds("replay", run_id_of(ds("p", server=server)), server=server)
    assert run.returncode == FAILED and "has not kept the whole prompt" in run.stderr


def test_usage_on_a_terminal():
    code, shown = ds_shown("runs", "--limit", "0")
    assert code == USAGE
    assert shown == "ds runs: --limit wants a whole number from 1 to 1000: 0\nTry 'ds runs --help'.\n"
