"""What the deployment guide shows: its client and its start line."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness.client import query
from harness.server import BUILD, bare_environment, free_port, run_program
from harness.waiting import deadline

GUIDE_PORT = 8000
GUIDE_CLIENT = Path(__file__).with_name("guide_client.py")
CORES = len(os.sched_getaffinity(0))


def test_the_guides_client_runs_unchanged_but_for_its_port(double, start_server):
    port = free_port()  # the guide's may be taken at any time: it is nobody's in particular
    start_server(port=port)
    source = GUIDE_CLIENT.read_text().replace(f"localhost:{GUIDE_PORT}", f"localhost:{port}")
    done = subprocess.run(
        [sys.executable, "-c", source], check=False, env=bare_environment(), capture_output=True, text=True,
        timeout=deadline(60),
    )
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    for agent in range(4):
        kinds = [m["message"]["type"] for m in messages if m["agent"] == agent]
        assert kinds == ["system", "assistant", "result"]
    prompts = {json.loads(s.files["/opt/agent-runner/agent_config.json"])["prompt"] for s in double.ledger.created()}
    assert len(prompts) == 4


@pytest.mark.parametrize(("env", "workers"), [({}, 2 * CORES), ({"WEB_CONCURRENCY": "3"}, 3)])
async def test_ds_serve_starts_the_server(double, start_server, client, env, workers):
    port = free_port()
    argv = [BUILD / "ds", "serve", "--host", "0.0.0.0", "--port", str(port)]
    server = start_server(argv=argv, port=port, env=env)
    await asyncio.to_thread(server.wait_ready, workers)
    assert len(server.workers()) == workers
    answer = await query(client, server, "hello")
    assert answer.events[-1]["type"] == "result"


@pytest.mark.parametrize(
    ("args", "env", "workers"),
    [
        ([], {}, 2 * CORES),
        ([], {"WEB_CONCURRENCY": "5"}, 5),
        ([], {"WEB_CONCURRENCY": "5", "SANDSTORM_WORKERS": "6"}, 6),
        (["--workers", "7"], {"WEB_CONCURRENCY": "5"}, 7),
    ],
)
def test_the_default_of_workers(args, env, workers):
    checked = run_program("--check", *args, env=env)
    assert checked.returncode == 0, checked.stderr
    assert re.search(rf"^workers = {workers}\b", checked.stdout, re.MULTILINE), checked.stdout
