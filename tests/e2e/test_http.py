"""HTTP around the stream: errors, limits, deadlines, and requests no honest client sends (http-api.md 2)."""

import json
import signal
import time
from email.utils import parsedate_to_datetime

import pytest
from harness.client import RawConnection, body_of, dechunk, open_query, query_bytes, script, status_of
from harness.rules import by_rule
from harness.server import seconds_since
from harness.waiting import eventually

def exchange(server, request: bytes) -> bytes:
    """Sends bytes, reads to the close."""
    with RawConnection(server) as connection:
        connection.send(request)
        return connection.read_to_end()


class Raw:
    """A raw answer taken apart."""

    def __init__(self, answer: bytes):
        head, _, self.body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = status_of(answer)
        self.fields = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in lines[1:])
        assert len(self.fields) == len(lines) - 1, f"a repeated field: {lines}"

    def check_headers(self) -> None:
        """What every answer has that ends its connection."""
        assert self.fields["server"] == "sandstorm"
        assert self.fields["connection"] == "close"
        assert parsedate_to_datetime(self.fields["date"])
        if "transfer-encoding" not in self.fields:
            assert self.fields["content-length"] == str(len(self.body))
        if self.body.startswith(b"{"):
            assert self.fields["content-type"] == "application/json"


def check_untouched(double, server, workers: set[int]) -> None:
    """Nothing reached the sandbox service and no worker died."""
    assert not double.ledger.of_runs()
    assert server.workers() == workers


# --- routes ---


async def test_health_says_ok_and_keeps_the_connection(server, client):
    answer = await client.get(f"{server.url}/health")
    assert answer.status_code == 200
    assert list(answer.json()) == ["status", "version"]
    assert answer.json()["status"] == "ok"
    assert answer.headers["Content-Type"] == "application/json"
    with RawConnection(server) as connection:
        for _ in range(3):
            connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            head = connection.read_until(b'"status":"ok"')
            assert status_of(head) == 200
            assert b"connection: close" not in head.lower()


async def test_head_is_answered_like_get(server, client):
    answer = await client.head(f"{server.url}/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/nothing", "/query/x", "/Query", "//query", "/runs%2Fx"])
async def test_an_unknown_path_is_404(double, server, client, path):
    answer = await client.get(server.url + path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Server"] == "sandstorm"
    assert "Date" in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/query", "POST"), ("PUT", "/query", "POST"), ("DELETE", "/query", "POST"), ("HEAD", "/query", "POST"),
     ("POST", "/health", "GET"), ("OPTIONS", "/query", "POST"), ("PATCH", "/health", "GET")],
)  # fmt: skip
async def test_a_wrong_method_is_405_and_names_the_right_one(server, client, method, path, allow):
    answer = await client.request(method, server.url + path)
    assert (answer.status_code, answer.headers.get("Allow")) == (405, allow)
    if method != "HEAD":
        assert answer.json() == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("method", ["BREW", "PROPFIND", "TRACE", "CONNECT", "get"])
def test_methods_nobody_knows_are_405_or_404(server, method):
    for path, status in (("/query", 405), ("/health", 405), ("/nothing", 404)):
        answer = Raw(exchange(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode()))
        assert answer.status == status
        assert answer.fields.get("allow") == ({"/query": "POST", "/health": "GET"}.get(path))


REDIRECTS = {
    "/query/": ("", "http://h.example:81/query"),
    "/query/?a=b&c=%20/": ("", "http://h.example:81/query?a=b&c=%20/"),
    "/%71uery/": ("", "http://h.example:81/%71uery"),
    "/health/": ("Host: [::1]:8000", "http://[::1]:8000/health"),
    "/health/?": ("Host: a_b.example", "http://a_b.example/health?"),
    "/slack/events/": ("Host: h", "http://h/slack/events"),
    "/query/?0": ("Host: h/evil", "/query?0"),
    "/query/?1": ("Host: h:port", "/query?1"),
    "/query/?2": ("Host: user@h", "/query?2"),
    "/query/?3": ("Host:", "/query?3"),
    "/query/?4": ("Host: h\r\nX-Forwarded-Proto: https", "https://h/query?4"),
    "/query/?5": ("Host: h\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: front.example", "http://front.example/query?5"),
    "/query/?6": ("Host: h\r\nX-Forwarded-Host: a, b", "/query?6"),
}  # fmt: skip


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.1"])
def test_one_slash_too_many_is_307_to_the_path_as_the_client_sees_it(start_server, trusted):
    server = start_server("--trusted-proxies", trusted)
    wrong = {}
    for target, (fields, location) in REDIRECTS.items():
        if trusted == "10.0.0.1" and "X-Forwarded" in fields:
            location = "http://h" + target.replace("/?", "?")
        head = f"POST {target} HTTP/1.1\r\n{fields or 'Host: h.example:81'}\r\nContent-Length: 5000000\r\n\r\n"
        answer = Raw(exchange(server, head.encode()))
        got = (answer.status, answer.fields.get("location"), answer.fields.get("content-length"), answer.body)
        if got != (307, location, "0", b""):
            wrong[target, fields] = got
    assert not wrong


def test_slack_is_told_that_it_is_not_there(server):
    answer = Raw(exchange(server, b"POST /slack/events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"))
    assert (answer.status, answer.body) == (503, b'{"error":"SLACK_BOT_TOKEN not configured"}')
    answer.check_headers()


@pytest.mark.parametrize("path", ["/health", "/nothing", "/query", "/health/"])
def test_head_has_the_status_and_headers_of_get_and_no_body(server, path):
    get, head = (
        Raw(exchange(server, f"{method} {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())) for method in ("GET", "HEAD")
    )
    get.fields.pop("date"), head.fields.pop("date")
    assert (head.status, head.fields, head.body) == (get.status, get.fields, b"")


def test_a_body_is_no_second_request(server):
    workers = server.workers()
    hidden = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    for method in (b"GET", b"HEAD"):
        with RawConnection(server) as connection:
            connection.send(
                b"%b /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (method, len(hidden), hidden)
            )
            answer = connection.read_until(b"\r\n\r\n")
            if method == b"GET":
                connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                connection.read_until(b"200 OK")
            else:
                answer += connection.read_to_end()
        assert status_of(answer) == 200 and b"404" not in answer
    assert server.workers() == workers


def test_a_head_may_come_byte_by_byte(server):
    with RawConnection(server) as connection:
        for _ in range(2):  # the second time on a connection that was kept
            for byte in b"GET /%68ealth?x HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 300 + b"\r\n\r\n":
                connection.send(bytes([byte]))
            assert status_of(connection.read_until(b'"status":"ok"')) == 200
        for byte in b"GARBLE /health HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.send(bytes([byte]))
        assert status_of(connection.read_to_end()) == 405
    with RawConnection(server) as connection:
        for byte in query_bytes(server, "slowly"):
            connection.send(bytes([byte]))
        assert b'"type":"result"' in connection.read_to_end()


# --- keys ---

KEY = "current-key-of-more-than-32-bytes-0001"
OLD_KEY = "previous-key-of-more-than-32-bytes-0002"
KEYS = {"SANDSTORM_API_KEY": KEY, "SANDSTORM_API_KEY_PREVIOUS": OLD_KEY}
MISSING_TOKEN, WRONG_TOKEN = "Not authenticated", "Invalid authentication credentials"


@pytest.fixture
def guarded(start_server):
    """A server with two bearer keys and small limits."""
    return start_server("--body-limit", "64KiB", env=KEYS)


def head_of(method: str, target: str, *fields: str, length: int = 400) -> bytes:
    """A head whose body never comes."""
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", "Host: h", f"Content-Length: {length}", *fields, "", ""]
    ).encode()


REFUSED_TOKENS = {
    None: MISSING_TOKEN,
    "": MISSING_TOKEN,
    "Bearer": MISSING_TOKEN,
    "Bearer  ": MISSING_TOKEN,
    KEY: MISSING_TOKEN,
    f"Basic {KEY}": MISSING_TOKEN,
    f"Token {KEY}": MISSING_TOKEN,
    f"Bearer {KEY}x": WRONG_TOKEN,
    f"Bearer {KEY[:-1]}": WRONG_TOKEN,
    f"Bearer {KEY} {KEY}": WRONG_TOKEN,
    "Bearer secret-in-no-log": WRONG_TOKEN,
}


def test_without_a_valid_token_the_answer_is_401_before_the_body(double, guarded):
    for value, detail in REFUSED_TOKENS.items():
        fields = [f"Authorization: {value}"] if value is not None else []
        for length in (400, 100_000_000):
            answer = Raw(exchange(guarded, head_of("POST", "/query", *fields, "Expect: 100-continue", length=length)))
            assert (answer.status, json.loads(answer.body)) == (401, {"detail": detail}), value
            assert answer.fields["www-authenticate"] == "Bearer"
            answer.check_headers()
    assert Raw(exchange(guarded, head_of("POST", f"/query?token={KEY}", f"Cookie: token={KEY}"))).status == 401
    log = guarded.stderr
    assert "401 Not authenticated, client 127.0.0.1" in log and "401 Invalid authentication credentials" in log
    assert KEY not in log and KEY[:-1] not in log and "secret-in-no-log" not in log
    check_untouched(double, guarded, guarded.workers())


FORWARDED = {
    "127.0.0.1": {"203.0.113.9": "203.0.113.9", "203.0.113.9, 10.0.0.1": "10.0.0.1", "10.0.0.1, 127.0.0.1": "10.0.0.1", "x": "127.0.0.1"},
    "10.0.0.1": {"203.0.113.9": "127.0.0.1"},
    "*": {"203.0.113.9, 10.0.0.1": "203.0.113.9"},
}  # fmt: skip


@pytest.mark.parametrize("trusted", FORWARDED)
def test_a_refusal_names_the_client_behind_a_trusted_proxy_only(start_server, trusted):
    server = start_server("--trusted-proxies", trusted, env=KEYS)
    for forwarded, client in FORWARDED[trusted].items():
        assert status_of(exchange(server, head_of("POST", "/query", f"X-Forwarded-For: {forwarded}"))) == 401
        refused = [line for line in server.stderr.splitlines() if "request refused" in line]
        assert refused[-1].endswith(f" client {client}"), (forwarded, client)


def test_every_refusal_names_its_client(double, start_server):
    """17: one line per refusal (401, 413, 503)."""
    server = start_server("--max-runs", "1", "--body-limit", "64KiB", "--body-memory", "32KiB", env=KEYS, workers=1)
    forwarded = (BEARER, "X-Forwarded-For: 203.0.113.9")
    with RawConnection(server) as running:
        running.send(query_bytes(server, script(events=1, hold="never", hold_after=1), extra=f"{BEARER}\r\n"))
        running.read_until(b'"seq":0')
        for refused, said in {
            head_of("POST", "/query", forwarded[1]): "401 Not authenticated",
            head_of("POST", "/query", *forwarded, length=HUGE): "413 Request body too large",
            head_of("POST", "/query", *forwarded, length=60000): "503 Server busy",
            query_bytes(server, "p", extra="\r\n".join([*forwarded, ""])): "503 Too many concurrent runs",
        }.items():
            assert status_of(exchange(server, refused)) == int(said[:3])
            assert server.stderr.count(f"request refused: {said}, client 203.0.113.9\n") == 1
    double.wait(lambda ledger: not ledger.alive(), 5, "the deletion of the run's sandbox")


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer   {OLD_KEY}  "])
def test_both_keys_open_the_door(guarded, value):
    answer = exchange(guarded, query_bytes(guarded, "p", extra=f"Authorization: {value}\r\n"))
    assert status_of(answer) == 200 and b'"type":"result"' in answer


def test_what_is_not_guarded_needs_no_token(guarded):
    assert Raw(exchange(guarded, b"GET /health HTTP/1.0\r\n\r\n")).status == 200
    assert Raw(exchange(guarded, head_of("POST", "/slack/events", length=0))).status == 503


# --- the order of checks (2.6): each request is wrong in what its answer says and in all that comes later ---

BEARER = f"Authorization: Bearer {KEY}"
ASKING = ("Origin: https://o", "Access-Control-Request-Method: GET")
HUGE = 100_000_000
BODY_SECONDS = 120  # body_timeout, when nothing is set
IN_ORDER = {
    "bad head before preflight": (head_of("OPTIONS", "/nothing", *ASKING, "Content-Length: 1"), 400),
    "nul before preflight": (head_of("OPTIONS", "/nothing?%00", *ASKING), 400),
    "preflight before 404": (head_of("OPTIONS", "/nothing", *ASKING, length=HUGE), 200),
    "options without origin is routed": (head_of("OPTIONS", "/query", ASKING[1]), 405),
    "options without method is routed": (head_of("OPTIONS", "/nothing", ASKING[0]), 404),
    "404 before 413": (head_of("POST", "/nothing", length=HUGE), 404),
    "307 before 405": (head_of("DELETE", "/query/", length=HUGE), 307),
    "405 before 401": (head_of("PUT", "/query", length=HUGE), 405),
    "401 before 413": (head_of("POST", "/query", length=HUGE), 401),
    "413 before the body": (head_of("POST", "/query", BEARER, length=HUGE), 413),
    "413 instead of 100": (head_of("POST", "/query", BEARER, "Expect: 100-continue", length=HUGE), 413),
    "404 instead of 100": (head_of("POST", "/nothing", "Expect: 100-continue"), 404),
    "an expectation nobody knows": (head_of("POST", "/query", BEARER, "Expect: 200-ok"), 417),
}


def test_what_the_head_decides_does_not_wait_for_the_body(double, guarded):
    wrong = {}
    for name, (request, status) in IN_ORDER.items():
        begin = time.monotonic()
        answer = Raw(exchange(guarded, request))
        if answer.status != status or seconds_since(begin) > BODY_SECONDS / 2:
            wrong[name] = (answer.status, seconds_since(begin))
        else:
            answer.check_headers()
    assert not wrong
    check_untouched(double, guarded, guarded.workers())


async def test_a_stopping_server_refuses_runs_right_after_the_head(client, start_server):
    server = start_server(env=KEYS, workers=1)
    authorized = {"Authorization": f"Bearer {KEY}"}
    client.headers.update(authorized)
    async with open_query(client, server, script(events=1, hold="gate", hold_after=1)) as stream:
        await stream.next_numbered()
        with RawConnection(server) as early, RawConnection(server) as unknown, RawConnection(server) as probe:
            for connection in (early, unknown, probe):
                connection.send(b"P" if connection is not probe else b"G")
            early.wait_taken()
            unknown.wait_taken()
            probe.send(b"ET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            probe.read_until(b'"status":"ok"')
            server.signal(signal.SIGTERM)
            server.wait_log("draining")
            early.send(head_of("POST", "/query", BEARER, length=HUGE)[1:])
            answer = Raw(early.read_to_end())
            assert (answer.status, answer.body) == (503, b'{"detail":"Server is shutting down"}')
            assert 1 <= int(answer.fields["retry-after"]) <= 30
            answer.check_headers()
            unknown.send(head_of("POST", "/query")[1:])
            assert status_of(unknown.read_to_end()) == 401
            probe.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = Raw(probe.read_to_end())
            assert (answer.status, answer.fields["connection"]) == (200, "close")


# --- other origins ---

ORIGIN = "https://app.example"
EXPOSED = {
    "access-control-allow-origin": ORIGIN,
    "access-control-expose-headers": "X-Sandstorm-Run-Id",
    "vary": "Origin",
}


def cors_of(answer: "Raw") -> dict[str, str]:
    """The headers of an answer that concern origins."""
    return {name: value for name, value in answer.fields.items() if name.startswith("access-control") or name == "vary"}


def every_answer(server, *fields: str) -> dict[int, "Raw"]:
    """Answers of every kind to requests with these header fields, by status."""
    extra = "".join(f"{field}\r\n" for field in (*fields, BEARER))
    requests = [
        b"GET /health HTTP/1.0\r\n" + extra.encode() + b"\r\n",
        head_of("GET", "/nothing", *fields),
        head_of("GET", "/query", *fields),
        head_of("POST", "/query/", *fields),
        head_of("POST", "/query", *fields),
        head_of("POST", "/query", BEARER, *fields, length=HUGE),
        head_of("POST", "/query", BEARER, *fields, length=2) + b"{}",
        head_of("POST", "/query", BEARER, *fields, length=10),
        head_of("POST", "/query", BEARER, *fields).replace(b"Content-Length: 400", b"Transfer-Encoding: chunked")
        + b"x\r\n",
        head_of("POST", "/slack/events", *fields, length=0),
    ]
    answers = [Raw(exchange(server, request)) for request in requests]
    assert sorted(answer.status for answer in answers) == [200, 307, 400, 401, 404, 405, 408, 413, 422, 503]
    stream = Raw(exchange(server, query_bytes(server, "p", extra=extra)))
    assert "x-sandstorm-run-id" in stream.fields
    return {answer.status: answer for answer in answers} | {0: stream}


@pytest.mark.parametrize(
    ("origins", "origin", "wanted"),
    [
        (None, ORIGIN, EXPOSED | {"access-control-allow-origin": "*"}),
        ("*", ORIGIN, EXPOSED | {"access-control-allow-origin": "*"}),
        (None, None, {}),
        (f" https://b.example , {ORIGIN}", ORIGIN, EXPOSED),
        (f"https://b.example,{ORIGIN}", ORIGIN + ":8443", {}),
        (ORIGIN, None, {}),
    ],
)
def test_every_answer_tells_pages_of_other_origins_whether_they_may_read_it(start_server, origins, origin, wanted):
    env = KEYS | ({"CORS_ORIGINS": origins} if origins is not None else {})
    server = start_server("--body-limit", "64KiB", "--body-timeout", "1", env=env)
    if wanted.get("access-control-allow-origin") == "*":
        wanted = {name: value for name, value in wanted.items() if name != "vary"}
    for status, answer in every_answer(server, *([f"Origin: {origin}"] if origin else [])).items():
        assert cors_of(answer) == wanted, status
        if status != 200:
            answer.check_headers()


def test_a_preflight_is_answered_for_any_path(guarded):
    answer = Raw(exchange(guarded, head_of("OPTIONS", "/any?thing", *ASKING, "Access-Control-Request-Headers: a, B")))
    assert (answer.status, answer.body, answer.fields["content-type"]) == (200, b"OK", "text/plain; charset=utf-8")
    assert cors_of(answer) == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "GET, POST",
        "access-control-max-age": "600",
        "access-control-allow-headers": "a, B",
    }
    answer.check_headers()
    answer = Raw(exchange(guarded, head_of("OPTIONS", "/query", ASKING[0], "Access-Control-Request-Method: PUT",
                                           "Access-Control-Request-Private-Network: true")))  # fmt: skip
    assert (answer.status, answer.body) == (400, b"Disallowed CORS method, private-network")


@pytest.mark.parametrize("byte", [b"\t", b"\x7f"])
def test_values_that_come_back_hold_no_control_bytes(guarded, byte):
    for fields in (
        [b"Origin: a" + byte + b"b"],
        [f.encode() for f in ASKING] + [b"Access-Control-Request-Headers: a" + byte + b"b"],
    ):
        request = head_of("OPTIONS", "/query")[:-2] + b"\r\n".join([*fields, b"", b""])
        assert status_of(exchange(guarded, request)) == 400


# --- bodies ---

async def test_a_large_body_is_413_before_it_is_sent(double, start_server):
    server = start_server("--body-limit", "64KiB")
    workers = server.workers()
    announced = exchange(server, b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n")
    assert status_of(announced) == 413
    assert json.loads(body_of(announced)) == {"detail": "Request body too large"}
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = exchange(
        server, b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"1\r\nx\r\n"
    )
    assert status_of(chunked) == 413
    check_untouched(double, server, workers)


def test_a_chunked_body_is_taken(server):
    body = json.dumps({"prompt": script(events=2)}).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    answer = exchange(
        server, b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    assert status_of(answer) == 200
    content, complete = dechunk(body_of(answer))
    assert complete and b'"type":"result"' in content


def test_extensions_and_trailers_of_chunks_are_skipped(server):
    """2.2: chunked bodies are accepted, also with what RFC 9112 7.1 lets a sender add."""
    body = json.dumps({"prompt": script(events=2)}).encode()
    chunks = b'5;a;b="c d"\r\n%b\r\n%x;e\r\n%b\r\n0;f=g\r\nX-Sum: 1\r\nY:\r\n\r\n'
    request = b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(server, request + chunks % (body[:5], len(body) - 5, body[5:]))
    assert status_of(answer) == 200
    assert b'"type":"result"' in answer


def test_expect_100_gets_its_100(server):
    request = query_bytes(server, "hello", extra="Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    with RawConnection(server) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.send(body)
        assert b'"type":"result"' in connection.read_to_end()


def test_bodies_held_by_a_worker_are_bounded(double, start_server):
    server = start_server("--body-memory", "64KiB", "--body-timeout", "20", workers=1)
    chunked = head_of("POST", "/query").replace(b"Content-Length: 400", b"Transfer-Encoding: chunked")
    with RawConnection(server) as first, RawConnection(server) as growing:
        first.send(head_of("POST", "/query", length=40 * 1024) + b"x")
        first.wait_taken()
        growing.send(chunked + b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        growing.wait_taken()
        first_refused = Raw(exchange(server, head_of("POST", "/query", "Origin: o", length=9 * 1024)))
        assert (first_refused.status, first_refused.body) == (503, b'{"detail":"Server busy"}')
        assert first_refused.fields["access-control-allow-origin"] == "*"
        assert 1 <= int(first_refused.fields["retry-after"]) <= 30
        first_refused.check_headers()
        growing.send(b"4000\r\n")
        assert status_of(growing.read_to_end()) == 503
    check_untouched(double, server, server.workers())


def test_a_body_that_was_answered_is_not_held(double, start_server):
    server = start_server("--body-memory", "64KiB", workers=1)
    body = b'{"prompt":1,"x":"' + b"x" * 40000 + b'"}'
    request = head_of("POST", "/query", length=len(body)) + body
    with RawConnection(server) as connection:  # an answer nobody reads does not hold it either
        connection.send(request)
        connection.read_until(b"string_type")
        for _ in range(3):
            assert status_of(exchange(server, request)) == 422
    with RawConnection(server) as half:
        half.send(request[:-5])
    eventually(lambda: status_of(exchange(server, request)) == 422, 5, "the memory of a client that left")
    assert not double.ledger.of_runs()


# --- limits of the request head ---


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 33000 + b"\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    ],
    ids=["line", "block", "fields"],
)
def test_a_large_head_is_refused(double, server, request_bytes, status):
    """2.3."""
    workers = server.workers()
    assert status_of(exchange(server, request_bytes)) == status
    check_untouched(double, server, workers)


def line_of(length: int) -> bytes:
    """A request whose request line is this long."""
    return b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * (length - len("GET / HTTP/1.1")))


def block_of(length: int) -> bytes:
    """A request whose header block is this long."""
    return b"GET /nothing HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"a" * (length - len("Host: x..X: ....")))


def test_the_limits_of_the_head_are_exact(server):
    """2.3: over 8 KiB, over 32 KiB, over 100 fields."""
    fields = b"GET /nothing HTTP/1.1\r\nHost: x\r\n"
    limits = {
        (line_of(8192), 404), (line_of(8193), 414), (block_of(32768), 404), (block_of(32769), 431),
        (fields + b"X: y\r\n" * 99 + b"\r\n", 404), (fields + b"X: y\r\n" * 100 + b"\r\n", 431),
    }  # fmt: skip
    for request, status in limits:
        assert status_of(exchange(server, request)) == status, (len(request), status)


# --- deadlines ---

DRIP_SECONDS = 0.1  # from one byte to the next


def trickle(connection: RawConnection, data: bytes) -> None:
    """Sends byte by byte for as long as the server has nothing to say."""
    for byte in data:
        if connection.answers_within(DRIP_SECONDS):
            return
        try:
            connection.send(bytes([byte]))
        except ConnectionError:
            return


def test_a_slow_head_is_408_however_steady_it_drips(double, start_server):
    server = start_server("--header-timeout", "1")
    workers = server.workers()
    begin = time.monotonic()
    drip = b"GET /health HTTP/1.1\r\nHost: " + b"x" * 400
    with RawConnection(server) as connection:
        trickle(connection, drip)
        assert status_of(connection.read_to_end()) == 408
    assert 0.9 <= seconds_since(begin) <= len(drip) * DRIP_SECONDS / 2
    check_untouched(double, server, workers)


def test_a_silent_connection_is_just_closed(start_server):
    server = start_server("--header-timeout", "1")
    with RawConnection(server) as connection:
        assert connection.read_to_end() == b""


def test_a_half_sent_body_is_408(double, start_server):
    server = start_server("--body-timeout", "1")
    drip = b"{" * 400
    begin = time.monotonic()
    with RawConnection(server) as connection:
        connection.send(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n")
        trickle(connection, drip)
        assert status_of(connection.read_to_end()) == 408
    assert 0.9 <= seconds_since(begin) <= len(drip) * DRIP_SECONDS / 2
    check_untouched(double, server, server.workers())


def test_a_silent_body_is_408_however_short_idle_connections_are_kept(start_server):
    server = start_server("--body-timeout", "2", "--keepalive-timeout", "1")
    with RawConnection(server) as connection:
        connection.send(head_of("POST", "/query") + b"{")
        assert status_of(connection.read_to_end()) == 408


@pytest.mark.parametrize("request_line", [b"GET http://[/ HTTP/1.1", b"GET /health HTTP/1.1\r\nExpect: nothing"])
def test_a_refused_request_takes_nothing_of_another_run(start_server, request_line):
    """evhttp closes without a word; the next descriptor of that number is a connection to the sandbox service."""
    server = start_server(workers=1)
    with RawConnection(server) as asking:  # accepted before: no accept comes between
        with RawConnection(server) as refused:
            refused.send(request_line + b"\r\nHost: x\r\n\r\n")
            assert status_of(refused.read_to_end()) in {400, 417}
        asking.send(query_bytes(server, script(events=5000)))
        assert asking.read_to_end().count(b'"seq"') == 5000


KEPT_SECONDS = 75  # keepalive_timeout, when nothing is set


def test_an_idle_connection_of_a_probe_is_closed_after_keepalive_timeout(start_server):
    server = start_server("--keepalive-timeout", "1")
    begin = time.monotonic()
    with RawConnection(server) as connection:
        connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.read_until(b'"status":"ok"')
        assert connection.read_to_end() == b""
    assert 0.9 <= seconds_since(begin) <= KEPT_SECONDS / 2


def test_a_client_that_leaves_half_way_leaves_nothing(double, server):
    workers = server.workers()
    for part in (b"P", b"POST /query HTTP/1.1\r\nHost", query_bytes(server, "hello")[:-3]):
        with RawConnection(server) as connection:
            connection.send(part)
    check_untouched(double, server, workers)


# --- smuggling ---

BODY = b'{"prompt":"smuggled"}'
LENGTH = b"%d" % len(BODY)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(head: bytes, body: bytes = BODY, version: bytes = b"HTTP/1.1", host: bytes = b"Host: x\r\n") -> bytes:
    """A POST /query with odd headers."""
    return b"POST /query " + version + b"\r\n" + host + head + b"\r\n" + body


SMUGGLED = {
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: " + LENGTH + b"\r\n"),
    "two equal lengths": post(b"Content-Length: " + LENGTH + b"\r\nContent-Length: " + LENGTH + b"\r\n"),
    "length and coding": post(b"Content-Length: " + LENGTH + b"\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "coding and length": post(b"Transfer-Encoding: chunked\r\nContent-Length: " + LENGTH + b"\r\n", CHUNKED),
    "identity": post(b"Transfer-Encoding: identity\r\nContent-Length: " + LENGTH + b"\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKED),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKED),
    "two codings": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
    "xchunked": post(b"Transfer-Encoding: xchunked\r\n", CHUNKED),
    "blank before the colon": post(b"Transfer-Encoding : chunked\r\n", CHUNKED),
    "blank in a name": post(b"X Y: z\r\nContent-Length: " + LENGTH + b"\r\n"),
    "name with a bracket": post(b"X(Y): z\r\nContent-Length: " + LENGTH + b"\r\n"),
    "NUL in a value": post(b"X: a\0b\r\nContent-Length: " + LENGTH + b"\r\n"),
    "signed length": post(b"Content-Length: +" + LENGTH + b"\r\n"),
    "negative length": post(b"Content-Length: -1\r\n"),
    "length list": post(b"Content-Length: " + LENGTH + b", " + LENGTH + b"\r\n"),
    "hex length": post(b"Content-Length: 0x15\r\n"),
    "no host": post(b"Content-Length: " + LENGTH + b"\r\n", host=b""),
    "bad chunk": post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "negative chunk": post(b"Transfer-Encoding: chunked\r\n", b"-5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "bad trailer": post(b"Transfer-Encoding: chunked\r\n", CHUNKED[:-2] + b"no colon\r\n\r\n"),
    "version 1.2": post(b"Content-Length: " + LENGTH + b"\r\n", version=b"HTTP/1.2"),
    "version 2.0": post(b"Content-Length: " + LENGTH + b"\r\n", version=b"HTTP/2.0"),
    "no version": b"GET /health\r\nHost: x\r\n\r\n",
    "no request line": b"nonsense\r\n\r\n",
    "NUL in the path": b"GET /health%00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@by_rule("variant", "2.3", SMUGGLED)
def test_ambiguous_requests_are_400_and_end_the_connection(double, server, variant):
    workers = server.workers()
    answer = exchange(server, SMUGGLED[variant])
    assert status_of(answer) == 400, answer[:300]
    Raw(answer).check_headers()
    assert body_of(answer) == b'{"detail":"Bad Request"}'
    followed = exchange(server, SMUGGLED[variant] + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert followed.count(b"HTTP/1.") <= 1 and status_of(followed) in (0, 400), followed[:300]
    check_untouched(double, server, workers)


@pytest.mark.parametrize("when", ["with the request", "in the stream"])
def test_pipelined_bytes_end_the_connection_and_its_run(double, server, when):
    workers = server.workers()
    request = query_bytes(server, script(events=1, hold="never", hold_after=1))
    pipelined = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with RawConnection(server) as connection:
        if when == "with the request":
            connection.send(request + pipelined)
            answer = connection.read_to_end()
        else:
            connection.send(request)
            answer = connection.read_until(b'"seq":0')
            connection.send(pipelined)
            answer += connection.read_to_end()
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert server.workers() == workers
    double.wait(lambda ledger: not ledger.alive(), 5, "the deletion of the run's sandbox")


def test_megabytes_after_the_request_cost_nothing(double, server):
    workers = server.workers()
    with RawConnection(server) as connection:
        connection.send(query_bytes(server, script(events=1, hold="never", hold_after=1)))
        connection.read_until(b'"seq":0')
        with pytest.raises(OSError):
            for _ in range(2000):
                connection.send(b"x" * 65536)
    assert server.workers() == workers
    double.wait(lambda ledger: not ledger.alive(), 5, "the deletion of the run's sandbox")
