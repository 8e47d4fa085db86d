"""How the demo shows an agent's messages to a person: a few lines for each event of a stream, a table at the end."""

import os
import sys
import textwrap
import threading

TEXT_LINES_MAX = 8
RESULT_LINES_MAX = 3
# Of one line, without label and indent.
LINE_CHARS_MAX = 105
LABEL_CHARS = 11
INDENT = "  "

# The one argument of a tool that says most about a call.
TELLING_ARGUMENTS = ("command", "file_path", "pattern", "url", "query", "skill", "description", "prompt")

AGENT_COLOURS = ("36", "33", "35", "32")
BOLD, DIM, RED = "1", "2", "31"


def printable(text):
    """A line without anything that could steer a terminal."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "\ufffd" for char in text)


def lines_of(text):
    """The lines of a text that are not blank, fit to be printed."""
    return [printable(line) for line in str(text).split("\n") if line.strip()]


def cut(text, lines_max):
    """The first lines of a text, each cut to a width, with a mark where something was left out."""
    lines = lines_of(text)
    shown = [line if len(line) <= LINE_CHARS_MAX else line[: LINE_CHARS_MAX - 2] + " …" for line in lines[:lines_max]]
    return shown + ([f"… {len(lines) - lines_max} more lines"] if len(lines) > lines_max else [])


def prose(text):
    """What an agent says, wrapped."""
    lines = [part for line in lines_of(text) for part in textwrap.wrap(line, LINE_CHARS_MAX)]
    return cut("\n".join(lines), TEXT_LINES_MAX)


def describe_call(block):
    """A tool call in one line."""
    arguments = block.get("input") or {}
    name = next((name for name in TELLING_ARGUMENTS if name in arguments), None)
    about = cut(arguments[name], 1)[:1] if name else []
    size = f" ({len(arguments['content'])} characters)" if "content" in arguments else ""
    return f"→ {block.get('name')}: {''.join(about)}{size}"


def describe_output(block):
    """What a tool returned, cut."""
    content = block.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part.get("text", "") for part in content)
    lines = cut(content, RESULT_LINES_MAX) or ["(no output)"]
    return ["← " + lines[0], *(INDENT + line for line in lines[1:])]


def describe_blocks(event):
    """The blocks of a message of the agent, or of the tools' answers to it."""
    content = (event.get("message") or {}).get("content") or []
    for block in content if isinstance(content, list) else []:
        match block.get("type"):
            case "text" if event["type"] == "assistant":
                yield from prose(block.get("text", ""))
            case "tool_use":
                yield describe_call(block)
            case "tool_result":
                yield from describe_output(block)


def describe_result(event):
    """How the agent ended."""
    outcome = event.get("subtype", "?") + (" (with an error)" if event.get("is_error") else "")
    return f"■ {outcome}: {event.get('num_turns', 0)} turns, ${event.get('total_cost_usd') or 0:.4f}"


def describe(event):
    """The lines that show an event; none for what a person need not see."""
    match event.get("type"):
        case "system" if event.get("subtype") == "init":
            return [f"● agent started, model {event.get('model')}, {len(event.get('tools') or [])} tools"]
        case "system" if event.get("subtype") == "api_retry":
            attempt = f"attempt {event.get('attempt')} of {event.get('max_retries')}"
            return [f"! the model failed ({event.get('error_status') or event.get('error')}), {attempt}"]
        case "assistant" | "user":
            return list(describe_blocks(event))
        case "result":
            return [describe_result(event)]
        case "file":
            return [f"+ {printable(str(event.get('relative_path')))} ({event.get('size')} bytes)"]
        case "stderr":
            return [f"! {line}" for line in cut(event.get("data", ""), RESULT_LINES_MAX)]
        case "warning":
            return [f"! {event.get('code')}: {line}" for line in cut(event.get("message"), 1)]
        case "error":
            return [f"✗ {event.get('code', 'agent')}: {line}" for line in cut(event.get("error"), RESULT_LINES_MAX)]
        case _:
            return []


def table(header, rows):
    """Rows of texts as lines with aligned columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return ["  ".join(cells).rstrip() for cells in lines]


class Screen:
    """Standard output, shared by the threads that watch the agents: the lines of one event stay together."""

    def __init__(self, stream=sys.stdout):
        self._stream = stream
        self._lock = threading.Lock()
        self._silent = False
        self._colours = stream.isatty() and not os.environ.get("NO_COLOR")
        stream.reconfigure(errors="replace")

    def paint(self, text, *codes):
        """The text in colour, on a terminal."""
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self._colours and codes else text

    def silence(self):
        """Shows nothing more."""
        with self._lock:
            self._silent = True

    def say(self, *lines, codes=()):
        """Lines of the demo itself."""
        with self._lock:
            if self._silent:
                return
            for line in lines:
                print(self.paint(line, *codes), file=self._stream)
            self._stream.flush()

    def show(self, number, label, event):
        """An event of an agent, under its label and in its colour."""
        colour = AGENT_COLOURS[number % len(AGENT_COLOURS)]
        mark = self.paint(f"[{label}]".ljust(LABEL_CHARS), BOLD, colour)
        self.say(*(f"{mark} {line}" for line in describe(event)))
