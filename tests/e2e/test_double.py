"""The double against calls written by hand: what the other tests rest on must itself be true."""

import base64
import json

import connect_wire
import httpx
import pytest
from double_checks import list_metadata
from e2b_double import AGENT_CONFIG, AGENT_CONFIG_KEYS

RUN_ID = "0123456789abcdef"
CREATE = {"templateID": "sandstorm", "timeout": 120, "secure": True, "allow_internet_access": True,
          "autoPause": False, "envVars": {"A": "b"},
          "metadata": {"request_id": RUN_ID, "sandstorm_instance": "test"}}  # fmt: skip
START_HEADERS = {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1",
                 "Keepalive-Ping-Interval": "50"}  # fmt: skip
AGENT = "node /opt/agent-runner/runner.mjs"


class HandClient:
    """A correct client, by hand."""

    def __init__(self, double):
        self.http = httpx.Client(base_url=double.url, timeout=10)
        for name in ("Accept-Encoding", "Accept", "User-Agent"):
            del self.http.headers[name]
        self.api = {"X-API-KEY": double.key}
        self.envd = {}

    def create(self, **overrides) -> httpx.Response:
        """POST /sandboxes; later calls go to the sandbox it makes."""
        answer = self.http.post("/sandboxes", headers=self.api, json=CREATE | overrides)
        if answer.status_code == 201:
            made = answer.json()
            self.sandbox_id = made["sandboxID"]
            self.envd = {"E2b-Sandbox-Id": self.sandbox_id, "E2b-Sandbox-Port": "49983",
                         "X-Access-Token": made["envdAccessToken"]}  # fmt: skip
        return answer

    def upload(self, prompt: str) -> httpx.Response:
        """POST /files with an agent_config.json as the last of two parts."""
        config = json.dumps({**dict.fromkeys(AGENT_CONFIG_KEYS), "prompt": prompt}).encode()
        parts = [("file", ("/home/user/a b.txt", b"hello", "application/octet-stream")),
                 ("file", (AGENT_CONFIG, config, "application/octet-stream"))]  # fmt: skip
        return self.http.post("/files", headers=self.envd, files=parts)

    def start(self, command: str = AGENT, headers: dict = START_HEADERS) -> list[tuple[int, dict]]:
        """Process/Start to its end: the flags and message of every envelope."""
        call = {"process": {"cmd": "/bin/bash", "args": ["-l", "-c", command]}, "stdin": False}
        answer = self.http.post(
            "/process.Process/Start", headers=self.envd | headers, content=connect_wire.envelope(json.dumps(call).encode())
        )
        assert answer.status_code == 200
        return [(flags, json.loads(payload)) for flags, payload in connect_wire.cut_envelopes(answer.content)]

    def delete(self) -> httpx.Response:
        """DELETE the sandbox."""
        return self.http.delete(f"/sandboxes/{self.sandbox_id}", headers=self.api)


@pytest.fixture
def hand(double):
    """A hand-written client of the double."""
    client = HandClient(double)
    yield client
    client.http.close()


def printed(envelopes, stream: str = "stdout") -> bytes:
    """All bytes of one stream."""
    pieces = [m["event"]["data"].get(stream, "") for flags, m in envelopes if "data" in m.get("event", {})]
    return b"".join(base64.b64decode(piece) for piece in pieces)


def test_one_run_goes_through_and_leaves_a_clean_ledger(double, hand):
    assert hand.create().status_code == 201
    answer = hand.upload("hello there")
    assert [entry["path"] for entry in answer.json()] == ["/home/user/a b.txt", AGENT_CONFIG]
    envelopes = hand.start()
    assert "start" in envelopes[0][1]["event"]
    assert envelopes[-1] == (2, {})
    assert envelopes[-2][1]["event"]["end"] == {"exited": True, "status": "exit status 0"}
    lines = [json.loads(line) for line in printed(envelopes).splitlines()]
    assert [line["type"] for line in lines] == ["system", "assistant", "result"]
    assert hand.delete().status_code == 204
    assert double.ledger.round_trips_before_start(RUN_ID) == ["create", "upload"]
    assert not double.ledger.violations
    assert len(double.ledger.created()) == len(double.ledger.deleted()) == 1


@pytest.mark.parametrize("shape", [{}, {"split": 7}, {"pack": 3}, {"batch": 4}, {"dribble": 5}, {"split": 3, "batch": 9}])
def test_the_bytes_do_not_depend_on_the_pieces(double, hand, shape):
    hand.create()
    hand.upload(json.dumps({"events": 5, "bytes": 40, **shape}))
    lines = [json.loads(line) for line in printed(hand.start()).splitlines()]
    hand.delete()
    assert [line["seq"] for line in lines if "seq" in line] == list(range(5))
    assert {line["run"] for line in lines if "seq" in line} == {RUN_ID}
    assert lines[-1]["type"] == "result"


def test_a_script_ends_as_it_says(double, hand):
    hand.create()
    hand.upload(json.dumps({"events": 1, "result": False, "unterminated": True, "stderr": [[1, "oh\n"]], "exit": 3}))
    envelopes = hand.start()
    hand.delete()
    assert not printed(envelopes).endswith(b"\n")
    assert printed(envelopes, "stderr") == b"oh\n"
    assert envelopes[-2][1]["event"]["end"]["exitCode"] == 3


def test_collecting_lists_and_serves_what_the_script_left(double, hand):
    hand.create()
    hand.upload(json.dumps({"files": {"b/x.csv": "1,2", "a.txt": 3}}))
    envelopes = hand.start("find /home/user -type f")
    assert printed(envelopes) == b"a.txt\t3\0b/x.csv\t3\0"
    assert hand.http.get("/files", params={"path": "/home/user/b/x.csv"}, headers=hand.envd).content == b"1,2"
    assert hand.http.get("/files", params={"path": "/home/user/none"}, headers=hand.envd).status_code == 404
    hand.delete()


def test_a_deleted_sandbox_is_gone(double, hand):
    hand.create()
    hand.delete()
    assert hand.http.get("/health", headers=hand.envd).json()["message"] == "The sandbox was not found"
    assert hand.delete().status_code == 404


def test_a_sandbox_is_found_by_its_triple_encoded_metadata(double, hand):
    hand.create()
    wanted = f"metadata=request_id%3D{RUN_ID}%26sandstorm_instance%3Dtest&state=running,paused&limit=100"
    found = hand.http.get(f"/v2/sandboxes?{wanted}", headers=hand.api).json()
    assert [s["sandboxID"] for s in found] == [hand.sandbox_id]
    assert not hand.http.get("/v2/sandboxes?metadata=request_id%3Dother", headers=hand.api).json()
    assert list_metadata("metadata=a%252520b%3Dc%252526d%25253D%2525C3%2525A9") == {"a b": "c&d=é"}
    hand.delete()


BREACHES = {
    "no key": lambda hand: hand.http.post("/sandboxes", json=CREATE),
    "key to envd": lambda hand: hand.http.get("/health", headers=hand.envd | hand.api),
    "wrong token": lambda hand: hand.http.get("/health", headers=hand.envd | {"X-Access-Token": "x"}),
    "wrong port": lambda hand: hand.http.get("/health", headers=hand.envd | {"E2b-Sandbox-Port": "80"}),
    "envs for envVars": lambda hand: hand.create(envs={}),
    "string timeout": lambda hand: hand.create(timeout="300"),
    "no request_id": lambda hand: hand.create(metadata={"sandstorm_instance": "x"}),
    "timeout header": lambda hand: hand.start(headers=START_HEADERS | {"Connect-Timeout-Ms": "1000"}),
    "other ping": lambda hand: hand.start(headers=START_HEADERS | {"Keepalive-Ping-Interval": "90"}),
    "no version": lambda hand: hand.start(headers={"Content-Type": "application/connect+json"}),
    "json type": lambda hand: hand.start(headers=START_HEADERS | {"Content-Type": "application/json"}),
    "compression": lambda hand: hand.http.get("/health", headers=hand.envd | {"Accept-Encoding": "gzip"}),
    "unknown path": lambda hand: hand.http.get("/sandboxes", headers=hand.api),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_of_the_protocol_is_seen(double, hand, breach):
    hand.create()
    hand.upload("{}")
    assert not double.ledger.violations
    BREACHES[breach](hand)
    assert double.ledger.violations
    double.ledger.violations.clear()
    for sandbox in double.ledger.alive():
        hand.sandbox_id = sandbox.id
        hand.delete()


def test_two_envelopes_in_a_start_are_seen(double, hand):
    hand.create()
    double_body = connect_wire.envelope(b"{}") * 2
    hand.http.post("/process.Process/Start", headers=hand.envd | START_HEADERS, content=double_body)
    assert "2 envelopes" in double.ledger.violations[0]
    double.ledger.violations.clear()
    hand.delete()


@pytest.mark.parametrize("name", ["rel.txt", 'a"b.txt', "a\\b.txt"])
def test_unsafe_multipart_names_are_seen(double, hand, name):
    hand.create()
    hand.http.post("/files", headers=hand.envd, files=[("file", (name, b"", "application/octet-stream"))])
    assert double.ledger.violations
    double.ledger.violations.clear()
    hand.delete()


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503, 504])
def test_a_status_fault_hits_the_nth_create_only(double, hand, status):
    double.inject("create", "status", status=status, nth=2, retry_after="3" if status == 429 else None)
    assert hand.create().status_code == 201
    answer = HandClient.create(replace_sandbox(hand))
    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert answer.headers.get("Retry-After") == ("3" if status == 429 else None)
    hand.delete()


def replace_sandbox(hand):
    """A second client of the same double."""
    other = HandClient.__new__(HandClient)
    other.http, other.api = hand.http, hand.api
    return other


@pytest.mark.parametrize("action", ["refuse", "reset", "garbage"])
def test_broken_connections_are_broken(double, hand, action):
    double.inject("create", action)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        hand.create()
    assert not double.ledger.created()


def test_an_applied_fault_leaves_the_sandbox_behind(double, hand):
    double.inject("create", "status", status=504, applied=True)
    assert hand.create().status_code == 504
    (hidden,) = double.ledger.alive()
    hand.sandbox_id = hidden.id
    assert hand.delete().status_code == 204


STREAM_BREAKS = {"reset": httpx.ReadError, "fin": httpx.RemoteProtocolError, "kill": httpx.ReadError}


@pytest.mark.parametrize("action", STREAM_BREAKS)
def test_a_stream_breaks_after_the_events_it_names(double, hand, action):
    double.inject("stream", action, after=2, marker="broken")
    hand.create()
    hand.upload(json.dumps({"events": 9, "marker": "broken"}))
    with pytest.raises(STREAM_BREAKS[action]):
        hand.start()
    assert double.ledger.progress[RUN_ID] == 2
    hand.delete()


@pytest.mark.parametrize("action", ["eof", "error", "no_end", "compressed", "bad_flags", "bad_json", "bad_base64", "trailing"])
def test_a_stream_can_end_wrongly(double, hand, action):
    double.inject("stream", action, after=1)
    hand.create()
    hand.upload(json.dumps({"events": 3}))
    try:
        envelopes = hand.start()
        assert envelopes[-1][0] != 2 or envelopes[-1][1] != {} or "end" not in envelopes[-2][1].get("event", {})
    except ValueError:
        assert action in ("compressed", "bad_json")  # no JSON in them
    assert double.ledger.progress[RUN_ID] == 1
    hand.delete()


def test_a_listener_that_is_down_refuses_and_comes_back(double, hand):
    double.go_down()
    with pytest.raises(httpx.ConnectError):
        hand.create()
    double.come_up()
    assert hand.create().status_code == 201
    hand.delete()


def test_a_held_agent_goes_on_when_released(double, hand):
    double.release("go")
    hand.create()
    hand.upload(json.dumps({"events": 2, "hold": "go", "hold_after": 1, "keepalive_ms": 10}))
    assert len(printed(hand.start()).splitlines()) == 4
    hand.delete()


def test_a_killed_agent_ends_by_its_signal(double, hand):
    hand.create()
    hand.upload(json.dumps({"events": 2, "hold": "never", "hold_after": 1}))
    with hand.http.stream(
        "POST", "/process.Process/Start", headers=hand.envd | START_HEADERS,
        content=connect_wire.envelope(json.dumps(
            {"process": {"cmd": "/bin/bash", "args": ["-l", "-c", AGENT]}, "stdin": False}).encode()),
    ) as answer:  # fmt: skip
        stream = answer.iter_bytes()
        (_, first), *_ = connect_wire.cut_envelopes(next(stream))
        pid = json.loads(first)["event"]["start"]["pid"]
        headers = hand.envd | {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}
        call = {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
        other = httpx.Client(base_url=double.url)
        del other.headers["Accept-Encoding"]
        assert other.post("/process.Process/SendSignal", headers=headers, content=json.dumps(call)).json() == {}
        rest = b"".join(stream)
        other.close()
    assert b"signal: killed" in rest
    hand.delete()
