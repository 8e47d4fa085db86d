"""Faults of the double: a rule says when, a table says what.

A rule matches the n-th request of a stage, a run whose prompt holds a marker, or every request of the stage, as often
as `times` allows. Stages: create, upload, install, start, stream, collect, read, kill, signal, probe, find (of a run), survey (of all). What a fault does is a
function in BEFORE_ANSWER or ON_ANSWER (any stage but stream) or IN_STREAM (stage stream, after `after` numbered events);
a new fault is one function and one line in its table.
"""

import asyncio
import json
import socket
import struct
from dataclasses import dataclass

import connect_wire
from aiohttp import web

ENVELOPE_LIMIT_BYTES = 16 * 2**20
API_ANSWER_LIMIT_BYTES = 2**20
API_STAGES = ("create", "kill", "find", "survey")


@dataclass
class Fault:
    """One rule."""

    stage: str
    action: str
    nth: int | None = None  # only the n-th request of this stage
    times: int | None = 1  # how often it fires; None: always
    marker: str | None = None  # only runs whose prompt holds this text; before it is known: requests that hold it
    path: str | None = None  # only requests whose path or query holds this text
    applied: bool = False  # the request takes effect before the fault hides its answer
    detached: bool = False  # the request takes effect even though its client has left meanwhile
    status: int = 500
    retry_after: str | None = None
    message: str | None = None
    body: str | None = None  # for action "body"
    content_type: str = "application/json"
    seconds: float = 0
    gate: str = "fault"
    after: int = 0  # numbered events before a fault of stage stream
    code: str = "internal"
    fired: int = 0

    def __post_init__(self):
        """A rule that could never fire is an error of the test."""
        table = IN_STREAM if self.stage == "stream" else BEFORE_ANSWER | ON_ANSWER
        if self.action not in table:
            raise ValueError(f"stage {self.stage} has no fault {self.action}: {sorted(table)}")

    def matches(self, stage: str, ordinal: int, prompt: str, path: str = "") -> bool:
        """Whether this request is meant."""
        return (
            self.stage == stage
            and (self.times is None or self.fired < self.times)
            and self.nth in (None, ordinal)
            and (self.marker is None or self.marker in prompt)
            and (self.path is None or self.path in path)
        )


class Dropped(Exception):
    """The connection was ended on purpose; there is no answer to write."""


def cut(request: web.Request, reset: bool) -> None:
    """Ends the connection at once: with RST, or with FIN in the middle of what was announced."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


# The texts of e2b.md 0.3 and 0.6 by status; {} stands for the sandbox id.
API_MESSAGES = {
    400: "Error when parsing request: invalid",
    401: "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\nInvalid API key format",
    403: "team is blocked",
    404: "template 'sandstorm' not found",
    409: 'Sandbox "{}" is being killed',
    429: "Rate limit exceeded",
    500: "Failed to place sandbox: internal error",
    503: "Failed to place sandbox: no capacity",
    504: "Failed to place sandbox: timed out",
}
ENVD_MESSAGES = {
    400: "path is a directory: /home/user",
    401: "unauthorized access, please provide a valid access token or method signing if supported",
    404: "path does not exist",
    409: "The sandbox is still transitioning. Try again in a moment.",
    429: "The sandbox has too many concurrent incoming connections (limit: 1)",
    500: "error opening file",
    502: "The sandbox was not found",
    507: "not enough disk space available",
}


def error_answer(stage: str, sandbox_id: str, status: int, message: str | None = None, retry_after: str | None = None):
    """An error as the service words it."""
    table = API_MESSAGES if stage in API_STAGES else ENVD_MESSAGES
    text = message or table.get(status, f"status {status}").replace("{}", sandbox_id)
    body = {"code": status, "message": text}
    if status == 502:
        body = {"sandboxId": sandbox_id, "message": text, "code": status}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return web.json_response(body, status=status, headers=headers)


# --- before an answer: fault(double, request, rule, stage, sandbox id) → an answer, or None to go on as usual ---


async def refuse(double, request, rule, stage, sandbox_id):
    """The connection is closed before an answer."""
    cut(request, reset=False)
    raise Dropped


async def reset(double, request, rule, stage, sandbox_id):
    """The connection is reset before an answer."""
    cut(request, reset=True)
    raise Dropped


async def status(double, request, rule, stage, sandbox_id):
    """An error status in the service's words."""
    return error_answer(stage, sandbox_id, rule.status, rule.message, rule.retry_after)


async def text(double, request, rule, stage, sandbox_id):
    """A load balancer's page: not JSON."""
    return web.Response(status=rule.status, text="<html><body>upstream error</body></html>", content_type="text/html")


async def body(double, request, rule, stage, sandbox_id):
    """A chosen status with a chosen body."""
    return web.Response(status=rule.status, body=(rule.body or "").encode(), headers={"Content-Type": rule.content_type})


async def short(double, request, rule, stage, sandbox_id):
    """An answer that ends before the length it announced."""
    head = f"HTTP/1.1 {rule.status} OK\r\nContent-Type: {rule.content_type}\r\nContent-Length: 1000\r\n\r\n"
    request.transport.write(head.encode() + (rule.body or "{").encode())
    await asyncio.sleep(0)
    request.transport.close()
    raise Dropped


async def leave(double, request, rule, stage, sandbox_id):
    """The usual answer, and with it the connection ends and nobody listens any more."""
    await double.close_listener()
    for _ in range(2):  # an aborted transport closes its socket in the loop's next turn
        await asyncio.sleep(0)


async def vanish(double, request, rule, stage, sandbox_id):
    """The usual answer, and with it the connection ends; whoever connects from then on hears nothing."""
    await leave(double, request, rule, stage, sandbox_id)
    double.open_black_hole()


async def garbage(double, request, rule, stage, sandbox_id):
    """Bytes that are no HTTP."""
    request.transport.write(b"\x00\xff\x13garbage that is no HTTP answer\r\n\r\n")
    await asyncio.sleep(0)
    request.transport.close()
    raise Dropped


async def oversized(double, request, rule, stage, sandbox_id):
    """An answer larger than any client should take."""
    padding = "x" * (API_ANSWER_LIMIT_BYTES + 1)
    return web.Response(status=rule.status, text=json.dumps({"pad": padding}), content_type="application/json")


async def silence(double, request, rule, stage, sandbox_id):
    """No answer, ever: ends when the client leaves or the double stops."""
    await asyncio.Event().wait()


async def hold(double, request, rule, stage, sandbox_id):
    """The usual answer, but only after the test released the gate."""
    await double.gate(rule.gate).wait()


async def delay(double, request, rule, stage, sandbox_id):
    """The usual answer, later."""
    await asyncio.sleep(rule.seconds)


async def connect_error(double, request, rule, stage, sandbox_id):
    """A stream that begins and ends with an error: how Connect refuses."""
    closing = connect_wire.end_of_stream(rule.code, rule.message or "refused by the double")
    return web.Response(body=closing, headers={"Content-Type": "application/connect+json"})


BEFORE_ANSWER = {
    "refuse": refuse,
    "reset": reset,
    "status": status,
    "text": text,
    "body": body,
    "short": short,
    "leave": leave,
    "vanish": vanish,
    "garbage": garbage,
    "oversized": oversized,
    "silence": silence,
    "hold": hold,
    "delay": delay,
    "connect_error": connect_error,
}


# --- on the usual answer: fault(request, rule, the answer), which sends it by itself ---

SURPLUS = b'HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}'


def raw_answer(answer: web.Response, *more: str) -> bytes:
    """An answer's bytes, with further header lines."""
    body = answer.body or b""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Type: {answer.content_type}", *more]
    if answer.status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def drip(request, rule, answer):
    """The answer, byte after byte."""
    for byte in raw_answer(answer, "Connection: close"):
        request.transport.write(bytes([byte]))
        await asyncio.sleep(rule.seconds)
    request.transport.close()
    raise Dropped


async def answer_with(request, answer, tail: bytes):
    """The answer and, in one segment with it, bytes nobody asked for. Whatever is asked on this connection has no answer."""
    request.transport.write(raw_answer(answer) + tail)
    if answer.status == 204:  # libcurl drops what follows an answer without body, and keeps the connection
        request.transport.close()
        raise Dropped
    await asyncio.Event().wait()


async def twice(request, rule, answer):
    """The answer, and once more."""
    await answer_with(request, answer, raw_answer(answer))


async def surplus(request, rule, answer):
    """The answer, and the refusal of a request that was never made."""
    await answer_with(request, answer, SURPLUS)


# Faults after which a client may well close the connection.
CLOSING = ("silence", "drip", "twice", "surplus")
ON_ANSWER = {"drip": drip, "twice": twice, "surplus": surplus}


# --- in a stream: fault(double, stream, rule) → True when the stream goes on as usual ---


async def stream_reset(double, stream, rule):
    """RST in the middle."""
    await stream.drained()
    cut(stream.request, reset=True)
    raise Dropped


async def stream_fin(double, stream, rule):
    """FIN in the middle: no last chunk."""
    await stream.drained()
    cut(stream.request, reset=False)
    raise Dropped


async def stream_eof(double, stream, rule):
    """A proper end of the body without an end-of-stream envelope."""
    return False


async def stream_silence(double, stream, rule):
    """Nothing more, not even a keepalive."""
    await asyncio.Event().wait()


async def stream_hold(double, stream, rule):
    """Keepalives only, until released."""
    await stream.hold(rule.gate)
    return True


async def stream_kill(double, stream, rule):
    """The sandbox is killed from outside: its connections are cut, its health is 502."""
    await stream.drained()
    double.lose_sandbox(stream.sandbox)
    raise Dropped


async def stream_error(double, stream, rule):
    """An end-of-stream error in place of the rest."""
    await stream.write(connect_wire.end_of_stream(rule.code, rule.message or "broken by the double"))
    return False


async def stream_no_end(double, stream, rule):
    """An end-of-stream without an end event."""
    await stream.write(connect_wire.end_of_stream())
    return False


async def stream_oversized(double, stream, rule):
    """An envelope that announces more than the limit, and begins to send it."""
    await stream.write(connect_wire.HEADER.pack(0, ENVELOPE_LIMIT_BYTES + 1) + b'{"event":{"data":{"stdout":"')
    await asyncio.Event().wait()


async def stream_compressed(double, stream, rule):
    """An envelope with the compressed flag."""
    await stream.write(connect_wire.envelope(b"\x1f\x8b\x08\x00", connect_wire.FLAG_COMPRESSED))
    return False


async def stream_bad_flags(double, stream, rule):
    """An envelope with a flag nobody knows."""
    await stream.write(connect_wire.envelope(b"{}", 0x40))
    return False


async def stream_bad_json(double, stream, rule):
    """An envelope that holds no JSON."""
    await stream.write(connect_wire.envelope(b'{"event":{'))
    return False


async def stream_bad_base64(double, stream, rule):
    """A data event whose bytes do not decode."""
    await stream.write(connect_wire.event("data", {"stdout": "@@@@"}))
    return False


HALF = connect_wire.output("stdout", b"x" * 100)[:60]


async def stream_half_fin(double, stream, rule):
    """FIN in the middle of an envelope."""
    await stream.write(HALF)
    return await stream_fin(double, stream, rule)


async def stream_half_eof(double, stream, rule):
    """A proper end of the body in the middle of an envelope."""
    await stream.write(HALF)
    return False


async def stream_garbage(double, stream, rule):
    """Bytes that are no envelopes."""
    await stream.write(b"garbage that is no envelope\n" * 100)
    return False


async def stream_bad_chunk(double, stream, rule):
    """Bytes that are no chunk of the body."""
    await stream.drained()
    stream.request.transport.write(b"\x00\xff\x13garbage that is no chunk\r\n")
    await asyncio.Event().wait()


async def stream_leave(double, stream, rule):
    """The service goes down: connections are cut, and nobody listens any more."""
    await stream.drained()
    await double.close_listener()
    return await stream_reset(double, stream, rule)


async def stream_start_again(double, stream, rule):
    """A second start event, and the stream goes on."""
    await stream.write(connect_wire.start(1))
    return True


async def stream_trailing(double, stream, rule):
    """Bytes after the end-of-stream envelope."""
    await stream.write(connect_wire.end() + connect_wire.end_of_stream() + connect_wire.output("stdout", b"late\n"))
    return False


async def end_then(stream, rule):
    """The end event of a process that exited with the rule's status."""
    await stream.write(connect_wire.end(rule.status))


async def stream_end_error(double, stream, rule):
    """The process ends, then the stream ends with an error."""
    await end_then(stream, rule)
    return await stream_error(double, stream, rule)


async def stream_end_eof(double, stream, rule):
    """The process ends, then the stream without its last envelope."""
    await end_then(stream, rule)
    return False


async def stream_end_twice(double, stream, rule):
    """The process ends, and once more in another way."""
    await end_then(stream, rule)
    await stream.write(connect_wire.end() + connect_wire.end_of_stream())
    return False


async def stream_end_output(double, stream, rule):
    """The process ends, and prints a result."""
    await end_then(stream, rule)
    late = connect_wire.output("stdout", b'{"type":"result","subtype":"success","is_error":false}\n')
    await stream.write(late + connect_wire.end_of_stream())
    return False


async def stream_closed_twice(double, stream, rule):
    """The process ends, the stream too, and once more with an error."""
    await end_then(stream, rule)
    await stream.write(connect_wire.end_of_stream() + connect_wire.end_of_stream("internal", "late"))
    return False


async def stream_end_reset(double, stream, rule):
    """The process ends, then the connection is reset."""
    await end_then(stream, rule)
    return await stream_reset(double, stream, rule)


IN_STREAM = {
    "reset": stream_reset,
    "fin": stream_fin,
    "eof": stream_eof,
    "silence": stream_silence,
    "hold": stream_hold,
    "kill": stream_kill,
    "error": stream_error,
    "no_end": stream_no_end,
    "oversized": stream_oversized,
    "compressed": stream_compressed,
    "bad_flags": stream_bad_flags,
    "bad_json": stream_bad_json,
    "bad_base64": stream_bad_base64,
    "half_fin": stream_half_fin,
    "half_eof": stream_half_eof,
    "garbage": stream_garbage,
    "bad_chunk": stream_bad_chunk,
    "leave": stream_leave,
    "start_again": stream_start_again,
    "trailing": stream_trailing,
    "end_error": stream_end_error,
    "end_eof": stream_end_eof,
    "end_twice": stream_end_twice,
    "end_output": stream_end_output,
    "closed_twice": stream_closed_twice,
    "end_reset": stream_end_reset,
}
