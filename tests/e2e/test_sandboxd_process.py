"""sandboxd's Process calls: several clients of one process, its input, its terminal, its exit (e2b.md 0.9)."""

import base64
import hashlib
import json
import struct
import threading

import pytest
from sandboxd_client import UnixConnection, wait_for

OK = {"exited": True, "status": "exit status 0"}
KILLED = {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}


def send(sandbox, pid, kind="stdin", text=b"x"):
    encoded = base64.b64encode(text).decode()
    return sandbox.rpc("SendInput", {"process": {"pid": pid}, "input": {kind: encoded}})


def terminal(sandbox, command, cols=80, rows=24):
    """Begins a command on a terminal."""
    return sandbox.start(command, options={"pty": {"size": {"cols": cols, "rows": rows}}})


# --- Connect ------------------------------------------------------------------------------------------


def test_connect_brings_the_later_output_and_the_end(sandbox):
    started = sandbox.start("echo early; read x; echo late; exit 3", stdin=True)
    started.until(lambda result: result.stdout == b"early\n")
    pid = started.pid
    started.close()
    attached = sandbox.attach(pid)
    assert attached.pid == pid
    assert send(sandbox, pid, text=b"go\n").status == 200
    result = attached.finish()
    assert (result.stdout, result.end["exitCode"], result.trailer) == (b"late\n", 3, {})


def test_connect_never_replays_output(sandbox):
    first = sandbox.start("echo early; read x; echo late", stdin=True)
    first.until(lambda result: result.stdout == b"early\n")
    second = sandbox.attach(first.pid)
    assert second.pid == first.pid
    send(sandbox, first.pid, text=b"\n")
    assert (first.finish().stdout, second.finish().stdout) == (b"early\nlate\n", b"late\n")


def collecting(stream) -> tuple:
    """A thread that reads a stream to its end, and the list it puts the result into."""
    results = []
    thread = threading.Thread(target=lambda: results.append(stream.finish()))
    thread.start()
    return thread, results


def test_every_subscriber_gets_all_of_it(sandbox):
    first = sandbox.start("read x; seq 100000", stdin=True)
    others = [sandbox.attach(first.pid) for _ in range(3)]
    assert {other.pid for other in others} == {first.pid}
    send(sandbox, first.pid, text=b"\n")
    expected = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    for thread, results in [collecting(stream) for stream in (first, *others)]:
        thread.join()
        assert [(result.stdout, result.end, result.trailer) for result in results] == [(expected, OK, {})]


def test_a_slow_subscriber_stalls_and_its_leaving_frees_the_process(sandbox):
    first = sandbox.start("read x; head -c 8000000 /dev/zero", stdin=True)
    slow = sandbox.attach(first.pid)
    assert slow.pid == first.pid
    send(sandbox, first.pid, text=b"\n")
    thread, results = collecting(first)
    thread.join(1)
    assert thread.is_alive(), "the process ran on while a subscriber did not read"
    slow.close()
    thread.join()
    assert (len(results[0].stdout), results[0].end) == (8000000, OK)


def test_connect_by_tag(sandbox):
    started = sandbox.start("read x", stdin=True, options={"tag": "mine"})
    assert started.pid
    attached = sandbox.stream("/process.Process/Connect", {"process": {"tag": "mine"}})
    assert attached.pid == started.pid


def test_connect_to_nobody_is_an_end_of_stream(sandbox):
    error = {"code": "not_found", "message": "process with pid 999999 not found"}
    assert sandbox.attach(999999).finish().trailer == {"error": error}


def test_an_exit_is_kept_for_those_who_ask_later(sandbox):
    started = sandbox.start("exit 5")
    pid = started.pid
    assert started.finish().end["exitCode"] == 5
    result = sandbox.attach(pid).finish()
    assert result.events[0] == {"start": {"pid": pid}}
    assert (result.end["exitCode"], result.trailer) == (5, {})


def test_kept_exits_are_bounded_and_the_oldest_goes_first(sandbox):
    long = sandbox.start("read x; exit 6", stdin=True)
    long_pid, pids = long.pid, []
    for _ in range(258):
        started = sandbox.stream("/process.Process/Start", {"process": {"cmd": "true"}, "stdin": False})
        pids.append(started.pid)
        started.finish()
    assert sandbox.attach(pids[0]).finish().trailer["error"]["code"] == "not_found"
    assert sandbox.attach(pids[2]).finish().end == OK
    send(sandbox, long_pid, text=b"\n")
    long.finish()
    assert sandbox.attach(long_pid).finish().end["exitCode"] == 6
    assert sandbox.attach(pids[2]).finish().trailer["error"]["code"] == "not_found"


def test_a_kept_exit_is_no_process_any_more(sandbox):
    started = sandbox.start("true")
    pid = started.pid
    started.finish()
    assert sandbox.rpc("List", {}).json == {}
    assert sandbox.rpc("SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}).status == 404
    assert send(sandbox, pid).status == 404


def test_the_timeout_of_a_connect_ends_that_stream_only(sandbox):
    started = sandbox.start("read x; echo done", stdin=True)
    trailer = sandbox.attach(started.pid, {"Connect-Timeout-Ms": "200"}).finish().trailer
    assert trailer == {"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}}
    send(sandbox, started.pid, text=b"\n")
    assert started.finish().stdout == b"done\n"


def test_the_timeout_of_a_start_kills_for_other_subscribers_too(sandbox):
    started = sandbox.start("sleep 60", {"Connect-Timeout-Ms": "2500"})  # it begins well before
    attached = sandbox.attach(started.pid)
    assert started.finish().trailer["error"]["code"] == "deadline_exceeded"
    assert attached.finish().end == KILLED


def test_keepalives_of_every_subscriber_and_a_clamped_interval(sandbox):
    started = sandbox.start("read x", {"Keepalive-Ping-Interval": "0"}, stdin=True)
    attached = sandbox.attach(started.pid, {"Keepalive-Ping-Interval": "-5"})
    for stream in started, attached:
        stream.until(lambda result: {"keepalive": {}} in result.events)


def test_a_kill_ends_the_wait_for_a_pipe_that_a_child_holds(sandbox):
    started = sandbox.start("sleep 300 & exit 0")
    pid = started.pid
    wait_for(lambda: sandbox.rpc("List", {}).json == {}, "exit of the shell")
    assert sandbox.rpc("SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}).status == 200
    assert started.finish().end == OK


def test_characters_are_never_torn_or_lost(sandbox):
    result = sandbox.run("python3 -c \"print('é' * 100000)\"")
    assert result.stdout.decode() == "é" * 100000 + "\n"


# --- input --------------------------------------------------------------------------------------------


def test_stdin_is_written_and_closed(sandbox):
    started = sandbox.start("cat; until test -e over; do sleep 0.01; done", stdin=True)
    assert send(sandbox, started.pid, text=b"one ").json == {}
    assert send(sandbox, started.pid, text="zwei é".encode()).json == {}
    for _ in range(2):  # idempotent
        assert sandbox.rpc("CloseStdin", {"process": {"pid": started.pid}}).json == {}
    sandbox.text("touch over")
    result = started.finish()
    assert (result.stdout.decode(), result.end) == ("one zwei é", OK)


def test_stdin_is_a_pipe_unless_it_is_refused(sandbox):
    started = sandbox.stream("/process.Process/Start", {"process": {"cmd": "cat"}})
    assert send(sandbox, started.pid).status == 200
    assert sandbox.rpc("CloseStdin", {"process": {"pid": started.pid}}).status == 200
    assert started.finish().stdout == b"x"


def test_much_input_goes_through_whole(sandbox):
    text = bytes(range(256)) * 20000
    started = sandbox.start("sha256sum", stdin=True)
    assert send(sandbox, started.pid, text=text).status == 200
    sandbox.rpc("CloseStdin", {"process": {"pid": started.pid}})
    assert started.finish().stdout.split()[0].decode() == hashlib.sha256(text).hexdigest()


def test_input_is_answered_when_it_was_written(sandbox):
    started = sandbox.start("sleep 300", stdin=True)
    pid = started.pid
    answer = sandbox.call("POST", "/process.Process/SendInput",
        json.dumps({"process": {"pid": pid}, "input": {"stdin": base64.b64encode(bytes(1000000)).decode()}}),
        {"Content-Type": "application/json", "Connect-Timeout-Ms": "300"})  # fmt: skip
    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    sandbox.rpc("SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    assert started.finish().end == KILLED


def test_input_that_nobody_reads_is_bounded(sandbox):
    started = sandbox.start("sleep 300", stdin=True)
    text = base64.b64encode(bytes(9 * 1024 * 1024)).decode()
    body = json.dumps({"process": {"pid": started.pid}, "input": {"stdin": text}})
    sent = {"Content-Type": "application/json", "Connect-Timeout-Ms": "500"}
    assert sandbox.call("POST", "/process.Process/SendInput", body, sent).status == 504
    answer = send(sandbox, started.pid)
    assert (answer.status, answer.json["code"]) == (429, "resource_exhausted")
    assert "does not read" in answer.json["message"]


def test_stdin_is_closed_after_what_was_sent_before(sandbox):
    started = sandbox.start("until test -e go; do sleep 0.01; done; wc -c", stdin=True)
    text = base64.b64encode(bytes(1000000)).decode()
    body = json.dumps({"process": {"pid": started.pid}, "input": {"stdin": text}})
    sent = {"Content-Type": "application/json", "Connect-Timeout-Ms": "200"}
    assert sandbox.call("POST", "/process.Process/SendInput", body, sent).status == 504  # it waits on
    assert sandbox.rpc("CloseStdin", {"process": {"pid": started.pid}}).status == 200
    assert send(sandbox, started.pid).status == 500
    sandbox.text("touch go")
    assert started.finish().stdout == b"1000000\n"


def test_a_write_in_flight_ends_with_the_sandbox(start_daemon):
    daemon = start_daemon("--log-level", "debug")
    sandbox = daemon.create()
    started = sandbox.start("sleep 300", stdin=True)
    payload = {"process": {"pid": started.pid}, "input": {"stdin": base64.b64encode(bytes(1000000)).decode()}}
    connection = UnixConnection(daemon.socket)
    connection.request("POST", "/process.Process/SendInput", json.dumps(payload),
                       sandbox.headers | {"Content-Type": "application/json"})  # fmt: skip
    wait_for(lambda: "request /process.Process/SendInput" in daemon.log, "the request to be taken")
    assert sandbox.text("echo ok") == "ok\n"
    assert sandbox.kill().status == 204
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()


@pytest.mark.parametrize(
    "command, stdin, kind, message",
    [
        ("sleep 60", False, "stdin", "error writing to stdin: stdin not enabled or closed"),
        ("sleep 60", True, "pty", "error writing to tty: tty not assigned to process"),
    ],
)
def test_input_that_cannot_be_taken_is_refused_in_words(sandbox, command, stdin, kind, message):
    answer = send(sandbox, sandbox.start(command, stdin=stdin).pid, kind)
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert answer.json["message"].startswith(message)


def test_input_after_the_close_is_refused(sandbox):
    pid = sandbox.start("sleep 60", stdin=True).pid
    sandbox.rpc("CloseStdin", {"process": {"pid": pid}})
    assert send(sandbox, pid).json["message"] == "error writing to stdin: stdin not enabled or closed"


def test_input_to_a_process_that_closed_its_stdin_is_an_error(sandbox):
    started = sandbox.start("exec 0<&-; echo closed; sleep 60", stdin=True)
    started.until(lambda result: result.stdout == b"closed\n")
    # Until the init of the sandbox has let go of its own end, a write finds a pipe that somebody might read.
    answer = wait_for(lambda: (sent := send(sandbox, started.pid)).status != 200 and sent, "the pipe to be broken")
    assert answer.json["code"] == "internal"
    assert "broken pipe" in answer.json["message"]


@pytest.mark.parametrize("method", ["SendInput", "CloseStdin", "SendSignal", "Update"])
def test_calls_for_nobody_are_not_found(sandbox, method):
    answer = sandbox.rpc(method, {"process": {"pid": 7}})
    assert answer.status == 404
    assert answer.json == {"code": "not_found", "message": "process with pid 7 not found"}
    answer = sandbox.rpc(method, {"process": {"tag": "x"}})
    assert answer.json["message"] == "process with tag x not found"
    assert sandbox.rpc(method, {}).json["code"] == "unimplemented"


def test_stream_input_takes_several_messages(sandbox):
    started = sandbox.start("head -n 2", stdin=True)
    events = [{"start": {"process": {"pid": started.pid}}}, {"keepalive": {}}]
    events += [{"data": {"input": {"stdin": base64.b64encode(line).decode()}}} for line in (b"a\n", b"b\n")]
    body = b"".join(struct.pack(">BI", 0, len(text)) + text for text in (json.dumps(e).encode() for e in events))
    answer = sandbox.call("POST", "/process.Process/StreamInput", body, {"Content-Type": "application/connect+json"})
    assert answer.body == b"\0\0\0\0\2{}\2\0\0\0\2{}"
    assert started.finish().stdout == b"a\nb\n"


@pytest.mark.parametrize("value, code, status", [
    ("0", "deadline_exceeded", 504), ("x", "invalid_argument", 400), ("12345678901", "invalid_argument", 400)])  # fmt: skip
def test_the_timeout_of_a_unary_call_is_checked(sandbox, value, code, status):
    sent = {"Content-Type": "application/json", "Connect-Timeout-Ms": value}
    answer = sandbox.call("POST", "/process.Process/List", "{}", sent)
    assert (answer.status, answer.json["code"]) == (status, code)


# --- terminals ----------------------------------------------------------------------------------------


def test_a_terminal_has_the_size_that_was_asked_for(sandbox):
    result = terminal(sandbox, "tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo all", 101, 33).finish()
    assert result.pty == b"/dev/pts/0\r\n33 101\r\nall\r\n"
    assert (result.end, result.trailer, result.stdout) == (OK, {}, b"")


def test_a_terminal_is_resized_and_the_program_is_told(sandbox):
    started = terminal(sandbox, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    started.until(lambda result: b"ready" in result.pty)
    size = {"size": {"cols": 132, "rows": 50}}
    assert sandbox.rpc("Update", {"process": {"pid": started.pid}, "pty": size}).json == {}
    assert b"50 132" in started.finish().pty


def test_a_terminal_echoes_and_controls(sandbox):
    started = terminal(sandbox, "echo ready; cat; echo gone")
    started.until(lambda result: b"ready" in result.pty)
    assert send(sandbox, started.pid, "pty", b"hello\n").json == {}
    started.until(lambda result: result.pty.count(b"hello\r\n") == 2)  # the echo, and what cat says
    send(sandbox, started.pid, "pty", b"\x04")
    assert started.finish().pty.endswith(b"gone\r\n")


def test_ctrl_c_interrupts_the_program_of_the_terminal(sandbox):
    started = terminal(sandbox, "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done")
    started.until(lambda result: b"ready" in result.pty)
    send(sandbox, started.pid, "pty", b"\x03")
    result = started.finish()
    assert b"interrupted" in result.pty
    assert result.end["exitCode"] == 9


def test_an_interactive_shell_has_job_control(sandbox):
    config = {"cmd": "/bin/bash", "args": ["-i", "-l"], "envs": {"TERM": "xterm-256color", "PS1": "$ "}}
    message = {"process": config, "pty": {"size": {"cols": 80, "rows": 24}}}
    started = sandbox.stream("/process.Process/Start", message)
    pid = started.pid
    send(sandbox, pid, "pty", b"sleep 100 & jobs; echo $((6*7)); exit 4\n")
    result = started.finish()
    assert b"Running" in result.pty
    assert b"42" in result.pty
    assert b"no job control" not in result.pty
    assert result.end["exitCode"] == 4


def test_the_last_words_of_a_terminal_are_never_lost(sandbox):
    for command in ("seq 3000", "sleep 300 & seq 3000"):  # with and without a program that keeps it open
        for _ in range(5):
            result = terminal(sandbox, command).finish()
            assert result.pty.endswith(b"\r\n2999\r\n3000\r\n"), result.pty[-50:]
            assert result.end == OK


def test_stdin_and_close_are_refused_for_a_terminal(sandbox):
    pid = terminal(sandbox, "sleep 60").pid
    answer = send(sandbox, pid, "stdin")
    assert answer.json["code"] == "internal"
    assert answer.json["message"].startswith("error writing to stdin: tty assigned to process")
    assert sandbox.rpc("CloseStdin", {"process": {"pid": pid}}).json["code"] == "unknown"


def test_a_process_without_terminal_cannot_be_resized(sandbox):
    pid = sandbox.start("sleep 60").pid
    answer = sandbox.rpc("Update", {"process": {"pid": pid}, "pty": {"size": {"cols": 1, "rows": 1}}})
    assert answer.json == {"code": "internal", "message": "error resizing tty: tty not assigned to process"}


def test_a_terminal_that_cannot_start_says_so(sandbox):
    message = {"process": {"cmd": "/nope"}, "pty": {"size": {"cols": 80, "rows": 24}}}
    trailer = sandbox.stream("/process.Process/Start", message).finish().trailer
    assert trailer["error"]["code"] == "invalid_argument"
    assert "error starting pty with command '/nope'" in trailer["error"]["message"]


def test_a_killed_terminal_leaves_nothing_open(daemon, sandbox):
    before = daemon.descriptors
    for _ in range(10):
        started = terminal(sandbox, "sleep 300")
        sandbox.rpc("SendSignal", {"process": {"pid": started.pid}, "signal": "SIGNAL_SIGKILL"})
        assert started.finish().end == KILLED
    wait_for(lambda: daemon.descriptors <= before, "descriptors of the terminals")


def test_a_pause_cuts_subscribers_and_pending_input(start_daemon):
    daemon = start_daemon("--log-level", "debug")
    sandbox = daemon.create()
    started = sandbox.start("until test -e go; do sleep 0.01; done; wc -c", stdin=True)
    pid = started.pid
    connection = UnixConnection(daemon.socket)
    payload = {"process": {"pid": pid}, "input": {"stdin": base64.b64encode(bytes(1000000)).decode()}}
    connection.request("POST", "/process.Process/SendInput", json.dumps(payload),
                       sandbox.headers | {"Content-Type": "application/json"})  # fmt: skip
    wait_for(lambda: "request /process.Process/SendInput" in daemon.log, "the request to be taken")
    assert sandbox.text("echo ok") == "ok\n"
    assert daemon.post(f"/sandboxes/{sandbox.id}/pause", {}).status == 204
    assert started.finish().trailer is None
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()
    assert daemon.post(f"/sandboxes/{sandbox.id}/connect", {"timeout": 60}).status == 201
    attached = sandbox.attach(pid)
    sandbox.rpc("CloseStdin", {"process": {"pid": pid}})
    sandbox.text("touch go")
    assert attached.finish().stdout == b"1000000\n"
