"""GET /, /docs and /redoc (http-api.md 12): the pages as they are served. How they look is tested beside each."""

import re

import pytest
from harness.pages import check_self_contained, check_served, page_source

DASHBOARD = page_source("dashboard.html")
DOCS = page_source("docs.html")


@pytest.mark.parametrize(("path", "page"), [("/", DASHBOARD), ("/?x=1", DASHBOARD), ("/docs", DOCS), ("/redoc", DOCS)])
async def test_a_page_may_run_nothing_but_its_own_script_and_style(server, client, path, page):
    await check_served(client, server.url + path, page)


async def test_the_dashboard_itself_needs_no_token(start_server, client):
    server = start_server(env={"SANDSTORM_API_KEY": "a-key-of-more-than-thirty-two-bytes"})
    await check_served(client, f"{server.url}/", DASHBOARD)


@pytest.mark.parametrize(
    ("page", "targets", "fetched"),
    [(DASHBOARD, ["data:,", "docs"], "BASE + path,"), (DOCS, ["data:,", "openapi.json"], '"openapi.json")')],
    ids=["dashboard", "docs"],
)
def test_a_page_needs_nothing_from_elsewhere(page, targets, fetched):
    check_self_contained(page)
    assert re.findall(r"(?:href|src)=\"([^\"]*)\"", page) == targets
    (address,) = re.findall(r"fetch\((.*)", page)
    assert address.startswith(fetched)


@pytest.mark.parametrize("page", [DASHBOARD, DOCS], ids=["dashboard", "docs"])
def test_a_page_turns_no_text_into_html_or_code_and_keeps_nothing_for_good(page):
    risky = r"(inner|outer)HTML|insertAdjacentHTML|document\.write|eval\(|Function\(|localStorage|cookie"
    assert not re.search(risky, page)
