"""A tiny MCP server on stdio: one tool, which gives a text back in capitals with a mark from its environment."""

import json
import os
import sys

TOOL = {
    "name": "shout",
    "description": "Gives a text back in capitals.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def answer_to(request):
    """The result of one request."""
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": request["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"},
            }
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            text = f"{request['params']['arguments']['text'].upper()} {os.environ['ECHO_MARK']}"
            return {"content": [{"type": "text", "text": text}]}
        case _:
            return {}


def main():
    """Answers until stdin ends; what has no id is a notification."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer_to(request)}), flush=True)


if __name__ == "__main__":
    main()
