"""`ds PROMPT`: what an agent says, on a terminal and through pipes, and how it ends."""

import json
import re
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.client import script
from harness.ds import CTRL_C, DS, FAILED, INTERRUPTED, OK, USAGE, ds, ds_checked, ds_on_terminal, ds_shown, environment
from harness.server import free_port
from harness.waiting import deadline, eventually

KEY = "current-key-of-more-than-32-bytes-0001"


def line(**message) -> str:
    """One message of the agent."""
    return json.dumps(message, ensure_ascii=False)


def says(text: str, **more) -> str:
    """The agent says this."""
    return line(type="assistant", message={"content": [{"type": "text", "text": text}]}, **more)


def uses(name: str, **given) -> str:
    """The agent uses a tool."""
    return line(type="assistant", message={"content": [{"type": "tool_use", "name": name, "input": given}]})


TALK = script(events=0, lines=[says("First."), uses("Bash", command="ls -la"), says("Then\nmore.")],
              result={"num_turns": 3, "total_cost_usd": 0.25})  # fmt: skip


@pytest.fixture(scope="module")
def shared(faulty_server):
    """A server for the tests that leave it as it is."""
    return faulty_server


def test_text_on_standard_output_and_the_rest_on_standard_error(shared):
    run = ds(TALK, server=shared)
    assert run.returncode == OK
    assert run.stdout == "First.\nThen\nmore.\n"
    model, tool, summary = run.stderr.splitlines()
    assert model == "· double-model"
    assert tool == "→ Bash  ls -la"
    assert summary.startswith("✓ 3 turns · $0.2500 · ") and " s · run " in summary


def test_on_a_terminal_with_colour_and_in_order(shared):
    code, shown = ds_shown(TALK, server=shared)
    assert code == OK
    places = [shown.index(text) for text in ("First.", "→ Bash  ls -la", "Then\nmore.", "3 turns")]
    assert places == sorted(places)
    assert "\033[2m→ Bash  ls -la\033[0m" in shown
    code, plain = ds_shown(TALK, server=shared, env={"NO_COLOR": "1"})
    assert code == OK and "\033" not in plain and "→ Bash  ls -la\n" in plain


def test_an_agent_cannot_steer_the_terminal(shared):
    evil = "a\033]0;title\007b\x9bc\u009b2Jd\u202ee\rf\tg\n"
    hostile = script(events=0, lines=[says(evil), uses("Ba\033[31msh", command="x\033[2Jy")], stderr=[[0, "\033[5mblink\n"]])
    code, shown = ds_shown(hostile, server=shared, env={"NO_COLOR": "1"})
    assert code == OK
    assert not {"\033", "\007", "\x9b", "\u009b", "\u202e"} & set(shown)
    assert "a?]0;title?b?c?2Jd?e?f" in shown
    assert "→ Ba?[31msh  x?[2Jy\n" in shown
    raw = ds(hostile, server=shared)
    assert evil in raw.stdout and "\033[31m" not in raw.stderr


def test_a_tool_line_is_one_line_of_the_terminal(shared):
    code, shown = ds_shown(script(events=0, lines=[uses("Bash", command="echo 1\n" + "é" * 300)]), server=shared,
                           env={"NO_COLOR": "1"})  # fmt: skip
    assert code == OK
    row = next(row for row in shown.splitlines() if "Bash" in row)
    assert len(row) == 100 and row.endswith("…")


def test_events_as_json(shared):
    run = ds("--json", TALK, server=shared)
    assert run.returncode == OK and run.stderr == ""
    events = [json.loads(text) for text in run.stdout.splitlines()]
    assert [event["type"] for event in events] == ["system", "assistant", "assistant", "assistant", "result"]
    code, shown = ds_shown("--json", TALK, server=shared)
    assert code == OK and [json.loads(text) for text in shown.splitlines()][-1]["num_turns"] == 3


def test_quiet_is_the_text_alone(shared):
    run = ds("--quiet", TALK, server=shared)
    assert (run.returncode, run.stdout, run.stderr) == (OK, "First.\nThen\nmore.\n", "")


def test_an_agent_that_only_gives_a_result(shared):
    assert ds("--quiet", script(events=0), server=shared).stdout == "done\n"
    structured = script(events=0, result={"structured_output": {"b": 1, "a": [2]}})
    assert json.loads(ds("--quiet", structured, server=shared).stdout) == {"b": 1, "a": [2]}


def test_a_subagents_text_is_not_the_answer(shared):
    run = ds(script(events=0, lines=[says("inner", parent_tool_use_id="t1"), says("outer")]), server=shared)
    assert run.stdout == "outer\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"result": {"subtype": "error_max_turns"}}, "the agent ended with error_max_turns"),
     ({"error": "no such\033[2J model"}, "no such?[2J model"), ({"result": False, "exit": 3}, "exited with code 3")],
)  # fmt: skip
def test_an_agent_that_fails(shared, fields, told):
    run = ds(script(events=0, **fields), server=shared)
    assert run.returncode == FAILED
    assert told in run.stderr
    assert ds("--json", script(events=0, **fields), server=shared).returncode == FAILED


def test_what_was_asked_for_arrives(shared, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_text("é")
    (tmp_path / "b.txt").write_text("b")
    run = ds("query", script(events=0), "-m", "opus", "--max-turns", "7", "-t", "60", "-f", "./sub/a.txt", "-f",
             tmp_path / "b.txt", server=shared, cwd=tmp_path)  # fmt: skip
    assert run.returncode == OK
    run_id = run.stderr.rsplit(maxsplit=1)[-1]
    record = json.loads(ds("show", "--json", run_id, server=shared).stdout)
    assert record["config_snapshot"] == {
        "model": "opus", "max_turns": 7, "timeout": 60, "allowed_tools": None, "files": {"sub/a.txt": 2, "b.txt": 1}
    }  # fmt: skip


def test_a_prompt_from_standard_input(shared):
    assert ds("-", given=TALK.encode() + b"\n", server=shared).stdout == "First.\nThen\nmore.\n"


def test_a_prompt_that_is_a_commands_word(shared):
    assert "Working on it: runs" in ds("query", "runs", server=shared).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [((), "no prompt and no command"), (("query",), "no prompt"), (("two", "words"), "quotes"), (("",), "empty"),
     (("p", "-t", "4"), "5 to 3600"), (("p", "--max-turns", "x"), "whole number"), (("p", "--nope"), "nope"),
     (("p", "-f", "/nonexistent"), "No such file"), (("p", "-f", "/dev/null"), "not a regular file"),
     (("p", "--server", "ftp://x"), "http://"), (("p", "--api-key", "a b"), "API key"), (("runs", "x"), "no words"),
     (("runs", "--status", "odd"), "running, completed"), (("show",), "id of one run"), (("cancel",), "which run"),
     (("replay",), "id of one run"), (("runs", "-m", "x"), "invalid option"), (("show", "-f", "x"), "invalid option")],
)  # fmt: skip
def test_wrong_command_lines(words, told):
    run = ds(*words)
    assert run.returncode == USAGE
    assert told in run.stderr and run.stdout == ""


@pytest.mark.parametrize("command", ["query", "runs", "show", "cancel", "status", "replay", "serve", "check"])
def test_help(command):
    run = ds(command, "--help")
    assert run.returncode == OK and run.stdout.startswith("usage: ds") and run.stderr == ""


def test_help_of_all_and_version():
    run = ds("--help")
    assert run.returncode == OK and "ds COMMAND" in run.stdout and "replay" in run.stdout
    assert ds("--version").stdout.startswith("ds ")


# --- files ---


def test_files_of_the_agent_are_written(shared, tmp_path):
    out = tmp_path / "out"
    files = {"report.md": "# é\n", "deep/er/data.bin": 70000}
    run = ds("-o", out, script(events=0, files=files), server=shared)
    assert run.returncode == OK
    assert (out / "report.md").read_text() == "# é\n"
    assert (out / "deep/er/data.bin").read_bytes() == bytes(70000)
    assert "↓ report.md  5 B" in run.stderr and "↓ deep/er/data.bin  68.4 KiB" in run.stderr
    assert sorted(path.name for path in out.rglob("*")) == ["data.bin", "deep", "er", "report.md"]
    assert "· report.md  5 B" in ds(script(events=0, files=files), server=shared).stderr


class FalseServer:
    """A server that answers every request with given bytes, and then closes."""

    def __init__(self, answer: bytes, piece: int = 65536):
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = b""
        self._pieces = [answer[at : at + piece] for at in range(0, len(answer), piece)]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """One connection."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            while not self.asked.endswith(b"}"):
                self.asked += connection.recv(65536)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in self._pieces:
                connection.sendall(piece)

    def stop(self) -> None:
        """No more of it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextmanager
def answering(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nX-Sandstorm-Run-Id: 00aa\r\n", piece: int = 65536):
    """A false server."""
    server = FalseServer(head + b"Connection: close\r\n\r\n" + body, piece)
    try:
        yield server
    finally:
        server.stop()


def file_event(path: str) -> bytes:
    """As a server sends it."""
    event = {"type": "file", "name": "x", "relative_path": path, "size": 4, "data": "ZXZpbA=="}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


RESULT = b'data: {"type":"result","subtype":"success","num_turns":1,"total_cost_usd":0}\n\n'


@pytest.mark.parametrize(
    "path", ["../evil", "a/../../evil", "/tmp/evil", "..", "", "a//b", ".bashrc", "a/.ssh/x", "x\nb", "link/evil", "a/" * 10],
)  # fmt: skip
def test_files_are_never_written_outside(path, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "link").symlink_to(outside)
    with answering(RESULT + file_event(path) + file_event("good")) as server:
        run = ds("-o", out, "p", server=server)
    assert run.returncode == FAILED
    assert f"file not written: {path.replace(chr(10), ' ')}: " in run.stderr
    assert ("outside the folder" in run.stderr) == (".." in path.split("/"))
    assert (out / "good").read_text() == "evil"
    assert list(outside.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "outside"]
    assert {entry.name for entry in out.iterdir()} <= {"good", "link", "a"}


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "good").symlink_to(precious)
    with answering(file_event("good") + RESULT) as server:
        assert ds("-o", out, "p", server=server).returncode == OK
    assert precious.read_text() == "mine"
    assert (out / "good").read_text() == "evil" and not (out / "good").is_symlink()


# --- what goes wrong on the way ---


def test_a_stream_that_is_cut(tmp_path):
    head = b"HTTP/1.1 200 OK\r\nX-Sandstorm-Run-Id: 00aa\r\nTransfer-Encoding: chunked\r\n"
    with answering(b"5\r\ndata:\r\n", head) as server:
        run = ds("p", server=server)
    assert run.returncode == FAILED
    assert "was cut" in run.stderr and "ds show 00aa" in run.stderr


def test_a_stream_without_a_result():
    with answering(b"") as server:
        run = ds("p", server=server)
    assert run.returncode == FAILED and "without a result" in run.stderr


@pytest.mark.parametrize("piece", [1, 2, 65536])
def test_every_form_of_an_event(piece):
    body = (
        b"data: one\n\n: ping\n\ndata:two\ndata:  2\n\nevent: x\nid: 7\ndata: three\r\n\r\ndata: four\r\r\n"
        b"\n\ndatum: no\n\ndata\n\nretry: 1\n\n"
        b'data: {"type":"result",\r\ndata: "subtype":"success"}\r\n\r\ndata: not ended'
    )
    with answering(body, piece=piece) as server:
        run = ds("--json", "p", server=server)
    assert run.returncode == OK
    assert run.stdout == 'one\ntwo\n 2\nthree\nfour\n\n{"type":"result",\n"subtype":"success"}\n'


def test_an_agent_that_could_not_reach_its_model():
    said = b'data: {"type":"result","subtype":"success","is_error":true,"result":"API Error: 401"}\n\n'
    with answering(said) as server:
        run = ds("p", server=server)
    assert run.returncode == FAILED
    assert run.stdout == "API Error: 401\n" and "ended with an error" in run.stderr


def test_what_starts_no_run():
    with answering(b"hello}", b"HTTP/1.1 200 OK\r\n") as server:
        assert "started no run" in ds("p", server=server).stderr


def catches_int(pid: int) -> bool:
    """Whether a process has a handler for INT."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(re.search(r"^SigCgt:\s+(\w+)", status, re.MULTILINE)[1], 16) & 1 << signal.SIGINT - 1)


def test_ctrl_c_while_the_prompt_is_read():
    with ds_on_terminal("-") as screen:
        eventually(lambda: catches_int(screen.process.pid), 10, "ds to begin")
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED
        assert "ds query" not in screen.text


def test_no_server():
    run = ds("p", "--server", f"http://127.0.0.1:{free_port()}")
    assert run.returncode == FAILED
    assert run.stderr.count("\n") == 1 and "cannot reach http://127.0.0.1:" in run.stderr


def test_what_no_server_of_ours_is():
    with answering(b'<html>"}', b"HTTP/1.1 404 Not Found\r\n") as server:
        assert "answered with status 404" in ds("p", server=server).stderr


async def test_a_refused_request(shared):
    run = ds("-f", "../" * 9 + "etc/hostname", "-m", "", "p", server=shared)
    assert run.returncode == FAILED
    assert run.stderr == "ds query: model: String should have at least 1 character\n"


def test_a_full_server_says_when_to_come_back(double, start_server):
    server = start_server("--max-runs", "1")
    with ds_on_terminal(script(hold="gate"), server=server) as first:
        first.wait("double-model")
        run = ds("p", server=server)
        assert run.returncode == FAILED
        assert "Too many concurrent runs" in run.stderr and "try again in " in run.stderr
        double.release("gate")
        assert first.finish() == OK


def test_the_key(start_server):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    refused = ds("p", server=server)
    assert refused.returncode == FAILED and "Not authenticated" in refused.stderr and "SANDSTORM_API_KEY" in refused.stderr
    assert ds("p", server=server, env={"SANDSTORM_API_KEY": KEY}).returncode == OK
    assert ds("--api-key", KEY, "p", server=server, env={"SANDSTORM_API_KEY": "wrong"}).returncode == OK


def test_a_key_on_the_command_line_is_wiped(start_server, double):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    with ds_on_terminal("--api-key", KEY, script(hold="gate"), server=server) as screen:
        screen.wait("double-model")
        words = Path(f"/proc/{screen.process.pid}/cmdline").read_bytes()
        assert b"--api-key" in words and KEY.encode() not in words
        double.release("gate")
        assert screen.finish() == OK


def check_cancelled(server) -> None:
    """The newest run was cancelled, and did not lose its client."""
    eventually(lambda: ds("runs", "--status", "running", "--json", server=server).stdout == "[]\n", 10, "the end of the run")
    record = json.loads(ds("runs", "--json", server=server).stdout)[0]
    assert (record["status"], record["error_code"]) == ("cancelled", "cancelled")


def test_ctrl_c_cancels_the_run(double, server):
    with ds_on_terminal(script(hold="gate"), server=server) as screen:
        screen.wait("double-model")
        screen.press(CTRL_C)
        assert screen.finish() == INTERRUPTED
        assert "cancelled run " in screen.text
    check_cancelled(server)


def test_term_cancels_the_run_too(double, server):
    with ds_on_terminal(script(hold="gate"), server=server) as screen:
        screen.wait("double-model")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.finish() == 128 + signal.SIGTERM
    check_cancelled(server)


def test_a_second_ctrl_c_ends_it_at_once():
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with ds_on_terminal("p", "--server", url) as screen:
        stream, _ = listener.accept()
        stream.sendall(b"HTTP/1.1 200 OK\r\nX-Sandstorm-Run-Id: 00aa\r\n\r\ndata: hello\n\n")
        screen.wait("hello")
        screen.press(CTRL_C)
        cancelling, _ = listener.accept()  # which is never answered
        assert cancelling.makefile("rb").readline().startswith(b"POST /runs/00aa/cancel ")
        screen.press(CTRL_C)
        assert screen.finish(5) == INTERRUPTED  # which is sooner than it gives up
        cancelling.close()
        stream.close()
    listener.close()


def test_a_reader_who_leaves_is_no_fault(server, double):
    with subprocess.Popen([DS, script(flood_mib=4), "--json"], env=environment(server), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as run:  # fmt: skip
        run.stdout.read(1000)
        run.stdout.close()
        assert run.wait(deadline(20)) in (FAILED, -signal.SIGPIPE)
        assert run.stderr.read() == b""
    eventually(lambda: "running" not in ds("runs", server=server).stdout, 10, "the end of the run")


# --- other ways to a server ---


def test_over_tls(start_server, authority):
    certificate, key = authority.issue("ds")
    server = start_server("--tls-cert", certificate, "--tls-key", key, tls=authority.client)
    refused = ds("p", server=server)
    assert refused.returncode == FAILED and "certificate" in refused.stderr
    assert ds("--ca-file", authority.certificate, TALK, server=server).stdout == "First.\nThen\nmore.\n"
    trusting = {"SANDSTORM_CA_FILE": str(authority.certificate)}
    assert ds("status", server=server, env=trusting).returncode == OK
    code, shown = ds_shown(TALK, server=server, env=trusting)
    assert code == OK and "Then\nmore." in shown


def test_with_a_certificate_of_ones_own(start_server, authority):
    certificate, key = authority.issue("mutual")
    server = start_server("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", authority.certificate,
                          tls=authority.new_client(authority.issue("probe")))  # fmt: skip
    trusting = {"SANDSTORM_CA_FILE": str(authority.certificate)}
    assert ds("p", server=server, env=trusting).returncode == FAILED
    own, own_key = authority.issue("person")
    assert ds("--cert", own, "--key", own_key, TALK, server=server, env=trusting).stdout == "First.\nThen\nmore.\n"


def test_over_a_unix_socket(start_server, folder):
    path = folder / "s.sock"
    server = start_server("--bind", f"unix:{path}")
    address = {"SANDSTORM_URL": f"unix:{path}", "http_proxy": "http://127.0.0.1:9"}
    assert ds(TALK, env=address).stdout == "First.\nThen\nmore.\n"
    assert f"unix:{path}" in ds("status", env=address).stdout
    assert "cannot reach unix:" in ds("p", "--server", f"unix:{path}-not", server=server).stderr
    code, shown = ds_shown(TALK, env=address)
    assert code == OK and "Then\nmore." in shown


@pytest.mark.parametrize("kind", ["query", "replay", "add"])
def test_no_leak_and_no_bad_access(kind, shared, tmp_path):
    said = ds(script(events=0), server=shared).stderr
    words = {
        "query": ["-o", "out", "-m", "x", script(events=2, lines=[says("é"), uses("Bash", x=1)], files={"a/b": "c"})],
        "replay": ["replay", said.rsplit(maxsplit=1)[-1]],
        "add": ["add", "exa"],
    }[kind]
    ds_checked(*words, server=shared, cwd=tmp_path)
