"""sandboxd's control API: time, pause, connect, list, limits, each with E2B's words."""

import base64
import contextlib
import http.client
import json
import threading
import time
from datetime import datetime
from urllib.parse import quote

import pytest
from sandboxd_client import SLOW, UnixConnection, cmdline, facts, wait_for

ABSENT = "i" + "0" * 20
CLOCK_SECONDS = 0.01  # what a time of sandboxd's may be rounded by


def post(sandbox, call, body=None, version=""):
    return sandbox.daemon.post(f"{version}/sandboxes/{sandbox.id}/{call}", body if body is not None else {})


def info(sandbox):
    answer = sandbox.daemon.call("GET", f"/sandboxes/{sandbox.id}")
    assert answer.status == 200, answer
    return answer.json


def end_of(sandbox) -> float:
    return datetime.fromisoformat(info(sandbox)["endAt"]).timestamp()


@contextlib.contextmanager
def sets_end(seconds, *made):
    """What is done within sets the end of a sandbox, to so many seconds from then; yields a list for one made within."""
    sandboxes = list(made)
    before = time.time()
    yield sandboxes
    after = time.time()
    [sandbox] = sandboxes
    assert before + seconds - CLOCK_SECONDS <= end_of(sandbox) <= after + seconds + CLOCK_SECONDS


def refused(answer, status, message):
    assert (answer.status, answer.json) == (status, {"code": status, "message": message})


# --- time ---


def test_no_sandbox_ends_before_the_end_it_states(daemon):
    """Each end is looked for from shortly before it, without a pause, by whoever asked for that end."""
    early = []
    for _ in range(4):
        sandbox = daemon.create(timeout=60)
        post(sandbox, "timeout", {"timeout": 1})
        end = end_of(sandbox)
        time.sleep(max(0, end - 0.05 - time.time()))
        while sandbox.call("GET", "/health").status != 502:
            pass
        if (seen := time.time()) < end:
            early.append(end - seen)
    assert not early


def test_timeout_sets_the_end_and_may_shorten(sandbox):
    for seconds in (1000, 100):
        with sets_end(seconds, sandbox):
            assert post(sandbox, "timeout", {"timeout": seconds}).status == 204


def test_timeout_0_ends_it_now(sandbox):
    assert post(sandbox, "timeout", {"timeout": 0}).status == 204
    wait_for(lambda: sandbox.call("GET", "/health").status == 502, "ended")


def test_timeout_is_clamped_to_a_day(sandbox):
    with sets_end(86400, sandbox):
        assert post(sandbox, "timeout", {"timeout": 2**31 - 1}).status == 204


def test_connect_and_refreshes_never_shorten(sandbox):
    before = info(sandbox)["endAt"]
    assert post(sandbox, "connect", {"timeout": 10}).status == 200
    assert post(sandbox, "refreshes", {"duration": 20}).status == 204
    assert info(sandbox)["endAt"] == before
    with sets_end(500, sandbox):
        assert post(sandbox, "connect", {"timeout": 500}).status == 200
    with sets_end(700, sandbox):
        assert post(sandbox, "refreshes", {"duration": 700}).status == 204


def test_a_refresh_gives_15_seconds_at_least(daemon):
    for body in ({"duration": 1}, {}):
        sandbox = daemon.create(timeout=10)
        with sets_end(15, sandbox):
            assert post(sandbox, "refreshes", body).status == 204


def test_connect_answers_as_create_did(daemon):
    sandbox = daemon.create(secure=True)
    assert post(sandbox, "connect", {"timeout": 10}).json == sandbox.created
    assert post(sandbox, "connect", {"timeout": 10}, "/v2").json == sandbox.created


def test_connect_v2_needs_no_timeout_and_takes_300(daemon):
    sandbox = daemon.create(timeout=20)
    with sets_end(300, sandbox):
        answer = daemon.call("POST", f"/v2/sandboxes/{sandbox.id}/connect")
    assert (answer.status, answer.json["sandboxID"]) == (200, sandbox.id)


def test_create_defaults_are_15_and_300_seconds(daemon):
    for path, seconds in [("/sandboxes", 15), ("/v2/sandboxes", 300)]:
        with sets_end(seconds) as made:
            made.append(daemon.create(path, timeout=None))


@pytest.mark.parametrize("call, body, message", [
    ("timeout", {}, "validation error: timeout must be an integer of at least 0"),
    ("timeout", {"timeout": -1}, "validation error: timeout must be an integer of at least 0"),
    ("timeout", {"timeout": "5"}, "validation error: timeout must be an integer of at least 0"),
    ("timeout", [], "Error when parsing request: not a JSON object"),
    ("connect", {"timeout": 86401}, "Timeout cannot be greater than 24 hours"),
    ("connect", {}, "validation error: timeout must be an integer of at least 0"),
    ("resume", {"timeout": 86401}, "Timeout cannot be greater than 24 hours"),
    ("refreshes", {"duration": 3601}, "validation error: duration must be at most 3600"),
])  # fmt: skip
def test_a_wrong_time_is_400_in_words(sandbox, call, body, message):
    refused(post(sandbox, call, body), 400, message)


def test_the_end_comes_within_100_ms_of_its_time(daemon):
    """What stalls us or sandboxd only makes it worse: the promise holds if one of these shows it."""
    late = []
    while not late or min(late) >= 0.1 * SLOW:
        assert len(late) < 5, late
        sandbox = daemon.create()
        stream = sandbox.start("sleep 60")
        stream.next()
        asked = time.monotonic()
        assert post(sandbox, "timeout", {"timeout": 1}).status == 204
        stream.finish()
        late.append(time.monotonic() - asked - 1)
        assert late[-1] > -CLOCK_SECONDS


# --- ids ---


CALLS = [("GET", ""), ("DELETE", ""), ("POST", "/timeout"), ("POST", "/refreshes"), ("POST", "/connect"),
         ("POST", "/resume"), ("POST", "/pause")]  # fmt: skip


@pytest.mark.parametrize("method, call", CALLS)
def test_every_call_on_an_unknown_sandbox_is_404(daemon, method, call):
    for version in ("", "/v2") if call == "/connect" else ("",):
        answer = daemon.call(method, f"{version}/sandboxes/{ABSENT}{call}", '{"timeout":1}' if method == "POST" else None)
        refused(answer, 404, f"Sandbox \"{ABSENT}\" doesn't exist or you don't have access to it")


@pytest.mark.parametrize("name", ["a-b-c", "UPPER", "i%2e%2e", "i_0"])
def test_what_can_be_no_id_is_400(daemon, name):
    refused(daemon.call("GET", f"/sandboxes/{name}"), 400, "Invalid sandbox ID")


def test_the_client_id_may_follow_the_id(sandbox):
    assert sandbox.daemon.call("GET", f"/sandboxes/{sandbox.id}-6532622b").json["sandboxID"] == sandbox.id


# --- pause ---


def test_a_paused_sandbox_is_out_of_reach_and_known(sandbox):
    with sets_end(0, sandbox):
        assert post(sandbox, "pause").status == 204
    health = sandbox.call("GET", "/health")
    assert health.status == 502
    assert health.json == {"sandboxId": sandbox.id, "message": "The sandbox was not found", "code": 502}
    assert sandbox.read("/etc/passwd").status == 502
    assert info(sandbox)["state"] == "paused"


@pytest.mark.parametrize("body", [None, "{}", '{"memory":true}'])
def test_a_second_pause_is_409(daemon, sandbox, body):
    path = f"/sandboxes/{sandbox.id}/pause"
    assert daemon.call("POST", path, body).status == 204
    refused(daemon.call("POST", path, body), 409,
            f"Error pausing sandbox - sandbox '{sandbox.id}' is already paused")  # fmt: skip


def test_connect_brings_a_paused_sandbox_back_with_its_processes_and_files(daemon):
    sandbox = daemon.create(secure=True)
    sandbox.upload({"/home/user/kept": b"kept"})
    stream = sandbox.start("i=0; while :; do echo $((i += 1)) > next; mv next count; sleep 0.02; done")
    pid = stream.next()["start"]["pid"]

    def count():
        return int(sandbox.text("cat count 2>/dev/null || echo 0"))

    wait_for(count, "it counts")
    assert post(sandbox, "pause").status == 204
    with sets_end(60, sandbox):
        answer = post(sandbox, "connect", {"timeout": 60})
    assert (answer.status, answer.json) == (201, sandbox.created)
    assert info(sandbox)["state"] == "running"
    assert sandbox.read("kept").body == b"kept"
    reached = count()
    wait_for(lambda: count() > reached, "it counts on")
    assert sandbox.text(f"test -d /proc/{pid} && echo yes") == "yes\n"
    stream.close()


def test_no_process_runs_while_paused(daemon, sandbox):
    spin = "bash -c 'while :; do :; done' spinner"
    stream = sandbox.start(f"{spin} & setsid {spin} & ({spin} & exec {spin}); wait")
    stream.next()

    def spinners(wanted):
        found = [pid for pid, line in facts(daemon.children, cmdline).items() if line.endswith(b"\0spinner\0")]
        return len(found) == 4 and set(facts(found, state).values()) == {wanted}

    wait_for(lambda: spinners("R"), "all run")
    assert post(sandbox, "pause").status == 204
    wait_for(lambda: spinners("T"), "all are stopped")
    assert post(sandbox, "connect", {"timeout": 60}).status == 201
    wait_for(lambda: spinners("R"), "all run again")
    stream.close()


def state(pid) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def test_a_pause_cuts_streams_raw(sandbox):
    stream = sandbox.start("echo begun; sleep 60")
    stream.next(), stream.next()
    assert post(sandbox, "pause").status == 204
    result = stream.finish()
    assert result.stdout == b"begun\n" and result.trailer is None and result.end is None


def test_a_pause_cuts_every_stream_and_call_and_keeps_polled_watchers(sandbox):
    watch = sandbox.stream("/filesystem.Filesystem/WatchDir", {"path": "."})
    first = sandbox.start("cat", stdin=True)
    second = sandbox.attach(first.pid)
    second.next()
    watcher = sandbox.files("CreateWatcher", path=".").json["watcherId"]
    deaf = sandbox.start("sleep 60", stdin=True).pid
    held = threading.Thread(target=send_input, args=(sandbox, deaf, 20_000_000))
    held.start()
    wait_for(lambda: send_input(sandbox, deaf, 1) == 429, "a call waits for the process")
    assert post(sandbox, "pause").status == 204
    for stream in (watch, first, second):
        assert stream.finish().trailer is None
    held.join(20 * SLOW)
    assert not held.is_alive()
    assert post(sandbox, "connect", {"timeout": 60}).status == 201
    sandbox.text("touch new")
    wait_for(lambda: "new" in str(sandbox.files("GetWatcherEvents", watcherId=watcher).json), "the watcher sees it")


def send_input(sandbox, pid, count):
    """The status, or None when the connection was cut."""
    text = base64.b64encode(bytes(count)).decode()
    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):
        return sandbox.rpc("SendInput", {"process": {"pid": pid}, "input": {"stdin": text}}).status


def test_a_process_outlives_the_cut_of_its_stream(sandbox):
    stream = sandbox.start("sleep 60")
    pid = stream.next()["start"]["pid"]
    assert post(sandbox, "pause").status == 204
    stream.finish()
    assert post(sandbox, "connect", {"timeout": 60}).status == 201
    assert [entry["pid"] for entry in sandbox.rpc("List", {}).json["processes"]] == [pid]


def test_a_pause_cuts_a_download(sandbox):
    sandbox.upload({"/home/user/big": b"x" * 20_000_000})
    connection = UnixConnection(sandbox.daemon.socket)
    connection.request("GET", "/files?path=big", headers=sandbox.headers)
    response = connection.getresponse()
    response.read(1000)
    assert post(sandbox, "pause").status == 204
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()


def test_a_paused_sandbox_outlives_its_time(daemon):
    sandbox = daemon.create(timeout=3)
    assert post(sandbox, "pause").status == 204
    other = daemon.create(timeout=3)
    wait_for(lambda: other.call("GET", "/health").status == 502, "the time is over")
    assert info(sandbox)["state"] == "paused"
    assert post(sandbox, "connect", {"timeout": 1}).status == 201
    wait_for(lambda: sandbox.call("GET", "/health").status == 502, "the new time is over")
    assert sandbox.kill().status == 404


def test_a_paused_sandbox_has_no_time_to_set(sandbox):
    post(sandbox, "pause")
    for call, body in [("timeout", {"timeout": 5}), ("refreshes", {"duration": 20})]:
        refused(post(sandbox, call, body), 409, f'Sandbox "{sandbox.id}" is paused')


def test_a_paused_sandbox_can_be_killed(daemon, sandbox):
    sandbox.start("sleep 1000").next()
    post(sandbox, "pause")
    assert sandbox.kill().status == 204
    assert daemon.children == []
    assert post(sandbox, "connect", {"timeout": 5}).status == 404


def test_resume_is_409_while_it_runs(sandbox):
    refused(post(sandbox, "resume", {"timeout": 5}), 409, f"Sandbox {sandbox.id} is already running")
    post(sandbox, "pause")
    answer = post(sandbox, "resume", {"timeout": 60})
    assert (answer.status, answer.json) == (201, sandbox.created)


def test_with_auto_pause_the_end_of_its_time_pauses(daemon):
    sandbox = daemon.create(timeout=1, autoPause=True)
    assert info(sandbox)["lifecycle"] == {"autoResume": False, "onTimeout": "pause"}
    wait_for(lambda: info(sandbox)["state"] == "paused", "paused")
    assert post(sandbox, "connect", {"timeout": 60}).status == 201
    assert sandbox.text("echo hi") == "hi\n"


def test_with_auto_resume_traffic_wakes_it(daemon):
    sandbox = daemon.create(timeout=100, autoPause=True, autoResume={"enabled": True})
    assert info(sandbox)["lifecycle"] == {"autoResume": True, "onTimeout": "pause"}
    assert post(sandbox, "pause").status == 204
    assert info(sandbox)["state"] == "paused"
    with sets_end(100, sandbox):
        assert sandbox.text("echo hi") == "hi\n"


def test_a_stop_with_paused_sandboxes_leaves_nothing(daemon):
    for _ in range(3):
        post(daemon.create(), "pause")
    daemon.stop()


# --- list ---


def listed(daemon, query="", path="/v2/sandboxes"):
    answer = daemon.call("GET", f"{path}?{query}")
    assert answer.status == 200, answer
    return [entry["sandboxID"] for entry in answer.json]


def test_the_list_filters_by_state(daemon):
    awake, asleep = daemon.create(), daemon.create()
    post(asleep, "pause")
    assert listed(daemon, "state=running") == [awake.id]
    assert listed(daemon, "state=paused") == [asleep.id]
    assert listed(daemon, "state=running,paused") == listed(daemon, "state=paused%2Crunning") == [asleep.id, awake.id]
    assert listed(daemon) == [asleep.id, awake.id]
    assert listed(daemon, path="/sandboxes") == [awake.id]
    assert daemon.call("GET", "/v2/sandboxes?state=paused").headers["X-Total-Running"] == "1"


def test_the_list_is_paged_in_both_orders(daemon):
    made = [daemon.create().id for _ in range(5)]
    for order, expected in [("asc", made), ("desc", made[::-1])]:
        seen, token = [], ""
        for size in (2, 2, 1):
            page = daemon.call("GET", f"/v2/sandboxes?limit=2&order={order}" + (f"&nextToken={token}" if token else ""))
            seen += [entry["sandboxID"] for entry in page.json]
            assert len(page.json) == size and ("X-Next-Token" in page.headers) == (size == 2)
            token = quote(page.headers.get("X-Next-Token", ""))
        assert seen == expected


def test_a_page_stays_right_when_sandboxes_end_between(daemon):
    made = [daemon.create() for _ in range(4)]
    first = daemon.call("GET", "/v2/sandboxes?limit=2")
    made[2].kill()
    made[1].kill()
    assert listed(daemon, "limit=2&nextToken=" + quote(first.headers["X-Next-Token"])) == [made[0].id]


def test_the_list_filters_by_template_and_start(daemon):
    first, second = daemon.create(), daemon.create()
    assert listed(daemon, "template=BASE") == [second.id, first.id]
    assert listed(daemon, "template=other") == []
    started = info(second)["startedAt"]
    assert listed(daemon, "startedAfter=" + started) == [second.id]
    assert listed(daemon, "startedAfter=" + quote(started.replace("Z", "+00:00"))) == [second.id]
    assert listed(daemon, "startedAfter=2001-01-01T00:00:00Z") == [second.id, first.id]


@pytest.mark.parametrize("query, message", [
    ("limit=0", "validation error: limit must be a number from 1 to 100"),
    ("limit=101", "validation error: limit must be a number from 1 to 100"),
    ("limit=x", "validation error: limit must be a number from 1 to 100"),
    ("state=dead", "validation error: state must be running, paused or both"),
    ("state=", "validation error: state must be running, paused or both"),
    ("order=up", "validation error: order must be asc or desc"),
    ("startedAfter=today", "validation error: startedAfter must be an RFC 3339 time"),
    ("nextToken=bogus", "Invalid next token"),
    ("metadata=a%3Db%3Dc", "Error parsing metadata"),
])  # fmt: skip
def test_a_wrong_query_is_400_in_words(daemon, query, message):
    refused(daemon.call("GET", "/v2/sandboxes?" + query), 400, message)


# --- limits, and what is not there ---


def test_too_many_sandboxes_are_429_in_e2bs_words(start_daemon):
    daemon = start_daemon("--max-sandboxes", 2)
    first, second = daemon.create(), daemon.create()
    post(first, "pause")
    answer = daemon.post("/sandboxes", {"templateID": "base"})
    refused(answer, 429, "you have reached the maximum number of concurrent E2B sandboxes (2). If you need more, please "
                         "visit 'https://e2b.dev/docs/billing'")  # fmt: skip
    assert "Retry-After" not in answer.headers
    second.kill()
    daemon.create()
    assert daemon.post("/v2/sandboxes", {"templateID": "base"}).status == 429


@pytest.mark.parametrize("method, call", [("GET", "metrics"), ("GET", "logs"), ("PUT", "network"), ("POST", "fork"),
                                          ("POST", "snapshots")])  # fmt: skip
def test_calls_that_are_not_there_are_501_in_json(sandbox, method, call):
    answer = sandbox.daemon.call(method, f"/sandboxes/{sandbox.id}/{call}")
    refused(answer, 501, "sandboxd does not have this call")


@pytest.mark.parametrize("body", ["", "[]", "{", '"x"'])
def test_a_body_that_is_no_object_is_400(daemon, body):
    answer = daemon.call("POST", "/sandboxes", body)
    assert (answer.status, answer.json["code"]) == (400, 400)


def test_unknown_fields_of_a_create_are_ignored(daemon):
    daemon.create(mcp={"x": {}}, iam=1, volumeMounts=[{"name": "a", "path": "/b"}], network={"allowOut": []}, new=[1])


def test_a_create_in_chunks_is_taken(daemon):
    answer = daemon.call("POST", "/v2/sandboxes", iter([b'{"templateID"', b':"base"}']))
    assert answer.status == 201 and json.loads(answer.body)["envdAccessToken"]
