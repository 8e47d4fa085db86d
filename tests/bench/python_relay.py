"""The server that our users would have written: FastAPI, uvicorn, httpx. POST /query -> a sandbox of E2B's -> SSE.

A run asks for what ours asks for: create, upload, start, the agent's lines as they come, delete. It is spared what ours
does beside that: checks, limits, retries, metrics, history.

    E2B_URL=http://127.0.0.1:1234 uvicorn python_relay:app
"""

import base64
import json
import os
import resource
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

E2B_URL = os.environ["E2B_URL"]
API_HEADERS = {"X-API-KEY": os.environ["E2B_API_KEY"]}
ENVELOPE_BYTES = 5
END_OF_STREAM = 2
HOME = "/home/user"


class Query(BaseModel):
    """What a client asks."""

    prompt: str


def allow_descriptors() -> None:
    """A run has two connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def lifespan(application: FastAPI):
    """One client for all runs."""
    allow_descriptors()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(base_url=E2B_URL, timeout=None, limits=limits, trust_env=False) as client:
        application.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


async def create(client: httpx.AsyncClient, run: str) -> dict:
    """A new sandbox."""
    body = {"templateID": "sandstorm", "timeout": 300, "secure": True, "envVars": {}, "metadata": {"request_id": run}}
    answer = await client.post("/sandboxes", json=body, headers=API_HEADERS)
    answer.raise_for_status()
    return answer.json()


def envd_headers(sandbox: dict) -> dict:
    """What a sandbox is addressed with."""
    return {"E2b-Sandbox-Id": sandbox["sandboxID"], "E2b-Sandbox-Port": "49983", "X-Access-Token": sandbox["envdAccessToken"]}


async def upload(client: httpx.AsyncClient, sandbox: dict, query: Query) -> None:
    """The agent's configuration."""
    config = json.dumps({"prompt": query.prompt}).encode()
    files = {"file": (f"{HOME}/agent_config.json", config)}
    answer = await client.post("/files", params={"username": "user"}, files=files, headers=envd_headers(sandbox))
    answer.raise_for_status()


def envelope(message: dict) -> bytes:
    """A Connect message."""
    payload = json.dumps(message).encode()
    return b"\0" + len(payload).to_bytes(4, "big") + payload


async def envelopes(answer: httpx.Response) -> AsyncIterator[dict]:
    """The messages of a Connect stream, but the last."""
    buffer = bytearray()
    async for part in answer.aiter_bytes():
        buffer += part
        while len(buffer) >= ENVELOPE_BYTES:
            end = ENVELOPE_BYTES + int.from_bytes(buffer[1:ENVELOPE_BYTES], "big")
            if len(buffer) < end:
                break
            flags, payload = buffer[0], bytes(buffer[ENVELOPE_BYTES:end])
            del buffer[:end]
            if flags & END_OF_STREAM:
                return
            yield json.loads(payload)


async def agent_lines(client: httpx.AsyncClient, sandbox: dict) -> AsyncIterator[bytes]:
    """Starts the agent: the lines that it prints."""
    command = {"cmd": "/bin/bash", "args": ["-l", "-c", "node runner.mjs"], "cwd": HOME}
    headers = envd_headers(sandbox) | {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"}
    body = envelope({"process": command, "stdin": False})
    rest = b""
    async with client.stream("POST", "/process.Process/Start", content=body, headers=headers) as answer:
        answer.raise_for_status()
        async for message in envelopes(answer):
            stdout = message["event"].get("data", {}).get("stdout")
            if stdout:
                *lines, rest = (rest + base64.b64decode(stdout)).split(b"\n")
                for line in lines:
                    yield line


async def events(client: httpx.AsyncClient, sandbox: dict, query: Query) -> AsyncIterator[bytes]:
    """The client's stream; the sandbox goes when it ends, or the client does."""
    try:
        await upload(client, sandbox, query)
        async for line in agent_lines(client, sandbox):
            yield b"data: " + line + b"\n\n"
    finally:
        await client.delete(f"/sandboxes/{sandbox['sandboxID']}", headers=API_HEADERS)


@app.post("/query")
async def query_sandbox(query: Query) -> StreamingResponse:
    """A run."""
    run = secrets.token_hex(8)
    sandbox = await create(app.state.client, run)
    stream = events(app.state.client, sandbox, query)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Sandstorm-Run-Id": run})
