"""What the double demands of its client (e2b.md 0.2 to 0.9 and A.2). Each breach becomes one text."""

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote_plus

import connect_wire

ENVD_PORT = "49983"
KEEPALIVE_SECONDS = "50"
RUN_ID = re.compile(r"[0-9a-f]{16}")
METADATA_VALUE = re.compile(r"[A-Za-z0-9._-]+")

# Field of the create body: its type, and the value it must have where only one is right.
CREATE_FIELDS = {
    "templateID": (str, None),
    "timeout": (int, None),
    "secure": (bool, True),
    "allow_internet_access": (bool, True),
    "autoPause": (bool, False),
    "envVars": (dict, None),
    "metadata": (dict, None),
}
PROCESS_FIELDS = {"cmd", "args", "envs", "cwd"}
NEVER_SENT = ("Accept-Encoding", "Expect", "Connect-Timeout-Ms", "Connect-Accept-Encoding", "Content-Encoding")
SENT_ONCE = ("Host", "Content-Type", "Content-Length", "X-API-KEY", "X-Access-Token", "E2b-Sandbox-Id", "E2b-Sandbox-Port")


def headers_of_all(headers) -> Iterator[str]:
    """Headers no request of ours carries, and headers that must not be doubled."""
    for name in NEVER_SENT:
        if name in headers:
            yield f"sends {name}: {headers[name]}"
    for name in SENT_ONCE:
        if len(headers.getall(name, [])) > 1:
            yield f"sends {name} {len(headers.getall(name))} times"


def headers_to_api(headers, method: str, key: str) -> Iterator[str]:
    """The control API gets the key and nothing that belongs to a sandbox."""
    if headers.get("X-API-KEY") != key:
        yield "X-API-KEY is missing or is not the configured key"
    for name in ("X-Access-Token", "E2b-Sandbox-Id", "E2b-Sandbox-Port"):
        if name in headers:
            yield f"sends {name} to the control API"
    if method == "POST" and headers.get("Content-Type") != "application/json":
        yield f"Content-Type of an API call is {headers.get('Content-Type')}"


def headers_to_envd(headers, token: str | None) -> Iterator[str]:
    """A sandbox gets its routing headers and its token, and never the key. /health may come without the token."""
    if "X-API-KEY" in headers:
        yield "sends X-API-KEY to a sandbox"
    if headers.get("E2b-Sandbox-Port") != ENVD_PORT:
        yield f"E2b-Sandbox-Port is {headers.get('E2b-Sandbox-Port')}"
    if token is not None and headers.get("X-Access-Token") != token:
        yield "X-Access-Token is missing or not this sandbox's"


def create_body(body: dict) -> Iterator[str]:
    """The create fields: names as E2B spells them, types, and the metadata by which a run is found again."""
    for name in body.keys() - CREATE_FIELDS.keys():
        yield f"create has an unknown field {name}"
    for name, (kind, only) in CREATE_FIELDS.items():
        if type(body.get(name)) is not kind:
            yield f"create field {name} is {body.get(name)!r}, not {kind.__name__}"
        elif only is not None and body[name] is not only:
            yield f"create field {name} is {body[name]}"
    for owner in ("envVars", "metadata"):
        for name, value in (body.get(owner) or {}).items():
            if not isinstance(value, str):
                yield f"create {owner}.{name} is no string"
    metadata = body.get("metadata") or {}
    if not RUN_ID.fullmatch(str(metadata.get("request_id"))):
        yield f"metadata.request_id is {metadata.get('request_id')!r}"
    if not METADATA_VALUE.fullmatch(str(metadata.get("sandstorm_instance", ""))):
        yield f"metadata.sandstorm_instance is {metadata.get('sandstorm_instance')!r}"


def connect_headers(headers, content_type: str) -> Iterator[str]:
    """Every Connect call names its version and the exact content type."""
    if headers.get("Connect-Protocol-Version") != "1":
        yield f"Connect-Protocol-Version is {headers.get('Connect-Protocol-Version')}"
    if headers.get("Content-Type") != content_type:
        yield f"Content-Type of a Connect call is {headers.get('Content-Type')}, not {content_type}"


def start_call(headers, body: bytes, user: str | None = None) -> Iterator[str]:
    """Start: exact headers, one envelope, a bash command line, no stdin; user is the one it must name."""
    yield from connect_headers(headers, "application/connect+json")
    if headers.get("Keepalive-Ping-Interval") != KEEPALIVE_SECONDS:
        yield f"Keepalive-Ping-Interval is {headers.get('Keepalive-Ping-Interval')}"
    wanted = None if user is None else "Basic " + base64.b64encode(f"{user}:".encode()).decode()
    if headers.get("Authorization") != wanted:
        yield f"Authorization of Start is {headers.get('Authorization')}, not {wanted}"
    call, problem = start_message(body)
    if problem:
        yield problem
        return
    process = call.get("process", {})
    if set(call) - {"process", "stdin", "tag"} or set(process) - PROCESS_FIELDS:
        yield f"Start has unknown fields: {sorted(call)} {sorted(process)}"
    if call.get("stdin") is not False:
        yield f"Start has stdin {call.get('stdin')!r}"
    if process.get("cmd") != "/bin/bash" or process.get("args", [])[:2] != ["-l", "-c"] or len(process["args"]) != 3:
        yield f"Start runs {process.get('cmd')} {process.get('args')}"


def start_message(body: bytes) -> tuple[dict, str | None]:
    """The message of a Start body, or what is wrong with its envelope."""
    try:
        envelopes = connect_wire.cut_envelopes(body)
        if len(envelopes) != 1 or envelopes[0][0] != 0:
            return {}, f"Start body has {len(envelopes)} envelopes, flags {[flags for flags, _ in envelopes]}"
        return json.loads(envelopes[0][1]), None
    except ValueError as reason:
        return {}, f"Start body: {reason}"


def upload_parts(content_type: str, body: bytes) -> tuple[list[tuple[str, bytes]], list[str]]:
    """(path, bytes) of each part of a multipart upload, and what breaks the rules of e2b.md A.2."""
    boundary = re.fullmatch(r'multipart/form-data; boundary="?([^";]+)"?', content_type)
    if not boundary:
        return [], [f"Content-Type of an upload is {content_type}"]
    # The first delimiter has no CRLF before it: give it one, and every piece between delimiters is one part.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        return [], ["the multipart body has no closing delimiter"]
    files, problems = [], []
    for piece in pieces[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        path, problem = part_path(head.decode("utf-8", "replace"))
        if problem:
            problems.append(problem)
        elif path in dict(files):
            problems.append(f"two parts for {path}")
        files.append((path, content))
    return files, problems


def part_path(head: str) -> tuple[str, str | None]:
    """The full path a part is for, and what is wrong with its headers."""
    fields = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
    lower = {name.lower(): value for name, value in fields.items()}
    found = re.fullmatch(r'form-data; name="file"; filename="([^"]*)"', lower.get("content-disposition", ""))
    if not found:
        return "", f"a part has Content-Disposition {lower.get('content-disposition')!r}"
    path = found[1]
    if not path.startswith("/") or not path.isprintable() or not path.isascii() or "\\" in path:
        return path, f"a multipart part has the unsafe path {path!r}"
    if lower.get("content-type") != "application/octet-stream":
        return path, f"the part for {path} has type {lower.get('content-type')}"
    return path, None


def list_metadata(query: str) -> dict | None:
    """The metadata filter of GET /v2/sandboxes, encoded three times; None when it does not decode."""
    wanted = parse_qs(query, keep_blank_values=True).get("metadata")
    if not wanted:
        return {}
    pairs = [pair.split("=") for pair in unquote_plus(wanted[-1]).split("&")]
    if any(len(pair) != 2 for pair in pairs):
        return None
    return {unquote_plus(name): unquote_plus(value) for name, value in pairs}
