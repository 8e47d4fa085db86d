"""GET / (http-api.md 12): the dashboard, as a real browser shows it.

Every screen ends with a look at what the browser complained about: no script failed, the policy had nothing to stop.
"""

import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.browser import ANSWER_SECONDS, open_screen, running_browser
from harness.client import new_client, open_query, query, script
from harness.front import running_front
from harness.record import final_record
from harness.server import BUILD
from harness.waiting import deadline, eventually_async
from playwright.async_api import Locator, Page, expect

KEY = "a-key-of-more-than-thirty-two-bytes"
PHONE = {"width": 360, "height": 740}
FINGER_PIXELS = 32
RETRY_MAX_SECONDS = 33
# AA of WCAG 2 for text of this size.
CONTRAST_MIN = 4.5
CONTRASTS = Path(__file__).with_name("contrasts.js").read_text()
HOSTILE = [
    '"><img src=x onerror="window.hit=1">',
    "<script>window.hit=1</script>",
    "</td></tr></table><svg onload=window.hit=1>",
    "' onmouseover='window.hit=1' onfocus='window.hit=1' autofocus x='",
    "javascript:window.hit=1//</style></title><iframe srcdoc='<script>parent.hit=1</script>'>",
    "\u202e&lt;b&gt;&quot; ${window.hit=1} {{window.hit=1}} `window.hit=1`",
]
expect.set_options(timeout=deadline(ANSWER_SECONDS) * 1000)


@pytest.fixture
async def browser():
    """A browser of this test."""
    async with running_browser() as running:
        yield running


def row(page: Page, run_id: str) -> Locator:
    """The row of a run."""
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=f"Run {run_id}, details"))


def total(page: Page, title: str) -> Locator:
    """The number below a title."""
    return page.locator("#totals > div").filter(has_text=title).locator("dd > span")


async def shown_ids(page: Page) -> list[str]:
    """The runs in the table, from the top."""
    return await page.locator("#rows .identity").all_text_contents()


@asynccontextmanager
async def held_run(double, server, client, gate: str, **fields):
    """A run that waits while the block runs; its stream."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with client.stream(
        "POST", f"{server.url}/query", json={"prompt": script(hold=gate)} | fields, headers=headers
    ) as stream:
        assert stream.status_code == 200
        run_id = stream.headers["X-Sandstorm-Run-Id"]
        await double.until(lambda ledger: ledger.of_stage("start", run_id), 10, "the agent")
        yield run_id
        double.release(gate)
        await stream.aread()


async def cancel(page: Page, run_id: str) -> None:
    """Cancels a run as a person does."""
    await page.get_by_role("button", name=f"Cancel run {run_id}").click()
    await page.get_by_role("alertdialog").get_by_role("button", name="Cancel run").click()


# --- runs ---


async def test_runs_appear_change_and_end_without_reloading(double, server, client, browser):
    async with open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        await expect(page.get_by_text("No runs yet.")).to_be_visible()
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        async with held_run(double, server, client, "go", model="m-1") as run_id:
            line = row(page, run_id)
            await expect(line.get_by_role("cell").first).to_have_text("Running")
            await expect(line).to_contain_text("m-1")
            await expect(line).to_contain_text('"hold": "go"')
            await expect(line.locator(".c-duration")).to_have_text(re.compile(r"^\d+ s$"))
            await expect(total(page, "Running")).to_have_text("1")
        await expect(line.get_by_role("cell").first).to_have_text("Completed")
        await expect(line.locator(".c-num_turns")).to_have_text("1")
        await expect(line.locator(".c-cost_usd")).to_have_text("$0.0100")
        await expect(line.get_by_role("button", name="Cancel")).to_have_count(0)
        failed = await query(client, server, script(error="no such model"))
        await expect(row(page, failed.run_id)).to_contain_text("agent_error")
        await expect(row(page, failed.run_id)).to_contain_text("no such model")
        assert await shown_ids(page) == [failed.run_id, run_id]
        for title, text in {
            "Running": "0",
            "Completed": "1",
            "Errors": "1",
            "Cancelled": "0",
            "Cost": "$0.0100",
        }.items():
            await expect(total(page, title)).to_have_text(text)
        assert [request.url for request in screen.requests if request.is_navigation_request()] == [f"{server.url}/"]


async def test_workers_and_their_load_are_shown(double, server, client, browser):
    async with open_screen(browser) as screen:
        await screen.page.goto(server.url)
        workers = screen.page.locator("#workers li")
        await expect(workers).to_have_count(2)
        names = await workers.locator(".line > span:first-child").all_text_contents()
        assert {f"PID {pid}" for pid in server.workers()} <= set(names)
        async with held_run(double, server, client, "go"):
            await expect(workers.filter(has_text="1 run ·")).to_have_count(1)
        await expect(workers.filter(has_text="0 runs ·")).to_have_count(2)
        await expect(workers.get_by_text("serving")).to_have_count(2)


async def test_runs_are_filtered_by_state_and_by_words(double, server, client, browser):
    completed = await query(client, server, "find the needle", model="m-1")
    failed = await query(client, server, script(error="no such model"))
    async with held_run(double, server, client, "go") as running, open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        every = [running, failed.run_id, completed.run_id]
        filters = {
            "Running": [running],
            "Completed": [completed.run_id],
            "Error": [failed.run_id],
            "Cancelled": [],
            "All": every,
        }
        for name, run_ids in filters.items():
            await page.get_by_role("group", name="Show runs by state").get_by_role("button", name=name).click()
            await expect(page.locator("#rows .identity")).to_have_text(run_ids)
            await expect(page.locator("#filters [aria-pressed=true]")).to_have_text(name)
        await page.get_by_role("button", name="Error", exact=True).first.click()
        await expect(page.locator("#rows .identity")).to_have_text([failed.run_id])
        assert page.url == f"{server.url}/#status=error"
        await page.reload()
        await expect(page.locator("#rows .identity")).to_have_text([failed.run_id])
        await page.get_by_role("button", name="All").click()
        await page.get_by_role("searchbox").fill("NEEDLE")
        await expect(page.locator("#rows .identity")).to_have_text([completed.run_id])
        await page.get_by_role("searchbox").fill("nothing like it")
        await expect(page.get_by_text("No run matches.")).to_be_visible()


async def test_runs_are_sorted_by_a_column(server, client, browser):
    costs = [0.2, None, 0.3, 0.1]
    answers = [await query(client, server, script(result={"total_cost_usd": cost})) for cost in costs]
    cheap, dear = [3, 0, 2, 1], [2, 0, 3, 1]
    async with open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        await expect(page.locator("#rows .identity")).to_have_text([answer.run_id for answer in reversed(answers)])
        heading = page.get_by_role("columnheader", name="Cost")
        for order, says in ((dear, "descending"), (cheap, "ascending")):
            await heading.get_by_role("button").click()
            await expect(page.locator("#rows .identity")).to_have_text([answers[number].run_id for number in order])
            await expect(heading).to_have_attribute("aria-sort", says)


async def test_a_run_is_shown_in_full(double, server, client, browser):
    prompt = "Ünï " * 1500 + "the end"
    answer = await query(client, server, prompt, team_id="ops")
    async with open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        await page.get_by_role("button", name=f"Run {answer.run_id}, details").focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name=answer.run_id)
        await expect(dialog.locator("pre").first).to_have_text(prompt)
        await expect(dialog.get_by_role("definition").filter(has_text="ops")).to_be_visible()
        await expect(dialog.locator("details pre")).to_contain_text('"config_snapshot"')
        await expect(page).to_have_url(f"{server.url}/#run={answer.run_id}")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(page).to_have_url(f"{server.url}/")
        focused = await page.evaluate("document.activeElement.textContent")
        assert focused == answer.run_id
        await page.goto(f"{server.url}/#run=0123456789abcdef")
        await page.reload()
        await expect(page.get_by_role("dialog")).to_contain_text("This run is no longer known.")


# --- cancelling ---


async def test_a_run_is_cancelled_after_a_confirmation(double, server, client, browser):
    async with open_screen(browser) as screen, open_query(client, server, script(hold="never", hold_after=1)) as stream:
        page = screen.page
        await page.goto(server.url)
        await page.get_by_role("button", name=f"Cancel run {stream.run_id}").click()
        dialog = page.get_by_role("alertdialog")
        await expect(dialog).to_contain_text(stream.run_id)
        await expect(dialog).to_contain_text('"hold": "never"')
        await expect(dialog.get_by_role("button", name="Keep it running")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        assert not [request for request in screen.requests if request.method == "POST"]
        await stream.next_numbered()
        await cancel(page, stream.run_id)
        await expect(row(page, stream.run_id).get_by_role("cell").first).to_have_text("Cancelled")
        assert (await stream.rest()).error_code == "cancelled"
        posts = [request.url for request in screen.requests if request.method == "POST"]
        assert posts == [f"{server.url}/runs/{stream.run_id}/cancel"]
        await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
        await expect(total(page, "Cancelled")).to_have_text("1")


async def test_a_run_that_ended_meanwhile_is_said_to_have(double, server, client, browser):
    async with open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        async with held_run(double, server, client, "go") as run_id:
            await page.get_by_role("button", name=f"Cancel run {run_id}").click()
        await page.get_by_role("alertdialog").get_by_role("button", name="Cancel run").click()
        await expect(page.get_by_role("alert")).to_contain_text("Not cancelled: run status is completed, cannot cancel")


# --- staying in touch ---


async def test_the_page_survives_a_restart_of_the_server(double, start_server, client, browser):
    server = start_server()
    first = await query(client, server, script())
    async with open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        await expect(row(page, first.run_id)).to_be_visible()
        assert server.stop() == 0
        await expect(page.get_by_role("status").filter(has_text="Disconnected, retrying")).to_be_visible()
        await expect(row(page, first.run_id)).to_be_visible()
        again = start_server(port=server.port)
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        second = await query(client, again, script())
        await expect(row(page, second.run_id)).to_be_visible()
        assert [request.url for request in screen.requests if request.is_navigation_request()] == [f"{server.url}/"]


async def test_a_server_that_is_gone_is_asked_less_and_less(server, browser):
    async with open_screen(browser) as screen:
        page = screen.page
        await page.clock.install()
        await page.goto(server.url)
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        await page.route(re.compile("/(runs|status)"), lambda route: route.abort())
        waits = []
        await page.clock.pause_at(await page.evaluate("Date.now()") + 4_000)
        for _ in range(6):
            if waits:
                await page.clock.run_for(waits[-1] * 1000 + 1)
            await expect(page.locator("#when")).to_have_text(re.compile(r"^in [1-9]\d* s$"))
            waits.append(int((await page.locator("#when").text_content()).split()[1]))
        assert waits[0] <= 4
        assert waits[:4] == sorted(waits[:4])
        assert min(waits[4:]) > 20
        assert max(waits) <= RETRY_MAX_SECONDS
        await page.unroute(re.compile("/(runs|status)"))
        await page.get_by_role("button", name="Retry").click()
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()


async def test_a_page_that_is_hidden_or_paused_asks_nothing(server, browser):
    async with open_screen(browser) as screen:
        page = screen.page
        await page.clock.install()
        await page.goto(server.url)
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        hide = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});" \
            "document.dispatchEvent(new Event('visibilitychange')); }"  # fmt: skip
        await page.evaluate(hide, True)
        asked = len(screen.requests)
        await page.clock.run_for(60_000)
        assert len(screen.requests) == asked
        await page.evaluate(hide, False)
        await eventually_async(lambda: len(screen.requests) > asked, 10, "a poll at once")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
        asked = len(screen.requests)
        await page.clock.run_for(60_000)
        assert len(screen.requests) == asked
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        await eventually_async(lambda: len(screen.requests) > asked, 10, "the next poll")


async def test_what_one_reads_and_has_chosen_stays_where_it_is(double, server, client, browser):
    async def burst(runs):
        return [(await query(client, server, script())).run_id for _ in range(runs)]

    old = await burst(40)
    async with open_screen(browser) as screen, held_run(double, server, client, "go") as running:
        page = screen.page
        await page.goto(server.url)
        await page.get_by_role("button", name=f"Cancel run {running}").focus()
        read = row(page, old[10])
        await read.evaluate("(tr) => { window.read = tr; scrollTo(0, tr.getBoundingClientRect().top - 200); }")
        before = await read.bounding_box()
        fresh = await burst(8)
        await expect(row(page, fresh[-1])).to_have_count(1)
        assert abs((await read.bounding_box())["y"] - before["y"]) < 1
        assert await page.evaluate("window.read.isConnected")
        label = await page.evaluate("document.activeElement.ariaLabel")
        assert label == f"Cancel run {running}"


# --- hostile texts ---


async def test_hostile_texts_are_shown_as_text(double, server, client, browser):
    runs = {}
    for text in HOSTILE:
        runs[text] = await query(client, server, text, model=text, team_id=text)
        await query(client, server, script(error=text, marker=text))
        await query(client, server, script(result={"is_error": True, "subtype": text, "result": text}))
    async with open_screen(browser) as screen, held_run(double, server, client, "go", model=HOSTILE[0]) as running:
        page = screen.page
        await page.goto(server.url)
        await expect(page.locator("#rows > tr")).to_have_count(3 * len(HOSTILE) + 1)
        for text, answer in runs.items():
            assert await row(page, answer.run_id).locator(".c-prompt").text_content() == text[:100]
            assert await row(page, answer.run_id).locator(".c-model").text_content() == text
        errors = await page.locator("#rows .c-error").all_text_contents()
        for text in HOSTILE:
            assert f"agent_error{text}" in errors
        for run_id in await shown_ids(page):
            await page.get_by_role("button", name=f"Run {run_id}, details").click()
            await expect(page.locator("#record pre").first).to_be_visible()
            await page.locator("#record summary").click()
            await row(page, run_id).dispatch_event("mouseover")
            await page.keyboard.press("Escape")
        await page.get_by_role("button", name=f"Cancel run {running}").click()
        await page.keyboard.press("Escape")
        assert await page.evaluate("window.hit") is None
        assert (
            await page.locator("img, svg, iframe, #board b b, #rows table, [onmouseover], [onerror], [onload]").count()
            == 0
        )
        assert await page.locator("script").count() == 1
        await screen.check()


# --- behind others ---


@pytest.mark.parametrize("end", ["", "/"])
async def test_the_page_works_below_a_prefix(double, server, client, browser, end):
    async with running_front(server, "/ops/sandstorm") as front, open_screen(browser) as screen:
        page = screen.page
        await page.goto(front.url + end)
        async with open_query(client, server, script(hold="never")) as stream:
            await page.get_by_role("button", name=f"Run {stream.run_id}, details").click()
            await expect(page.locator("#record pre").first).to_contain_text("never")
            await page.keyboard.press("Escape")
            await cancel(page, stream.run_id)
            await expect(row(page, stream.run_id).get_by_role("cell").first).to_have_text("Cancelled")
        assert await page.get_by_role("link", name="API").evaluate("(link) => link.href") == f"{front.url}/docs"
        assert {path for path in front.paths if not path.startswith("/ops/sandstorm")} == set()


async def test_a_proxy_that_wants_a_sign_in_is_named(server, browser):
    async with running_front(server, "/ops") as front, open_screen(browser) as screen:
        page = screen.page
        await page.goto(front.url)
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        front.sign_in = True
        await expect(page.get_by_role("status").filter(has_text="Disconnected, retrying")).to_be_visible()
        await expect(page.locator("#why")).to_have_text("The server redirects: reload this page to sign in.")


async def test_a_token_is_asked_for_and_kept_in_the_tab_only(double, start_server, client, browser):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    async with held_run(double, server, client, "go") as run_id, open_screen(browser) as screen:
        page = screen.page
        await page.goto(server.url)
        await expect(page.get_by_text("Run history is private when API auth is enabled.")).to_be_visible()
        await expect(page.get_by_label("API token")).to_be_focused()
        for wrong in ("wrong", "wröng"):
            await page.get_by_label("API token").fill(wrong)
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_contain_text("This token was not accepted")
            assert await page.evaluate("sessionStorage.length") == 0
            await page.reload()
        await page.get_by_label("API token").fill(f" {KEY} ")
        await page.get_by_role("button", name="Show runs").click()
        await expect(row(page, run_id)).to_be_visible()
        await expect(page.get_by_label("API token")).to_be_hidden()
        await page.reload()
        await cancel(page, run_id)
        await expect(row(page, run_id).get_by_role("cell").first).to_have_text("Cancelled")
        assert await page.evaluate("Object.values(sessionStorage)") == [KEY]
        assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert page.url == f"{server.url}/"
        assert KEY not in await page.content()
        assert not [request.url for request in screen.requests if KEY in request.url]
        assert {
            await request.header_value("Authorization") for request in screen.requests if request.method == "POST"
        } == {f"Bearer {KEY}"}
        await page.get_by_role("button", name="Forget token").click()
        await expect(page.get_by_label("API token")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0
        assert run_id not in await page.content()


async def test_a_link_to_a_run_outlives_the_question_for_the_token(double, start_server, client, browser):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    async with held_run(double, server, client, "go") as run_id, open_screen(browser) as screen:
        page = screen.page
        await page.goto(f"{server.url}/#run={run_id}")
        await page.get_by_label("API token").fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog", name=run_id)).to_contain_text("hold")


# --- how it looks ---


PROMPTS = [
    "Summarise the incident report in in/report.md and list the three most likely causes",
    "Review this pull request for race conditions\nand say what to do",
    "Bereite die Quartalszahlen auf – bitte als Tabelle",
    HOSTILE[0],
    "x" * 5000,
]


async def many_runs(double, server) -> None:
    """Runs of every kind, some with words that are long."""
    async with new_client() as client:
        for text in PROMPTS:
            await query(client, server, text, model="claude-sonnet-5")
        await query(client, server, script(error="API Error: 529 overloaded_error: " + "y" * 300), model="z" * 200)
        await query(client, server, script(result={"total_cost_usd": 12.5, "num_turns": 123456}))
        async with open_query(client, server, script(hold="never")) as stream:
            await double.until(lambda ledger: ledger.of_stage("start", stream.run_id), 10, "the agent")
    assert (await final_record(server, stream.run_id)).code == "client_gone"  # and no page shows it running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1440, "height": 900}, PHONE], ids=["desk", "phone"])
async def test_it_is_readable_and_fits(double, server, client, browser, scheme, size):
    await many_runs(double, server)
    async with (
        held_run(double, server, client, "go", model="claude-opus-5"),
        open_screen(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as screen,
    ):
        page = screen.page
        await page.goto(server.url)
        await expect(page.locator("#rows > tr")).to_have_count(len(PROMPTS) + 4)
        name = "-".join(["dashboard", *(["dark"] if scheme == "dark" else []), *(["phone"] if size == PHONE else [])])
        await page.screenshot(path=BUILD / f"{name}.png", full_page=size == PHONE)
        seen = await page.evaluate(CONTRASTS)
        assert seen["dark"] == (scheme == "dark")
        assert len(seen["texts"]) > 40
        assert [text for text in seen["texts"] if text[1] < CONTRAST_MIN] == []
        button = await page.get_by_role("button", name=re.compile("^Cancel run")).bounding_box()
        assert button["x"] + button["width"] <= size["width"]
        assert button["height"] >= (FINGER_PIXELS if size == PHONE else 0)
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        for run_id in await shown_ids(page):
            await page.get_by_role("button", name=f"Run {run_id}, details").click()
            await expect(page.locator("#record pre").first).to_be_visible()
            assert await page.locator("#details").evaluate("(dialog) => dialog.scrollWidth") <= size["width"]
            await page.keyboard.press("Escape")


async def test_nothing_moves_for_those_who_want_it_so(double, server, client, browser):
    async with (
        held_run(double, server, client, "go") as run_id,
        open_screen(browser, reduced_motion="reduce") as screen,
    ):
        await screen.page.goto(server.url)
        await expect(row(screen.page, run_id)).to_be_visible()
        assert await screen.page.evaluate("document.getAnimations().length") == 0
