"""A real browser for the dashboard: Debian's chromium, driven by Playwright; what it complains about is kept."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from .waiting import deadline

CHROMIUM = "/usr/bin/chromium"
ANSWER_SECONDS = 15
# What a browser says of every answer that is no success, and of every connection that fails. The page cannot help it.
NETWORK_NOTE = "Failed to load resource"
# Notes what the policy stopped; runs before the page's own script.
WATCH = """
window.stopped = [];
addEventListener("securitypolicyviolation", (event) => stopped.push(event.violatedDirective + " " + event.sourceFile));
"""


class Screen:
    """One page in a window of its own, and what it said and asked for."""

    def __init__(self, page: Page):
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request))

    def _note(self, message: ConsoleMessage) -> None:
        """Keeps errors and warnings of the console."""
        if message.type in ("error", "warning") and not message.text.startswith(NETWORK_NOTE):
            self.complaints.append(message.text)

    async def check(self) -> None:
        """No script failed, and the policy had nothing to stop."""
        assert not self.complaints
        assert await self.page.evaluate("window.stopped") == []


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """A browser without a window."""
    async with async_playwright() as playwright:
        # As root, chromium's own sandbox does not start.
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_screen(browser: Browser, **options) -> AsyncIterator[Screen]:
    """A new window, with nothing of an earlier one; at its end its complaints fail the test."""
    context = await browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
    context.set_default_timeout(deadline(ANSWER_SECONDS) * 1000)
    try:
        await context.add_init_script(WATCH)
        screen = Screen(await context.new_page())
        yield screen
        await screen.check()
    finally:
        await context.close()
