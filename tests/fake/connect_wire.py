"""Connect envelopes and the events of process.Process/Start, as envd writes them (e2b.md 0.8, 0.9)."""

import base64
import json
import struct

FLAG_COMPRESSED = 0x01
FLAG_END_OF_STREAM = 0x02
HEADER = struct.Struct(">BI")
DATA_EVENT_MAX_BYTES = 32 * 1024


def envelope(payload: bytes, flags: int = 0) -> bytes:
    """One envelope: flags, big-endian length, payload."""
    return HEADER.pack(flags, len(payload)) + payload


def cut_envelopes(body: bytes) -> list[tuple[int, bytes]]:
    """All envelopes of a complete body; ValueError when bytes are missing or left over."""
    found = []
    at = 0
    while at < len(body):
        if len(body) - at < HEADER.size:
            raise ValueError(f"{len(body) - at} stray bytes after the last envelope")
        flags, length = HEADER.unpack_from(body, at)
        at += HEADER.size
        if len(body) - at < length:
            raise ValueError(f"envelope announces {length} bytes, {len(body) - at} follow")
        found.append((flags, body[at : at + length]))
        at += length
    return found


def event(kind: str, fields: dict) -> bytes:
    """A message envelope that holds one process event."""
    return envelope(json.dumps({"event": {kind: fields}}).encode())


def start(pid: int) -> bytes:
    """The first event of every process stream."""
    return event("start", {"pid": pid})


def output(stream: str, piece: bytes) -> bytes:
    """One data event of stdout or stderr."""
    return event("data", {stream: base64.b64encode(piece).decode()})


def keepalive() -> bytes:
    """What comes when nothing else came for the keepalive interval."""
    return event("keepalive", {})


def end(exit_code: int = 0, signal_text: str | None = None) -> bytes:
    """The end event: zero values are left out, as protojson does."""
    if signal_text:
        status = f"signal: {signal_text}"
        return event("end", {"exitCode": -1, "status": status, "error": status})
    status = f"exit status {exit_code}"
    fields = {"exited": True, "status": status}
    if exit_code:
        fields |= {"exitCode": exit_code, "error": status}
    return event("end", fields)


def end_of_stream(code: str | None = None, message: str = "") -> bytes:
    """The flag-2 envelope that closes a stream, with an error when a code is given."""
    closing = {"error": {"code": code, "message": message}} if code else {}
    return envelope(json.dumps(closing).encode(), FLAG_END_OF_STREAM)
