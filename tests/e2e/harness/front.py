"""A proxy in front of the server, as an operator may have one: it serves the server below a prefix."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from .server import Server, free_port

# They belong to one connection, not to the message; the length is set anew.
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class Front:
    """What the proxy does and saw."""

    def __init__(self, server: Server, prefix: str):
        self.server = server
        self.prefix = prefix
        self.port = free_port()
        self.paths: list[str] = []
        self.sign_in = False  # send everybody to a page for signing in, as if their session were over
        self.session: ClientSession | None = None

    @property
    def url(self) -> str:
        """Where the server is seen, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    async def handle(self, request: web.Request) -> web.Response:
        """Passes a request on without the prefix."""
        self.paths.append(request.path)
        if not request.path.startswith(self.prefix):
            return web.Response(status=404, text="not below the prefix")
        if self.sign_in:
            return web.Response(status=302, headers={"Location": "http://login.invalid/"})
        target = self.server.url + (request.path_qs.removeprefix(self.prefix) or "/")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self.session.request(
            request.method, target, headers=headers, data=await request.read(), allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


@asynccontextmanager
async def running_front(server: Server, prefix: str) -> AsyncIterator[Front]:
    """A proxy for as long as the block runs."""
    front = Front(server, prefix)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", front.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    async with ClientSession(auto_decompress=False) as session:
        front.session = session
        try:
            await web.TCPSite(runner, "127.0.0.1", front.port).start()
            yield front
        finally:
            await runner.cleanup()
