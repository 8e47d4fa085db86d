"""A real agent with everything a project can give it: a skill, an MCP server, a sub-agent, structured output.

Only the model is scripted. The agent is the Agent SDK in a sandbox of the local runtime.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from harness import leaks
from harness.client import query
from harness.ds import OK, ds
from harness.server import PROGRAM, Server, free_port

FAKE = Path(__file__).resolve().parents[1] / "fake"
SKILL = """---
name: greeter
description: How to greet people. Use it whenever somebody is to be greeted.
---
Greet with the words in words.txt beside this file.
"""
PROJECT = {
    "skills_dir": "skills",
    "system_prompt_append": "Be brief.",
    "mcp_servers": {
        "echo": {
            "command": "python3",
            "args": ["/home/user/${ECHO_SERVER:-mcp_echo.py}"],
            "env": {"ECHO_MARK": "<${ECHO_MARK}>"},
        }
    },
    "agents": {"counter": {"description": "Counts things", "prompt": "You count things."}},
    "output_format": {
        "type": "json_schema",
        "schema": {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]},
    },
}


def script(*steps: dict) -> str:
    """A prompt that brings the model's answers along."""
    return "sandstorm-script: " + json.dumps(steps)


COUNTING = script({"calls": [["Bash", {"command": "echo $((20 + 1)) sheep"}]]}, {"text": "I found {last_result}."})
PROMPT = script(
    {"text": "First the skill.", "calls": [["Skill", {"skill": "greeter"}]]},
    {"calls": [["Bash", {"command": "cat ~/.claude/skills/greeter/words.txt"}]]},
    {"calls": [["mcp__echo__shout", {"text": "hello"}]]},
    {"calls": [["Task", {"description": "Count sheep", "prompt": COUNTING, "subagent_type": "counter"}]]},
    {"calls": [["StructuredOutput", {"total": 21}]]},
    {"text": "Done."},
)


@pytest.fixture
def model_url():
    """Where a scripted model listens."""
    process = subprocess.Popen([sys.executable, FAKE / "model.py"], stdout=subprocess.PIPE, text=True)
    with process:
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def server(tmp_path, model_url):
    """A server on the local runtime whose project has all of it."""
    project = tmp_path / "project"
    greeter = project / "skills/greeter"
    greeter.mkdir(parents=True)
    (greeter / "SKILL.md").write_text(SKILL)
    (greeter / "words.txt").write_text("ahoy from the skill\n")
    (project / "sandstorm.json").write_text(json.dumps(PROJECT))
    (project / ".env").write_text("ECHO_MARK=from .env\n")
    port = free_port()
    argv = [PROGRAM, "--workers", "2", "--bind", f"127.0.0.1:{port}", "--runtime", "local", "--project-dir", project]
    env = {"ANTHROPIC_API_KEY": "test-key", "ANTHROPIC_BASE_URL": model_url, "XDG_RUNTIME_DIR": str(tmp_path / "s/tmp")}
    running = Server(tmp_path / "s", argv, env, port)
    try:
        running.wait_ready()
        yield running
        assert running.stop() == 0, running.stderr
        leaks.check_files(running)
        leaks.check_log(running)
    finally:
        running.destroy()


def tool_results(events: list[dict]) -> list[str]:
    """What the tools gave back, in order, sub-agents' included."""
    blocks = [block for event in events if event["type"] == "user" for block in event["message"]["content"]]
    contents = [block["content"] for block in blocks if block["type"] == "tool_result"]
    return [text if isinstance(text, str) else "".join(part["text"] for part in text) for text in contents]


async def test_the_agent_uses_its_skill_its_mcp_server_its_sub_agent_and_its_schema(server, client):
    files = {"mcp_echo.py": (FAKE / "mcp_echo.py").read_text()}
    answer = await query(client, server, PROMPT, files=files, timeout=120)
    started = answer.events[0]
    assert [(found["name"], found["status"]) for found in started["mcp_servers"]] == [("echo", "connected")]
    assert "greeter" in started["skills"]
    results = tool_results(answer.events)
    assert results[0] == "Launching skill: greeter"
    assert results[1] == "ahoy from the skill"
    assert results[2] == "HELLO <from .env>"
    assert results[3] == "21 sheep"  # the sub-agent's own
    assert "I found 21 sheep." in results[4]
    end = answer.of_type("result")[0]
    assert (end["subtype"], end["structured_output"]) == ("success", {"total": 21})
    assert answer.events[-1] == end  # the server had nothing to add: no error, no file


def test_ds_shows_what_a_real_agent_does(server):
    run = ds(PROMPT, "-f", FAKE / "mcp_echo.py", "-t", 120, server=server)
    assert run.returncode == OK, run.stderr
    first, _, answer = run.stdout.partition("\n")
    assert (first, json.loads(answer)) == ("First the skill.", {"total": 21})
    tools = [line.split(maxsplit=2)[1:] for line in run.stderr.splitlines() if line.startswith("→")]
    assert tools == [
        ["Skill", "greeter"],
        ["Bash", "cat ~/.claude/skills/greeter/words.txt"],
        ["mcp__echo__shout", '{"text":"hello"}'],
        ["Task", "Count sheep"],
        ["Bash", "echo $((20 + 1)) sheep"],
        ["StructuredOutput", '{"total":21}'],
    ]
    assert "✓ 7 turns" in run.stderr.splitlines()[-1]
