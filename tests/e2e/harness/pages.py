"""The pages that are part of the server, as their files in worker/pages say."""

import base64
import hashlib
import re

import httpx

from .server import REPOSITORY


def page_source(name: str) -> str:
    """A page as it must be served."""
    return (REPOSITORY / "worker/pages" / name).read_text()


def inner(page: str, tag: str) -> str:
    """The content of the page's one element of a kind."""
    pieces = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert len(pieces) == 1
    return pieces[0]


def digest(text: str) -> str:
    """As a policy names it."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


async def check_served(client: httpx.AsyncClient, url: str, page: str) -> None:
    """The page comes as it is, may run nothing but its own one script and style, and HEAD says the same."""
    answer = await client.get(url)
    assert (answer.status_code, answer.text) == (200, page)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; script-src {digest(inner(page, 'script'))}; style-src {digest(inner(page, 'style'))}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    head = await client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Security-Policy"] == answer.headers["Content-Security-Policy"]
    assert head.headers["Content-Length"] == str(len(answer.content))


def check_self_contained(page: str) -> None:
    """Nothing comes from elsewhere, and nothing but the one script and style has an effect."""
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script[^>]+src|\sstyle=|\son\w+=", page.replace("// ", ""))
