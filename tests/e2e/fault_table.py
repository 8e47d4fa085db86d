"""Stage x failure -> what the run does (e2b.md A.4 and A.5), as the rows of test_faults.py and test_faults_read_kill.py.

A row names a failure and says how the double makes it; its columns say what comes of it at each stage. A stage that is
None cannot see the failure, or sees it in another test: rows that take half a minute or more and TLS once a sandbox
exists are tests/unit/test_worker_e2b_call.c and test_worker_kill_queue.c; refused connections and TLS are test_faults_connect.py.
"""

from dataclasses import dataclass, field

import connect_wire

ENVELOPES = "application/connect+json"
CREATE, UPLOAD, START, LOST = "sandbox_create_failed", "upload_failed", "agent_start_failed", "sandbox_lost"
PROTOCOL, LIMITED, CAPACITY = "upstream_protocol", "e2b_rate_limited", "e2b_capacity"
MANY = 30  # more tries than create_retry_timeout has room for


@dataclass(frozen=True)
class End:
    """The run ends with a code after so many requests of the stage."""

    code: str
    tries: tuple[int, int]  # least and most
    search: bool = False  # F: a sandbox may exist, it is looked for and deleted
    probe: bool = False  # GET /health is asked before the code is chosen
    text: str = ""  # in the error's text
    repeats: bool = False  # of the most only those count whose connection is new


@dataclass(frozen=True)
class Skip:
    """A file is left out after so many reads; stop: the files after it too."""

    tries: tuple[int, int]
    stop: bool = False
    repeats: bool = False


@dataclass(frozen=True)
class Kill:
    """What the kill queue does: its requests, and whether the sandbox is given up."""

    tries: int
    given_up: bool = False
    wait_s: float = 0  # at least, before the second request
    log: str = ""


@dataclass(frozen=True)
class Row:
    """One failure."""

    action: str
    options: dict = field(default_factory=dict)
    gone: bool = False  # the sandbox's health is the proxy's 502
    create: End | None = None
    upload: End | None = None
    start: End | None = None
    read: Skip | None = None
    kill: Kill | None = None


def create(least=1, code=CREATE, most=None, search=False):
    """A cell of the column create."""
    return End(code, (least, most or least), search=search)


def create_f(least=1, code=CREATE, most=None):
    """The same, marked F."""
    return create(least, code, most, search=True)


def upload(tries=1, code=UPLOAD, probe=False, repeats=False):
    """A cell of the column upload."""
    return End(code, (tries, tries), probe=probe, repeats=repeats)


def start(tries=1, code=START, probe=False, text=""):
    """A cell of the column start."""
    return End(code, (tries, tries), probe=probe, text=text)


def bad_stream(text):
    """Start's answer broke the protocol."""
    return {"start": start(code=PROTOCOL, text=text)}


def skip(tries=1, stop=False, repeats=False):
    """A cell of the column read file."""
    return Skip((tries, tries), stop, repeats)


DONE = Kill(1)
RETRY = Kill(2, log="cannot delete sandbox")
DROP = Kill(1, given_up=True, log="is not deleted after 1 tries, our request is wrong")
FEW = Kill(3, given_up=True, log="is not deleted after 3 tries")
AFTER_A_SECOND = Kill(2, wait_s=1, log="cannot delete sandbox")
# libcurl repeats a request by itself when a reused connection dies without an answer, any of our tries, and as often as its
# pool has another one. Only create and Start forbid it.
CUT_UPLOAD = {"tries": 3, "probe": True, "repeats": True}
CUT_READ = skip(2, repeats=True)
CUT_KILL = Kill(3)  # two faults: the first may be hidden by libcurl's own repetition


def status(number: int, **options) -> tuple[str, dict]:
    """An error in the service's words."""
    return "status", {"status": number, **options}


def page(number: int) -> tuple[str, dict]:
    """A load balancer's page."""
    return "text", {"status": number}


def answer(number: int, text: str, content_type: str = "application/json") -> tuple[str, dict]:
    """A status with a body."""
    return "body", {"status": number, "body": text, "content_type": content_type}


def envelopes(*pieces: bytes) -> tuple[str, dict]:
    """A whole stream of the start stage."""
    return answer(200, b"".join(pieces).decode("ascii"), ENVELOPES)


NEEDS_A_PERSON = {"create": create(code="e2b_auth"), "upload": upload(), "start": start(), "read": skip(), "kill": FEW}
OUR_FAULT = {"create": create(), "upload": upload(), "start": start(), "read": skip(), "kill": DROP}
THEIR_FAULT = {"create": create_f(), "upload": upload(3), "start": start(), "read": skip(2), "kill": RETRY}
SHORT_OF_ROOM = THEIR_FAULT | {"create": create_f(2, CAPACITY, MANY)}
UNUSABLE = {"create": create_f(code=PROTOCOL), "upload": upload(code=PROTOCOL), "kill": DONE}
BAD_TYPE = bad_stream("unexpected Content-Type")
NO_START = bad_stream("does not begin with a start event")
NO_PROCESS = bad_stream("ended before its process")
BAD_FLAGS = bad_stream("unknown flags")
CLOSING = connect_wire.end_of_stream()
CUT = {"create": create_f(), "upload": upload(**CUT_UPLOAD), "start": start(probe=True), "read": CUT_READ, "kill": CUT_KILL}
CUT_OF_A_GONE_ONE = {"upload": upload(code=LOST, **CUT_UPLOAD), "start": start(code=LOST, probe=True)}
PORT_CLOSED = "The sandbox is running but port is not open"

ROWS = {
    "400": Row(*status(400), **OUR_FAULT),
    "400 page": Row(*page(400), **OUR_FAULT),
    "401": Row(*status(401), **NEEDS_A_PERSON),
    "401 page": Row(*page(401), **NEEDS_A_PERSON),
    "403": Row(*status(403), **NEEDS_A_PERSON),
    "403 page": Row(*page(403), **NEEDS_A_PERSON),
    "403 that names the template": Row(
        *status(403, message="you don't have access to template 'x'"), create=create(code="template_not_found")
    ),
    "404": Row(
        *status(404), create=create(code="template_not_found"), upload=upload(), start=start(), read=skip(), kill=DONE
    ),
    "404 page": Row(*page(404), create=create(code=PROTOCOL), upload=upload(), start=start(), read=skip(), kill=RETRY),
    "409": Row(*status(409), create=create(), upload=upload(3), start=start(3), read=skip(3), kill=AFTER_A_SECOND),
    "409 page": Row(*page(409), create=create(), read=skip(3)),
    "429 with Retry-After": Row(
        *status(429, retry_after="1"), create=create(2, LIMITED, 4), upload=upload(3, LIMITED), start=start(3, LIMITED),
        read=skip(2), kill=AFTER_A_SECOND,
    ),
    "429 with a long Retry-After": Row(*status(429, retry_after="99999999999999999999"), create=create(1, LIMITED)),
    "429 without": Row(
        *status(429), create=create(code=CAPACITY), upload=upload(3, LIMITED), start=start(3, LIMITED), read=skip(2),
        kill=RETRY,
    ),
    "429 page": Row(*page(429), create=create(code=CAPACITY), read=skip(2), kill=RETRY),
    "500": Row(*status(500), **THEIR_FAULT | {"create": create_f(2)}),
    "500 page": Row(*page(500), **THEIR_FAULT),
    "500 of other JSON": Row(*answer(500, '{"error":"x"}'), create=create_f(), start=start()),
    "501": Row(*status(501), **THEIR_FAULT),
    "520 page": Row(*page(520), **THEIR_FAULT | {"upload": None}),
    "502 not found": Row(*status(502), upload=upload(2, LOST), start=start(2, LOST), read=skip(2, stop=True)),
    "502 port is not open": Row(
        *status(502, message=PORT_CLOSED), upload=upload(), start=start(code=LOST), read=skip(stop=True)
    ),
    "502 page": Row(*page(502), **THEIR_FAULT | {"upload": upload()}),
    "503": Row(*status(503), **SHORT_OF_ROOM),
    "503 page": Row(*page(503), create=create_f(2, CAPACITY, MANY)),
    "504": Row(*status(504), **SHORT_OF_ROOM),
    "410": Row(*status(410), **OUR_FAULT),
    "413 page": Row(*page(413), **OUR_FAULT),
    "507": Row(*status(507), **OUR_FAULT),
    "302": Row(*answer(302, ""), **OUR_FAULT | {"create": create(code=PROTOCOL), "kill": RETRY}),
    "success page": Row(*page(200), **UNUSABLE, **BAD_TYPE),
    "success without fields": Row(*answer(201, "{}"), **UNUSABLE, **BAD_TYPE),
    "success without body": Row(*answer(200, ""), **UNUSABLE),
    "success with a bad id": Row(*answer(201, '{"sandboxID":"../x"}'), create=create_f(code=PROTOCOL)),
    "success with too few files": Row(*answer(200, '[{"name":"x"}]'), upload=upload(code=PROTOCOL)),
    "stream of another type": Row(*answer(200, "\0\0\0\0\2{}", "application/json"), **BAD_TYPE),
    "too large": Row("oversized", {"status": 200}, **UNUSABLE, **BAD_TYPE, read=skip()),
    "too large error": Row("oversized", {"status": 400}, create=create_f(code=PROTOCOL), upload=upload(code=PROTOCOL),
                           **bad_stream("too large")),
    "reset": Row("reset", **CUT),
    "reset of a gone sandbox": Row("reset", gone=True, **CUT_OF_A_GONE_ONE),
    "closed": Row("refuse", **CUT),
    "no HTTP": Row("garbage", **CUT),
    "short body": Row("short", {"status": 201}, create=create_f(), upload=upload(3, probe=True), read=skip(2), kill=RETRY),
    "short stream": Row("short", {"status": 200, "content_type": ENVELOPES, "body": "\0"}, start=start(probe=True)),
    "silence": Row("silence", start=start()),
    "clean EOF": Row(*envelopes(), start=start(code=PROTOCOL, probe=True)),
    "clean EOF of a gone sandbox": Row(*envelopes(), gone=True, start=start(code=LOST, probe=True)),
    "clean EOF in an envelope": Row(*envelopes(b"\0\0\0"), start=start(code=PROTOCOL, probe=True)),
    "end of stream without end": Row(*envelopes(CLOSING), **NO_PROCESS),
    "first event is not start": Row(*envelopes(connect_wire.output("stdout", b"x")), **NO_START),
    "first event is end": Row(*envelopes(connect_wire.end()), **NO_START),
    "first event is end, twice": Row(*envelopes(connect_wire.end(), connect_wire.end(), CLOSING), **NO_START),
    "output after an early end of stream": Row(*envelopes(CLOSING, connect_wire.output("stdout", b"x")), **NO_PROCESS),
    "envelope over 16 MiB": Row(*envelopes(b"\0\1\0\0\1x"), **bad_stream("larger than 16 MiB")),
    "compressed envelope": Row(*envelopes(connect_wire.envelope(b"{}", 1)), **BAD_FLAGS),
    "unknown flags": Row(*envelopes(connect_wire.envelope(b"{}", 0x40)), **BAD_FLAGS),
    "envelope that is not JSON": Row(*envelopes(connect_wire.envelope(b"{")), **bad_stream("not JSON")),
    "last envelope that is not JSON": Row(*envelopes(connect_wire.envelope(b"{", 2)), **bad_stream("not JSON")),
}  # fmt: skip


def cells(stage: str) -> list[str]:
    """Names of the rows that have a cell in this column."""
    return [name for name, row in ROWS.items() if getattr(row, stage)]


# common/log_limit.h: beyond so many a worker holds "cannot delete sandbox" back, which the rows that are tried again wait for.
LOG_LINES_A_MINUTE = 30
assert sum(ROWS[name].kill.tries - 1 for name in cells("kill")) <= LOG_LINES_A_MINUTE

def fault_of(row: Row, stage: str, times: int | None) -> dict:
    """The rule for the double that makes a row's failure at a stage."""
    return {"stage": stage, "action": row.action, "times": times, **row.options}


@dataclass(frozen=True)
class Break:
    """A failure of the running agent's stream: the double's action, and how the run ends."""

    action: str
    code: str
    probe: bool = False
    gone: bool = False
    options: dict = field(default_factory=dict)
    text: str | None = None


LOST_TEXT = "connection to the sandbox was lost"
GONE_TEXT = "the sandbox was killed or reached its end of life"
EXIT_TEXT = "agent exited with code 3 before it gave a result"

STREAM = {
    "reset": Break("reset", LOST, probe=True, text=LOST_TEXT),
    "reset by a gone sandbox": Break("reset", LOST, probe=True, gone=True, text=GONE_TEXT),
    "cut": Break("fin", LOST, probe=True, text=LOST_TEXT),
    "cut in an envelope": Break("half_fin", LOST, probe=True, text=LOST_TEXT),
    "garbage in place of a chunk": Break("bad_chunk", LOST, probe=True, text=LOST_TEXT),
    "killed": Break("kill", LOST, probe=True, text=GONE_TEXT),
    "silence": Break("silence", LOST, probe=True, text=LOST_TEXT),
    "clean EOF": Break("eof", PROTOCOL, probe=True),
    "clean EOF of a gone sandbox": Break("eof", LOST, probe=True, gone=True, text=GONE_TEXT),
    "clean EOF in an envelope": Break("half_eof", PROTOCOL, probe=True),
    "end of stream without end": Break("no_end", PROTOCOL),
    "garbage": Break("garbage", PROTOCOL),
    "envelope over 16 MiB": Break("oversized", PROTOCOL),
    "compressed envelope": Break("compressed", PROTOCOL),
    "unknown flags": Break("bad_flags", PROTOCOL),
    "not JSON": Break("bad_json", PROTOCOL),
    "not base64": Break("bad_base64", PROTOCOL),
    "end, then an error": Break("end_error", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then EOF": Break("end_eof", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then a reset": Break("end_reset", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then another end": Break("end_twice", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then a result": Break("end_output", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then two ends of stream": Break("closed_twice", "agent_exit", options={"status": 3}, text=EXIT_TEXT),
    "end, then bytes after the end of stream": Break(
        "trailing", "agent_exit", text="agent exited with code 0 before it gave a result"
    ),
}


@dataclass(frozen=True)
class Rpc:
    """A row of A.5."""

    before: str = START
    after: str = PROTOCOL
    probe: bool = False  # before the start event: a gone sandbox is sandbox_lost


RPC = {
    "deadline_exceeded": Rpc(),
    "canceled": Rpc(after=LOST, probe=True),
    "unavailable": Rpc(after=LOST, probe=True),
    "resource_exhausted": Rpc(before=LIMITED),
    **dict.fromkeys(
        ("invalid_argument", "not_found", "unauthenticated", "permission_denied", "already_exists", "aborted",
         "failed_precondition", "out_of_range", "internal", "unknown", "data_loss", "unimplemented", "no_such_code"),
        Rpc(),
    ),
}  # fmt: skip
# The HTTP status a Connect server gives a unary error of that code; Start may be refused so too.
RPC_STATUS = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
    "unauthenticated": 401, "no_such_code": 500,
}  # fmt: skip
