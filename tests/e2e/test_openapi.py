"""GET /openapi.json, /docs and /redoc (http-api.md 12): the document says what the server does, the page what it says.

Each status that the document gives for a route is provoked on that route, and the answer must be the documented one. A
status that nobody knows how to provoke fails the test, so a new one comes with its provocation.
"""

import asyncio
import base64
import hashlib
import json
import re
import resource
import subprocess
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.client import RawConnection, body_of, dechunk, open_query, query, script, status_of
from harness.pages import inner, page_source
from harness.server import BUILD, REPOSITORY
from harness.waiting import deadline
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

SOURCE = REPOSITORY / "worker/pages/openapi.json"
DOCUMENT = json.loads(SOURCE.read_text())
PAGE = page_source("docs.html")
NOT_DESCRIBED = {"/openapi.json", "/docs", "/redoc"}
# Appendix A: these stand in records only; nobody is left to read an event, or the agent's own line was it.
RECORD_ONLY = {"client_gone", "agent_error", "agent_result", "worker_lost"}
UNKNOWN_RUN = "0123456789abcdef"
KEY = "a key of more than thirty-two bytes".replace(" ", "-")
WEBHOOK_SECRET = "the secret of the webhook"
# Room for a body of nearly body_limit to come in, but not to be put together: between 17 and 32 MB.
LARGE_BODY_BYTES = 15_900_000
MEMORY_LEFT = 25_000_000


@dataclass(frozen=True)
class Reply:
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


def resolve(node: dict) -> dict:
    """What a reference within the document stands for."""
    if "$ref" not in node:
        return node
    found = DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def validator(schema: dict) -> Draft202012Validator:
    """A validator for a schema of the document, with what it refers to."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def schema_of(name: str) -> Draft202012Validator:
    """A validator for a named schema."""
    return validator({"$ref": f"#/components/schemas/{name}"})


def operations() -> dict[tuple[str, str], dict]:
    """Every operation by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    }


def unnamed(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{\w+\}", "{}", path)


def routes() -> dict[tuple[str, str], list | None]:
    """The server's own table: method and path, and what the document has to say of the bearer."""
    text = (REPOSITORY / "worker/routes.c").read_text()
    text = text.partition("struct route fixed[]")[2].partition("\n};")[0]  # what follows are those of triggers
    rows = re.findall(r"\{\.method = EVHTTP_REQ_(\w+),\s*\.path = \"([^\"]+)\"([^}]*)\}", text)
    assert len(rows) == text.count(".handler"), "a route that this test cannot read"
    found: dict[tuple[str, str], list | None] = {}
    for method, path, rest in rows:
        guarded = [{"HTTPBearer": []}] if ".guarded = true" in rest else None
        found[method, unnamed(path)] = [{}, {"HTTPBearer": []}] if ".guarded_by_query" in rest else guarded
    return {where: security for where, security in found.items() if where[1] not in NOT_DESCRIBED}


# --- the document ---


def test_the_document_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["title"] == "Sandstorm"
    errors = [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]
    assert not errors


def test_every_route_is_described_and_nothing_else():
    described = {
        (method, unnamed(path)): operation.get("security") for (method, path), operation in operations().items()
    }
    assert described == routes()


def test_operation_ids_are_those_that_generated_clients_know():
    for (method, path), operation in operations().items():
        end = re.sub(r"\W", "_", path) + "_" + method.lower()
        assert operation["operationId"].endswith(end), operation["operationId"]
        assert re.match(r"[a-z]", operation["operationId"])


def test_the_examples_fit_their_schemas():
    responses = [resolve(node) for operation in operations().values() for node in operation["responses"].values()]
    contents = [node.get("content", {}) for node in [*responses, operations()["POST", "/query"]["requestBody"]]]
    checked = 0
    for media in [content["application/json"] for content in contents if "application/json" in content]:
        examples = [example["value"] for example in media.get("examples", {}).values()]
        for example in examples + ([media["example"]] if "example" in media else []):
            validator(media["schema"]).validate(example)
            checked += 1
    assert checked > len(operations())


def test_every_code_of_an_event_is_described():
    events = DOCUMENT["components"]["schemas"]
    described = {option["const"] for option in events["ErrorEvent"]["properties"]["code"]["oneOf"]}
    table = (REPOSITORY / "worker/run_error.c").read_text()
    assert set(re.findall(r"= \"(\w+)\"", table)) - RECORD_ONLY <= described
    assert not described & RECORD_ONLY
    warnings = {option["const"] for option in events["WarningEvent"]["properties"]["code"]["oneOf"]}
    sources = "".join(path.read_text() for path in (REPOSITORY / "worker").glob("*.c"))
    sent = set(re.findall(r"put_warning\(\w+, \"(\w+)\"", sources))
    assert sent and sent <= warnings


async def test_the_document_is_served(server, client):
    answer = await client.get(f"{server.url}/openapi.json")
    assert (answer.status_code, answer.content) == (200, SOURCE.read_bytes())
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(SOURCE.stat().st_size)
    health = (await client.get(f"{server.url}/health")).json()
    assert DOCUMENT["info"]["version"] == health["version"]
    head = await client.head(f"{server.url}/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]


# --- the request ---


def wrong_value(schema: dict) -> object:
    """A value of a type that no coercion turns into the field's."""
    return 5 if "string" in schema["type"] else "x"


async def test_every_field_is_known_to_the_server_in_this_order(server, client):
    properties = DOCUMENT["components"]["schemas"]["QueryRequest"]["properties"]
    body = {name: wrong_value(schema) for name, schema in properties.items()}
    answer = await client.post(f"{server.url}/query", json=body)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["detail"]] == [["body", name] for name in properties]
    schema_of("HTTPValidationError").validate(answer.json())
    null = {name: None for name in properties if name != "prompt"}
    answer = await client.post(f"{server.url}/query", json={"prompt": script(), **null})
    assert answer.status_code == 200


def breaches() -> dict[str, tuple[str, object]]:
    """A value just beyond each documented limit, and the field it belongs to."""
    found: dict[str, tuple[str, object]] = {}
    for name, schema in DOCUMENT["components"]["schemas"]["QueryRequest"]["properties"].items():
        number = 1 if "integer" in schema["type"] else 0.5
        values = {
            "minimum": schema.get("minimum", 0) - number,
            "maximum": schema.get("maximum", 0) + number,
            "minLength": "x" * (schema.get("minLength", 1) - 1),
            "maxLength": "x" * (schema.get("maxLength", 0) + 1),
            "pattern": "a b",
            "maxProperties": {str(n): "" for n in range(schema.get("maxProperties", 0) + 1)},
            "propertyNames": {"a b": {} if schema.get("additionalProperties") == {"type": "object"} else ""},
            "items": [1],
            "additionalProperties": {"a": 1} if schema.get("additionalProperties") is not True else None,
        }
        found |= {
            f"{name} {rule}": (name, value) for rule, value in values.items() if rule in schema and value is not None
        }
    return found


async def test_every_documented_limit_is_the_servers(server, client):
    schema = schema_of("QueryRequest")
    cases = breaches()
    assert len(cases) > 20
    for case, (name, value) in cases.items():
        body = {"prompt": "x", name: value}
        assert not schema.is_valid(body), case
        answer = await client.post(f"{server.url}/query", json=body)
        assert answer.status_code == 422, case
        assert [error["loc"][:2] for error in answer.json()["detail"]] == [["body", name]], case


def test_the_fields_are_those_of_the_servers_table():
    table = (REPOSITORY / "worker/query_request.c").read_text()
    fields = re.findall(r"\{\"(\w+)\", take_\w+,", table)
    assert fields == list(DOCUMENT["components"]["schemas"]["QueryRequest"]["properties"])


def edges() -> dict[str, tuple[str, object]]:
    """The outermost value within each documented limit."""
    make = {
        "minimum": lambda limit: limit,
        "maximum": lambda limit: limit,
        "minLength": lambda limit: "x" * limit,
        "maxLength": lambda limit: "x" * limit,
        "maxProperties": lambda limit: {str(n): "" for n in range(limit)},
    }
    properties = DOCUMENT["components"]["schemas"]["QueryRequest"]["properties"]
    return {
        f"{name} {rule}": (name, make[rule](limit))
        for name, schema in properties.items()
        for rule, limit in schema.items()
        if rule in make
    }


async def test_the_outermost_values_are_let_in(server, client):
    for case, (name, value) in edges().items():
        other = "model" if name != "model" else "timeout"  # refused, so that no run begins
        answer = await client.post(f"{server.url}/query", json={"prompt": "x", other: [], name: value})
        assert answer.status_code == 422, case
        assert [error["loc"] for error in answer.json()["detail"]] == [["body", other]], case


# --- every status ---


def read_reply(server, request: bytes) -> Reply:
    """Sends bytes; the answer up to the end of its body or of the connection."""
    with RawConnection(server) as connection:
        connection.send(request)
        return parse_reply(connection.read_to_end())


def parse_reply(answer: bytes) -> Reply:
    """An answer from its bytes; field names are lower case."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = body_of(answer)
    if headers.get("transfer-encoding") == "chunked":
        body, complete = dechunk(body)
        assert complete
    return Reply(status_of(answer), headers, body)


def request_bytes(method: str, path: str, body: bytes = b"", **fields) -> bytes:
    """A request with the key; Connection: close, so that the answer's end is seen on probes as well."""
    given = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {KEY}", "Content-Length": len(body)}
    lines = {name.replace("_", "-"): value for name, value in (given | fields).items() if value is not None}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def query_body(prompt: str) -> bytes:
    """The body of a run."""
    return json.dumps({"prompt": prompt}).encode()


def plain(server, method, path):
    return read_reply(server, request_bytes(method, path))


def run(server, method, path):
    return read_reply(server, request_bytes(method, path, query_body(script(files={"out.txt": "x"}))))


def malformed(server, method, path):
    return read_reply(server, request_bytes(method, path, Host=None))


def not_utf8(server, method, path):
    return read_reply(server, request_bytes(method, path, b'{"prompt":"\xff"}'))


def without_key(server, method, path):
    return read_reply(server, request_bytes(method, path, Authorization=None))


def unknown_path(server, method, path):
    return read_reply(server, request_bytes(method, path + "/nothing"))


def wrong_method(server, method, path):
    return read_reply(server, request_bytes("GET" if method == "POST" else "POST", path))


def slash_after(server, method, path):
    return read_reply(server, request_bytes(method, path + "/"))


def half_a_head(server, method, path):
    return read_reply(server, request_bytes(method, path)[:-2])


def large_body(server, method, path):
    return read_reply(server, request_bytes(method, path, Content_Length=10**9))


def long_line(server, method, path):
    return read_reply(server, request_bytes(method, path + "?" + "x" * 9000))


def large_head(server, method, path):
    return read_reply(server, request_bytes(method, path, X_Pad="x" * 40000))


def empty_object(server, method, path):
    return read_reply(server, request_bytes(method, path, b"{}"))


def no_memory(server, method, path):
    """The body comes in; the worker has no memory to go on."""
    limits = {pid: limit_memory(pid) for pid in server.workers()}
    try:
        return read_reply(server, request_bytes(method, path, b'{"prompt":"' + b"x" * LARGE_BODY_BYTES + b'"}'))
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_AS, limit)


def limit_memory(pid: int) -> tuple[int, int]:
    """Limits a worker's address space to what it has and MEMORY_LEFT; returns the old limit."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    old = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_LEFT, old[1]))
    return old


def deep(server, method, path):
    return read_reply(server, request_bytes(method, path + "?deep=1"))


def deep_without_key(server, method, path):
    return read_reply(server, request_bytes(method, path + "?deep=1", Authorization=None))


def deep_unclear(server, method, path):
    return read_reply(server, request_bytes(method, path + "?deep=perhaps"))


def ask_when_full(server, method, path):
    return plain(server, method, path)


def run_when_full(server, method, path):
    return read_reply(server, request_bytes(method, path, query_body(script())))


def known_run(server, method, path):
    """A run that has ended, asked for by its id."""
    run_id = run(server, "POST", "/query").headers["x-sandstorm-run-id"]
    return plain(server, method, path.replace(UNKNOWN_RUN, run_id))


def bad_limit(server, method, path):
    return read_reply(server, request_bytes(method, path + "?limit=0"))


def cancel_held(server, method, path):
    """A cancel of a run whose agent waits for ever."""
    with RawConnection(server) as held:
        held.send(request_bytes("POST", "/query", query_body(script(hold="never"))))
        run_id = re.search(r"X-Sandstorm-Run-Id: (\w+)", held.read_until(b"\r\n\r\n").decode())[1]
        return plain(server, method, path.replace(UNKNOWN_RUN, run_id))


def signed_event(server, method, path):
    """An event of the sandbox service, as it signs it."""
    signature = base64.b64encode(hashlib.sha256(WEBHOOK_SECRET.encode() + b"{}").digest()).decode()
    return read_reply(server, request_bytes(method, path, b"{}", E2b_Signature=signature))


# How to see a status: on one route, or on any.
PROVOKED: dict[str, Callable[..., Reply]] = {
    "POST /query 200": run,
    "POST /query 400": not_utf8,
    "POST /query 422": empty_object,
    "POST /query 500": no_memory,
    "POST /query 503": run_when_full,
    "GET /health 200": deep,
    "GET /health 401": deep_without_key,
    "GET /health 422": deep_unclear,
    "GET /runs 422": bad_limit,
    "GET /runs/{run_id} 200": known_run,
    "GET /runs/{run_id} 404": plain,
    "POST /runs/{run_id}/cancel 200": cancel_held,
    "POST /runs/{run_id}/cancel 404": plain,
    "POST /runs/{run_id}/cancel 409": known_run,
    "GET /ready 503": ask_when_full,
    "POST /webhooks/e2b 200": signed_event,
    "POST /webhooks/e2b 401": empty_object,
    "POST /slack/events 503": plain,
    "200": plain,
    "307": slash_after,
    "400": malformed,
    "401": without_key,
    "404": unknown_path,
    "405": wrong_method,
    "408": half_a_head,
    "413": large_body,
    "414": long_line,
    "431": large_head,
}


def documented() -> list[tuple[str, str, str, dict]]:
    """Method, path, status and answer: of every operation, and of what meets none. The root has no slash too many."""
    return [
        (method, path, status, node)
        for (method, path), operation in operations().items()
        for status, node in {**DOCUMENT["x-unrouted"], **operation["responses"]}.items()
        if (path, status) != ("/", "307")
    ]


def check_headers(reply: Reply, documented_headers: dict) -> None:
    """What is documented is there, and as documented."""
    for name, node in documented_headers.items():
        header = resolve(node)
        value = reply.headers.get(name.lower())
        assert value is not None or not header["required"], f"{name} is missing"
        if value is not None:
            validator(header["schema"]).validate(int(value) if header["schema"]["type"] == "integer" else value)


def event_schema(event: dict) -> str:
    """Which of the events this is."""
    if event["type"] == "error":
        return "ErrorEvent" if "code" in event else "AgentMessage"
    return {"warning": "WarningEvent", "stderr": "StderrEvent", "file": "FileEvent"}.get(event["type"], "AgentMessage")


def check_event(event: dict) -> None:
    """An event is what the document says of its type."""
    schema_of("Event").validate(event)
    schema_of(event_schema(event)).validate(event)


def check_body(reply: Reply, content: dict) -> None:
    """The body is of a documented type and shape."""
    if not content:
        assert reply.body == b""
        return
    kind = reply.headers["content-type"].partition(";")[0]
    schema = content[kind]["schema"]
    if kind == "text/event-stream":
        texts = [
            block.removeprefix("data: ") for block in reply.body.decode().split("\n\n") if block.startswith("data")
        ]
        assert texts
        for text in texts:
            check_event(json.loads(text))
    elif kind == "text/plain":
        validator(schema).validate(reply.body.decode())
    else:
        text = reply.body.decode()
        validator(schema).validate(text if kind == "text/html" else json.loads(text))


@asynccontextmanager
async def one_run_held(double, server, client):
    """While the block runs, the server has the one run it may have."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with client.stream(
        "POST", f"{server.url}/query", content=query_body(script(hold="busy")), headers=headers
    ) as held:
        assert held.status_code == 200
        yield
        double.release("busy")
        await held.aread()


async def provoke(double, server, client, method: str, path: str, status: str) -> Reply:
    """The answer with a status; the test fails when nobody knows how to get it."""
    how = PROVOKED.get(f"{method} {path} {status}") or PROVOKED.get(status)
    assert how, f"no way is known to see {status} on {method} {path}: add one to PROVOKED"
    path = path.replace("{run_id}", UNKNOWN_RUN)
    if how in (ask_when_full, run_when_full):
        async with one_run_held(double, server, client):
            return await asyncio.to_thread(how, server, method, path)
    return await asyncio.to_thread(how, server, method, path)


@pytest.mark.parametrize(
    ("method", "path", "status", "node"), documented(), ids=[f"{m} {p} {s}" for m, p, s, _ in documented()]
)
async def test_every_documented_status_is_seen(double, start_server, client, method, path, status, node):
    sanitized = "san-" in str(BUILD)
    if sanitized and PROVOKED.get(f"{method} {path} {status}") is no_memory:
        pytest.skip("a sanitizer ends the program where memory is lacking")
    env = {"SANDSTORM_API_KEY": KEY, "SANDSTORM_WEBHOOK_SECRET": WEBHOOK_SECRET}
    # Nobody but who wants to see its end has little time: a client may be held up between connecting and sending.
    header_timeout = "2" if status == "408" else "60"
    server = start_server("--header-timeout", header_timeout, "--max-runs", "1", workers=1, env=env)
    reply = await provoke(double, server, client, method, path, status)
    assert reply.status == int(status), reply
    response = resolve(node)
    check_headers(reply, response.get("headers", {}))
    check_body(reply, response.get("content", {}))


# --- events ---


async def test_events_are_as_described(double, start_server, client):
    server = start_server("--timeout", "60")
    prompt = script(stderr=[[1, "careful\n"]], files={"a/out.txt": "x"})
    answer = await query(client, server, prompt, timeout=600, remember="this")
    double.inject("create", "status", status=401)
    failed = await query(client, server, script())
    seen = set()
    for event in answer.events + failed.events:
        check_event(event)
        seen.add(event_schema(event))
    assert seen == {"AgentMessage", "ErrorEvent", "WarningEvent", "StderrEvent", "FileEvent"}


async def test_the_agents_own_error_is_as_described(server, client):
    async with open_query(client, server, script(error="no model")) as stream:
        answer = await stream.rest()
    assert [event_schema(event) for event in answer.of_type("error")] == ["AgentMessage"]
    for event in answer.events:
        check_event(event)


# --- the page ---


def draw(document: dict, tmp_path: Path) -> dict:
    """The page's script, run on a document by node in a page that knows text only."""
    script_file = tmp_path / "page.js"
    script_file.write_text(inner(PAGE, "script"))
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    subprocess.run(["node", "--check", script_file], check=True, timeout=deadline(60))
    program = Path(__file__).with_name("draw_page.mjs")
    drawn = subprocess.run(["node", program, script_file, tmp_path / "openapi.json"], capture_output=True, text=True,
                           timeout=deadline(60), check=False)  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    return json.loads(drawn.stdout)


def texts_of(node: object, keys: tuple[str, ...]) -> list[str]:
    """Every text below some keys of a document."""
    if isinstance(node, list):
        return [text for item in node for text in texts_of(item, keys)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in keys if isinstance(node.get(key), str)]
    return own + [
        text for key, value in node.items() if key not in ("example", "value") for text in texts_of(value, keys)
    ]


def words(text: str) -> str:
    """A text without marks and blanks."""
    return re.sub(r"[`\s]+", "", text)


def test_the_page_shows_all_that_the_document_says(tmp_path):
    drawn = draw(DOCUMENT, tmp_path)
    shown = words(drawn["text"])
    described = {key: value for key, value in DOCUMENT.items() if key != "tags"}
    said = texts_of(described, ("description", "summary", "title"))
    # The words on the stream as a whole are for programs: the page leads to Event in their place.
    stream = operations()["POST", "/query"]["responses"]["200"]["content"]["text/event-stream"]["schema"]["description"]
    missing = [text for text in said if text != stream and words(text) not in shown]
    assert not missing
    names = [
        *DOCUMENT["paths"],
        *DOCUMENT["components"]["schemas"],
        *DOCUMENT["components"]["schemas"]["QueryRequest"]["properties"],
    ]
    assert not [name for name in names if name not in drawn["text"]]
    assert set(drawn["targets"]) <= set(drawn["ids"]), "links that lead nowhere"
    assert len(set(drawn["ids"])) == len(drawn["ids"])


def test_the_page_puts_values_in_as_text(tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    document = json.loads(json.dumps(DOCUMENT).replace("Run an agent", hostile))
    drawn = draw(document, tmp_path)
    assert hostile in drawn["text"]
    assert "img" not in drawn["elements"]
