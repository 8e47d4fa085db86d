"""What a scripted agent prints.

The double runs no command: the prompt of a run decides what its agent prints. A prompt that is a JSON object is a
script (the fields of AgentScript); any other text gives a short ordinary conversation. Every numbered event carries
the run id and its number, so that a client can prove that each arrived once, in order and at the right run.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from connect_wire import DATA_EVENT_MAX_BYTES

# Characters of 2, 3 and 4 UTF-8 bytes in every numbered event: a cut at an odd byte falls inside one of them.
MULTIBYTE_TEXT = "é✓🙂"


@dataclass(frozen=True)
class Output:
    """Bytes of one data event."""

    stream: str
    piece: bytes
    events: int = 0  # numbered events that are complete once this piece is out


@dataclass(frozen=True)
class Pause:
    """Nothing is printed for this long."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Nothing is printed until the test releases this gate."""

    gate: str


@dataclass(frozen=True)
class AgentScript:
    """One scripted agent; the field names are the keys of a JSON prompt."""

    # What is printed.
    init: bool = True  # a system/init line first
    events: int = 3  # numbered assistant lines
    bytes: int = 0  # padding in each of them
    flood_mib: int = 0  # as many numbered lines as make this many MiB
    lines: list = field(default_factory=list)  # further lines, verbatim, after the numbered ones
    raw: str | None = None  # base64 of further stdout bytes, verbatim
    huge: int = 0  # bytes of one further JSON line
    stderr: list = field(default_factory=list)  # [number, text]: text on stderr after that many events
    result: bool | dict = True  # the result line; an object overrides members of it
    error: str | None = None  # a runner's error line in place of the result
    unterminated: bool = False  # no LF after the last line
    # When.
    interval_ms: float = 0  # between numbered events
    hold: str | None = None  # a gate that is waited for …
    hold_after: int = 0  # … after this many numbered events
    linger: str | None = None  # a gate that is waited for between the last output and the end of the process
    keepalive_ms: float = 0  # replaces the client's Keepalive-Ping-Interval
    # In which pieces.
    pack: int = 1  # lines in one data event
    split: int = 0  # stdout is cut into data events of this many bytes instead
    batch: int = 1  # envelopes in one write to the socket
    dribble: int = 0  # bytes in one write to the socket
    dribble_ms: float = 0  # between two of them
    # How it ends.
    exit: int = 0
    signal: str | None = None  # ended by a signal: its text, such as "killed"
    install_exit: int = 0  # of the installation into the fallback template
    install_stderr: str = ""
    files: dict = field(default_factory=dict)  # what it leaves below /home/user: path → text, or → size in bytes
    marker: str = ""  # for fault rules to find the run by; also keeps prompts apart

    def __post_init__(self):
        """Turns the flood's size into a number of events."""
        if self.flood_mib:
            width = len(numbered_line("0" * 16, 0, self.bytes))
            object.__setattr__(self, "events", self.flood_mib * 2**20 // width)

    def file_bytes(self, path: str) -> bytes:
        """The content of a file the agent left."""
        content = self.files[path]
        return bytes(content) if isinstance(content, int) else content.encode()


def parse_prompt(prompt: str) -> AgentScript | None:
    """The script a prompt holds, or None for plain text; ValueError for a key no script has."""
    try:
        script = json.loads(prompt)
    except ValueError:
        return None
    if not isinstance(script, dict):
        return None
    unknown = set(script) - {known.name for known in fields(AgentScript)}
    if unknown:
        raise ValueError(f"agent script has unknown keys: {sorted(unknown)}")
    return AgentScript(**script)


def json_line(message: dict) -> bytes:
    """One message as the runner prints it."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def numbered_line(run_id: str, number: int, padding: int) -> bytes:
    """The numbered event that clients count."""
    return json_line(
        {"seq": number, "type": "assistant", "run": run_id, "text": MULTIBYTE_TEXT, "pad": "x" * padding}
    )


def init_line(run_id: str, model: str | None) -> bytes:
    """The first line of every conversation."""
    return json_line(
        {"type": "system", "subtype": "init", "session_id": f"session-{run_id}", "model": model or "double-model",
         "cwd": "/home/user", "tools": ["Bash", "Write", "Read"], "mcp_servers": []}
    )  # fmt: skip


def result_line(run_id: str, overrides: dict) -> bytes:
    """The last line of a conversation that went well, unless overridden."""
    message = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "duration_ms": 5,
               "total_cost_usd": 0.01, "session_id": f"session-{run_id}", "result": "done"}  # fmt: skip
    return json_line(message | overrides)


def conversation(run_id: str, prompt: str, model: str | None) -> Iterator[Output]:
    """What the agent says to a prompt that is no script."""
    yield Output("stdout", init_line(run_id, model))
    text = [{"type": "text", "text": f"Working on it: {prompt[:200]}"}]
    yield Output("stdout", json_line({"type": "assistant", "message": {"role": "assistant", "content": text}}))
    yield Output("stdout", result_line(run_id, {}))


def script_lines(script: AgentScript, run_id: str, model: str | None) -> Iterator[Output | Pause | Hold]:
    """The script line by line, before it is cut into pieces."""
    stderr = {}
    for number, text in script.stderr:
        stderr.setdefault(number, []).append(text.encode())
    if script.init:
        yield Output("stdout", init_line(run_id, model))
    for number in range(script.events + 1):
        for text in stderr.get(number, []):
            yield Output("stderr", text)
        if script.hold and number == script.hold_after:
            yield Hold(script.hold)
        if number == script.events:
            break
        yield Output("stdout", numbered_line(run_id, number, script.bytes), events=1)
        if script.interval_ms:
            yield Pause(script.interval_ms / 1000)
    yield from closing_lines(script, run_id)


def closing_lines(script: AgentScript, run_id: str) -> Iterator[Output]:
    """What a script prints after its numbered events."""
    for line in script.lines:
        yield Output("stdout", line.encode() + b"\n")
    if script.raw:
        yield Output("stdout", base64.b64decode(script.raw))
    if script.huge:
        yield Output("stdout", json_line({"type": "huge", "run": run_id, "pad": "h" * script.huge}))
    if script.error is not None:
        yield Output("stdout", json_line({"type": "error", "error": script.error}))
    elif script.result is not False:
        yield Output("stdout", result_line(run_id, script.result if isinstance(script.result, dict) else {}))


def without_last_newline(steps: Iterator) -> Iterator:
    """Takes the LF off the last output on stdout."""
    held = []
    for step in steps:
        if isinstance(step, Output) and step.stream == "stdout":
            yield from held
            held = []
        held.append(step)
    last, *others = held
    yield Output("stdout", last.piece.removesuffix(b"\n"), last.events)
    yield from others


def in_pieces(steps: Iterator, script: AgentScript) -> Iterator[Output | Pause | Hold]:
    """Cuts and joins the lines of stdout into data events; a pause or stderr text flushes what was collected."""
    waiting, lines, events = b"", 0, 0
    for step in steps:
        if isinstance(step, Output) and step.stream == "stdout":
            waiting, lines, events = waiting + step.piece, lines + 1, events + step.events
            if script.split:
                while len(waiting) > script.split:
                    yield Output("stdout", waiting[: script.split])
                    waiting = waiting[script.split :]
            elif lines >= script.pack:
                yield from bounded(waiting, events)
                waiting, lines, events = b"", 0, 0
        else:
            yield from bounded(waiting, events)
            waiting, lines, events = b"", 0, 0
            yield step
    yield from bounded(waiting, events)


def bounded(piece: bytes, events: int) -> Iterator[Output]:
    """Cuts one piece into data events no larger than envd's."""
    for at in range(0, len(piece), DATA_EVENT_MAX_BYTES):
        last = at + DATA_EVENT_MAX_BYTES >= len(piece)
        yield Output("stdout", piece[at : at + DATA_EVENT_MAX_BYTES], events if last else 0)


def play(script: AgentScript | None, run_id: str, prompt: str, model: str | None) -> Iterator[Output | Pause | Hold]:
    """Everything one agent does, step by step, as data events."""
    if script is None:
        yield from conversation(run_id, prompt, model)
        return
    steps = script_lines(script, run_id, model)
    if script.unterminated:
        steps = without_last_newline(steps)
    yield from in_pieces(steps, script)
    if script.linger:
        yield Hold(script.linger)
