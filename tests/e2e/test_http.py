"""HTTP around the stream: errors, limits, deadlines, and requests no honest client sends (http-api.md 2 and 3)."""

import json
import select
import time

import pytest
from harness.client import RawConnection, body_of, dechunk, query, query_bytes, script, status_of
from harness.server import seconds_since
from harness.waiting import deadline

MISSING = {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"}
INT = "Input should be a valid integer"
ABSOLUTE = "Absolute paths are not allowed: "


def problem(kind: str, loc, msg: str, ctx=None) -> dict:
    """One entry of a 422 answer; loc is a field's name or the whole list."""
    entry = {"type": kind, "loc": loc if isinstance(loc, list) else ["body", loc], "msg": msg}
    return entry | ({"ctx": ctx} if ctx is not None else {})


def value_error(loc, text: str) -> dict:
    """One entry for a rule of ours."""
    return problem("value_error", loc, f"Value error, {text}", {"error": {}})


def exchange(server, request: bytes) -> bytes:
    """Sends bytes, reads to the close."""
    with RawConnection(server) as connection:
        connection.send(request)
        return connection.read_to_end()


def check_untouched(double, server, workers: set[int]) -> None:
    """Nothing reached the sandbox service and no worker died."""
    assert not double.ledger.entries
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


# --- bodies ---

BAD_BODIES = {
    "no body": (b"", [problem("missing", ["body"], "Field required")]),
    "null": (b"null", [problem("missing", ["body"], "Field required")]),
    "array": (b"[]", [problem("model_attributes_type", ["body"], "Input should be a valid dictionary or object to extract fields from")]),
    "no prompt": (b"{}", [MISSING]),
}  # fmt: skip

BAD_FIELDS = {
    "prompt null": ({"prompt": None}, problem("string_type", "prompt", "Input should be a valid string")),
    "prompt int": ({"prompt": 1}, problem("string_type", "prompt", "Input should be a valid string")),
    "prompt empty": ({"prompt": ""}, problem("string_too_short", "prompt", "String should have at least 1 character", {"min_length": 1})),
    "prompt long": ({"prompt": "é" * 1000001}, problem("string_too_long", "prompt", "String should have at most 1000000 characters", {"max_length": 1000000})),
    "model type": ({"model": 5}, problem("string_type", "model", "Input should be a valid string")),
    "model empty": ({"model": ""}, problem("string_too_short", "model", "String should have at least 1 character", {"min_length": 1})),
    "turns zero": ({"max_turns": 0}, problem("greater_than_equal", "max_turns", "Input should be greater than or equal to 1", {"ge": 1})),
    "turns list": ({"max_turns": []}, problem("int_type", "max_turns", INT)),
    "timeout small": ({"timeout": 4}, problem("greater_than_equal", "timeout", "Input should be greater than or equal to 5", {"ge": 5})),
    "timeout large": ({"timeout": 3601}, problem("less_than_equal", "timeout", "Input should be less than or equal to 3600", {"le": 3600})),
    "timeout true": ({"timeout": True}, problem("greater_than_equal", "timeout", "Input should be greater than or equal to 5", {"ge": 5})),
    "timeout text": ({"timeout": "soon"}, problem("int_parsing", "timeout", f"{INT}, unable to parse string as an integer")),
    "timeout fraction": ({"timeout": 60.5}, problem("int_from_float", "timeout", f"{INT}, got a number with a fractional part")),
    "files list": ({"files": []}, problem("dict_type", "files", "Input should be a valid dictionary")),
    "file no string": ({"files": {"a": 1}}, problem("string_type", ["body", "files", "a"], "Input should be a valid string")),
    "file absolute": ({"files": {"/etc/x": ""}}, value_error("files", ABSOLUTE + "/etc/x")),
    "file on a drive": ({"files": {"C:/x": ""}}, value_error("files", ABSOLUTE + "C:/x")),
    "file backslash": ({"files": {"\\x": ""}}, value_error("files", ABSOLUTE + "\\x")),
    "file above": ({"files": {"a/../../x": ""}}, value_error("files", "Path traversal not allowed: a/../../x")),
    "file nowhere": ({"files": {"a/..": ""}}, value_error("files", "Path traversal not allowed: a/..")),
    "21 files": ({"files": {str(n): "" for n in range(21)}}, value_error("files", "Too many files: 21 (max 20)")),
    "10 MB": ({"files": {"a": "x" * 10000001}}, value_error("files", "Total file size 10,000,001 bytes exceeds 10MB limit")),
    "key bytes": ({"anthropic_api_key": "a b"}, value_error("anthropic_api_key", "anthropic_api_key contains invalid characters")),
    "e2b key bytes": ({"e2b_api_key": "é"}, value_error("e2b_api_key", "e2b_api_key contains invalid characters")),
}  # fmt: skip


@pytest.mark.parametrize("body", BAD_BODIES)
async def test_a_bad_body_is_422(double, server, client, body):
    content, detail = BAD_BODIES[body]
    answer = await client.post(f"{server.url}/query", content=content)
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})
    assert not double.ledger.entries


async def test_every_bad_field_is_named_with_its_reason(double, server, client):
    wrong = {}
    for name, (fields, detail) in BAD_FIELDS.items():
        answer = await client.post(f"{server.url}/query", json={"prompt": "p"} | fields)
        if (answer.status_code, answer.json()) != (422, {"detail": [detail]}):
            wrong[name] = (answer.status_code, answer.text[:300], detail)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert not double.ledger.entries


async def test_several_bad_fields_come_in_field_order(server, client):
    answer = await client.post(f"{server.url}/query", json={"files": [], "timeout": 4, "max_turns": 0})
    assert [entry["loc"][1] for entry in answer.json()["detail"]] == ["prompt", "max_turns", "timeout", "files"]


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"prompt":"p"} x', b"{'prompt':'p'}", b'{"prompt":"p",}', b'{"prompt":NaN}', b'{"prompt":"a\nb"}',
     rb'{"prompt":"\ud800"}', b"plain text"],
    ids=["open", "text after it", "single quotes", "comma", "NaN", "control character", "lone surrogate", "text"],
)  # fmt: skip
async def test_a_body_that_is_no_json_is_422(double, server, client, content):
    answer = await client.post(f"{server.url}/query", content=content)
    assert answer.status_code == 422
    (entry,) = answer.json()["detail"]
    assert (entry["type"], entry["msg"], entry["loc"][0]) == ("json_invalid", "JSON decode error", "body")
    assert isinstance(entry["loc"][1], int) and list(entry["ctx"]) == ["error"]
    assert not double.ledger.entries


@pytest.mark.parametrize(
    "content",
    [b'{"prompt":"\xff"}', b'{"prompt":"p","x":' + b"[" * 401 + b"]" * 401 + b"}"],
    ids=["no UTF-8", "401 levels"],
)
async def test_a_body_that_is_no_text_is_400(double, server, client, content):
    answer = await client.post(f"{server.url}/query", content=content)
    assert (answer.status_code, answer.json()) == (400, {"detail": "There was an error parsing the body"})
    assert not double.ledger.entries


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"ANTHROPIC_API_KEY": ""}, "anthropic_api_key is required — pass it in the request body or set ANTHROPIC_API_KEY in the environment"),
        ({"E2B_API_KEY": "", "SANDSTORM_RUNTIME": "e2b"}, "e2b_api_key is required — pass it in the request body or set E2B_API_KEY in the environment"),
    ],
    ids=["no model key", "no sandbox key"],
)  # fmt: skip
async def test_missing_credentials_are_422(double, start_server, client, env, text):
    server = start_server(env=env)
    answer = await client.post(f"{server.url}/query", json={"prompt": "p"})
    assert (answer.status_code, answer.json()) == (422, {"detail": [value_error(["body"], text)]})
    keys = {"anthropic_api_key": "k", "e2b_api_key": double.key}
    assert (await query(client, server, "p", **keys)).events[-1]["type"] == "result"


async def test_odd_but_valid_requests_are_served(server, client):
    fine = [
        b'\xef\xbb\xbf{"prompt":"bom"}',
        b'{"prompt":" ","timeout":" 60 ","max_turns":2.0}',
        b'{"prompt":"first","prompt":"last","unknown":{"a":[1e99]}}',
        json.dumps({"prompt": "p", "files": {"a//b": "1", "c/../d": "2", "..foo": "3"}, "model": None}).encode(),
        b'{"prompt":"nul \\u0000"}',
    ]
    for content in fine:
        answer = await client.post(f"{server.url}/query", content=content, headers={"Content-Type": "text/plain"})
        assert answer.status_code == 200, (content, answer.text)
        assert '"type":"result"' in answer.text


async def test_a_number_of_any_size_is_valid_json(server, client):
    answer = await client.post(f"{server.url}/query", content=b'{"prompt":"p","unknown":1e999}')
    assert answer.status_code == 200


async def test_a_file_name_with_nul_is_named(server, client):
    answer = await client.post(f"{server.url}/query", json={"prompt": "p", "files": {"a\0b": ""}})
    assert answer.json() == {"detail": [value_error("files", "Invalid file path: a\0b")]}


async def test_a_large_body_is_413_before_it_is_sent(double, start_server):
    server = start_server("--body-limit", "64KiB")
    workers = server.workers()
    announced = exchange(server, b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n")
    assert status_of(announced) == 413
    assert json.loads(body_of(announced)) == {"detail": "Request body too large"}
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = exchange(server, b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"1\r\nx\r\n")
    assert status_of(chunked) == 413
    check_untouched(double, server, workers)


def test_a_chunked_body_is_taken(server):
    body = json.dumps({"prompt": script(events=2)}).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    answer = exchange(server, b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert status_of(answer) == 200
    content, complete = dechunk(body_of(answer))
    assert complete and b'"type":"result"' in content


def test_expect_100_gets_its_100(server):
    request = query_bytes(server, "hello", extra="Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    with RawConnection(server) as connection:
        connection.send(head + b"\r\n\r\n")
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.send(body)
        assert b'"type":"result"' in connection.read_to_end()


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
    workers = server.workers()
    assert status_of(exchange(server, request_bytes)) == status
    check_untouched(double, server, workers)


# --- deadlines ---


def trickle(connection: RawConnection, data: bytes, every_s: float) -> None:
    """Sends byte by byte for as long as the server has nothing to say."""
    for byte in data:
        if select.select([connection.socket], [], [], every_s)[0]:
            return
        try:
            connection.send(bytes([byte]))
        except ConnectionError:
            return


def test_a_slow_head_is_408_however_steady_it_drips(double, start_server):
    server = start_server("--header-timeout", "1")
    workers = server.workers()
    begin = time.monotonic()
    with RawConnection(server) as connection:
        trickle(connection, b"GET /health HTTP/1.1\r\nHost: " + b"x" * 400, 0.1)
        assert status_of(connection.read_to_end()) == 408
    assert 0.9 <= seconds_since(begin) <= deadline(2.5)
    check_untouched(double, server, workers)


def test_a_silent_connection_is_just_closed(start_server):
    server = start_server("--header-timeout", "1")
    with RawConnection(server) as connection:
        assert connection.read_to_end() == b""


def test_a_half_sent_body_is_408(double, start_server):
    server = start_server("--body-timeout", "1")
    begin = time.monotonic()
    with RawConnection(server) as connection:
        connection.send(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n")
        trickle(connection, b"{" * 300, 0.1)
        assert status_of(connection.read_to_end()) == 408
    assert 0.9 <= seconds_since(begin) <= deadline(2.5)
    check_untouched(double, server, server.workers())


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
    "version 1.2": post(b"Content-Length: " + LENGTH + b"\r\n", version=b"HTTP/1.2"),
    "version 2.0": post(b"Content-Length: " + LENGTH + b"\r\n", version=b"HTTP/2.0"),
    "no version": b"GET /health\r\nHost: x\r\n\r\n",
    "no request line": b"nonsense\r\n\r\n",
    "NUL in the path": b"GET /health%00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("variant", SMUGGLED)
def test_ambiguous_requests_are_400_and_end_the_connection(double, server, variant):
    workers = server.workers()
    answer = exchange(server, SMUGGLED[variant])
    assert status_of(answer) == 400, answer[:300]
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
