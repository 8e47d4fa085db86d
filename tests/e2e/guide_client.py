"""The client of the deployment guide, as it stands there: it must run unchanged."""

import asyncio
import json

import httpx
from httpx_sse import aconnect_sse

PROMPTS = [
    "Scrape the top 50 YC companies and save as CSV",
    "Analyze Python dependency security for requests==2.31.0",
    "Fetch today's arxiv papers on LLM agents and write a summary",
    "Build a SQLite DB of US national parks from NPS.gov",
]


async def run_agent(client, number, prompt):
    async with aconnect_sse(client, "POST", "http://localhost:8000/query", json={"prompt": prompt}) as events:
        async for event in events.aiter_sse():
            print(json.dumps({"agent": number, "message": json.loads(event.data)}), flush=True)


async def main():
    async with httpx.AsyncClient(timeout=None) as client:
        await asyncio.gather(*(run_agent(client, number, prompt) for number, prompt in enumerate(PROMPTS)))


asyncio.run(main())
