#!/usr/bin/env python3
"""A scripted stand-in for the Messages API, for the demo and the tests. Only the model is scripted: agents are real.

    model.py [--port PORT] [--delay SECONDS] [--verbose]

Listens on 127.0.0.1 only and prints its URL when it is ready. Answers POST /v1/messages (streamed or plain),
POST /v1/messages/count_tokens, GET /v1/models and HEAD of anything.

Which script is played follows from the last plain text of the user in the request (model_scenarios.py): a prompt it
knows, or a prompt that carries its own script as JSON after "sandstorm-script:", or a short generic one. Which step
comes next follows from the number of tool calls made since that text. So there is no state: concurrent, retried and
resumed conversations just work. A request without tools is a side call and gets a short text.
"""

import argparse
import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from model_scenarios import Step, script_for

HOST = "127.0.0.1"
BODY_MAX_BYTES = 64 << 20
BYTES_PER_TOKEN = 4
TEXT_DELTA_CHARS = 24
JSON_DELTA_CHARS = 256
QUOTED_RESULT_MAX_CHARS = 900
SIDE_CALL_TEXT = "Scripted side call"
MODELS = ["claude-opus-5-5", "claude-sonnet-4-5", "claude-haiku-4-5"]

# Kinds of error that the API names for a status; anything else is an api_error.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


# --- the conversation ----------------------------------------------------------------------------


def blocks_of(message):
    """The content blocks of a message; a bare string is one text block."""
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def plain_text(message):
    """What a user wrote in a message; empty for tool results and for the reminders that the agent adds itself."""
    blocks = blocks_of(message)
    if message.get("role") != "user" or any(block.get("type") == "tool_result" for block in blocks):
        return ""
    texts = [block.get("text", "") for block in blocks if block.get("type") == "text"]
    return "\n".join(text for text in texts if not text.lstrip().startswith("<system-reminder>"))


def result_text(block):
    """The text of one tool_result block."""
    content = block.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


class Conversation:
    """What the next step depends on: the prompt, the tool calls made since, and what the last of them returned."""

    def __init__(self, messages):
        start = max((i for i, message in enumerate(messages) if plain_text(message)), default=0)
        later = [(message.get("role"), block) for message in messages[start:] for block in blocks_of(message)]
        results = [result_text(block) for _, block in later if block.get("type") == "tool_result"]
        self.prompt = plain_text(messages[start]) if messages else ""
        self.calls_made = sum(role == "assistant" and block.get("type") == "tool_use" for role, block in later)
        self.last_result = results[-1] if results else ""


def next_step(conversation):
    """The step to play now; after the last one, an empty text."""
    calls_before = 0
    for step in script_for(conversation.prompt):
        if calls_before >= conversation.calls_made:
            return step
        calls_before += len(step.calls)
    return Step(text="Nothing is left to do.")


def shorten(text):
    """A tool's result as the model quotes it."""
    text = text.strip()
    return text if len(text) <= QUOTED_RESULT_MAX_CHARS else text[:QUOTED_RESULT_MAX_CHARS] + " …"


def content_of(step, conversation):
    """The content blocks of an answer."""
    blocks = []
    if step.text:
        blocks.append({"type": "text", "text": step.text.replace("{last_result}", shorten(conversation.last_result))})
    for name, arguments in step.calls:
        blocks.append({"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": name, "input": arguments})
    return blocks or [{"type": "text", "text": ""}]


def tokens(value):
    """A plausible number of tokens, so that the agent computes a cost."""
    return max(1, len(json.dumps(value)) // BYTES_PER_TOKEN)


def answer_to(request):
    """The step that a request leads to, and the message that says it."""
    conversation = Conversation(request.get("messages") or [])
    step = next_step(conversation) if request.get("tools") else Step(text=SIDE_CALL_TEXT)
    content = content_of(step, conversation)
    return step, {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model") or MODELS[0],
        "content": content,
        "stop_reason": "tool_use" if step.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": tokens(request.get("messages")),
            "output_tokens": tokens(content),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def pieces(text, size):
    """A text in pieces of at most size characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def block_events(index, block):
    """The stream events of one content block."""
    if block["type"] == "text":
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"], TEXT_DELTA_CHARS)]
    else:
        start = {**block, "input": {}}
        arguments = pieces(json.dumps(block["input"]), JSON_DELTA_CHARS)
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def stream_events(message):
    """The stream events of a whole message."""
    usage = message["usage"]
    opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": opening}
    for index, block in enumerate(message["content"]):
        yield from block_events(index, block)
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


# --- HTTP ----------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self):
        """Anybody asking whether we are there."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        """The list of models."""
        if self.route() != "/v1/models":
            self.send_failure(404, f"no such path: {self.route()}")
            return
        models = [{"type": "model", "id": name, "display_name": name} for name in MODELS]
        self.send_json(200, {"data": models, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})

    def do_POST(self):
        """The two calls that carry messages."""
        request = self.read_json()
        if request is None:
            return
        if self.route() == "/v1/messages/count_tokens":
            self.send_json(200, {"input_tokens": tokens(request.get("messages"))})
        elif self.route() == "/v1/messages":
            self.send_message(request)
        else:
            self.send_failure(404, f"no such path: {self.route()}")

    def send_message(self, request):
        """One turn of the script."""
        step, message = answer_to(request)
        time.sleep(self.server.delay_s + step.delay_s)
        if step.status:
            self.send_failure(step.status, "scripted failure")
        elif request.get("stream"):
            self.send_stream(message)
        else:
            self.send_json(200, message)

    def route(self):
        """The path without its query."""
        return self.path.split("?", 1)[0]

    def read_json(self):
        """The request's body; None after the refusal was sent."""
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            self.close_connection = True
            self.send_failure(400, "Content-Length is missing or no number")
            return None
        if not 0 <= length <= BODY_MAX_BYTES:
            self.close_connection = True
            self.send_failure(413, "the body is too large")
            return None
        try:
            request = json.loads(self.rfile.read(length))
        except ValueError as error:
            self.send_failure(400, f"the body is not JSON: {error}")
            return None
        if not isinstance(request, dict):
            self.send_failure(400, "the body is not a JSON object")
            return None
        return request

    def send_json(self, status, value):
        """A whole answer."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_failure(self, status, text):
        """An error as the API words it."""
        kind = ERROR_TYPES.get(status, "api_error")
        self.send_json(status, {"type": "error", "error": {"type": kind, "message": text}})

    def send_stream(self, message):
        """An answer as server-sent events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in stream_events(message):
            self.send_chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"0\r\n\r\n")

    def send_chunk(self, piece):
        """One chunk of a chunked body."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def log_message(self, format, *arguments):
        """One line a request, when asked for."""
        if self.server.verbose:
            super().log_message(format, *arguments)


class ModelServer(ThreadingHTTPServer):
    """The listening socket and what was said on the command line."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, delay_s, verbose):
        super().__init__((HOST, port), Handler)
        self.delay_s = delay_s
        self.verbose = verbose

    @property
    def url(self):
        """Where it listens."""
        return f"http://{HOST}:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is no news; anything else is a bug of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description="A scripted stand-in for the Messages API, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one (default)")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="thinking time before an answer")
    parser.add_argument("--verbose", action="store_true", help="log each request to stderr")
    arguments = parser.parse_args()
    try:
        server = ModelServer(arguments.port, arguments.delay, arguments.verbose)
    except OSError as error:
        sys.exit(f"model: cannot listen on {HOST}:{arguments.port}: {error.strerror}")
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
