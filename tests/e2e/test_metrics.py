"""GET /metrics (http-api.md section 11), read with Prometheus' own parser: what known runs leave in it."""

import asyncio
import json
import signal

from harness.client import RawConnection, open_query, query, query_bytes, script
from harness.waiting import deadline, eventually_async
from prometheus_client.parser import text_string_to_metric_families

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEY = "current-key-of-more-than-32-bytes-0001"
BOUNDS = "0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 1800 3600 +Inf".split()
LABELS_MAX = 64
FLOOD_MIB = 8


class Scrape:
    """One answer, checked and parsed: samples by name and labels."""

    def __init__(self, text: str):
        self.samples: dict[tuple[str, frozenset], float] = {}
        self.types: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            assert family.documentation and family.type != "unknown", family.name
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"twice: {key}"
                self.samples[key] = sample.value
        self.counters = {
            key: value
            for key, value in self.samples.items()
            if key[0].endswith(("_total", "_bucket", "_sum", "_count"))
        }
        assert self.samples

    def value(self, name: str, **labels: str) -> float:
        """A sample; 0 when it is not there."""
        return self.samples.get((f"sandstorm_{name}", frozenset(labels.items())), 0)

    def total(self, name: str, **labels: str) -> float:
        """Over all series that have these labels."""
        wanted = set(labels.items())
        return sum(v for (n, have), v in self.samples.items() if n == f"sandstorm_{name}" and wanted <= have)

    def names_of(self, name: str, label: str) -> set[str]:
        """Every value of a label."""
        return {dict(labels)[label] for n, labels in self.samples if n == f"sandstorm_{name}"}

    def check_histogram(self, name: str, count: int, **labels: str) -> None:
        """Buckets grow up to +Inf, which is the count; the sum fits them."""
        buckets = [self.value(f"{name}_bucket", le=bound, **labels) for bound in BOUNDS]
        assert buckets == sorted(buckets)
        assert buckets[-1] == self.value(f"{name}_count", **labels) == count
        assert self.value(f"{name}_sum", **labels) >= 0
        if count > 0:
            bounds = {dict(labels)["le"] for n, labels in self.samples if n == f"sandstorm_{name}_bucket"}
            assert bounds == set(BOUNDS)


async def scrape(client, server, key: str | None = None) -> Scrape:
    """What any worker says of all."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = await client.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    return Scrape(answer.text)


async def scrape_until(client, server, condition, what: str) -> Scrape:
    """Scrapes until a condition holds: what is counted after an answer's end is not there at once."""
    async with asyncio.timeout(deadline(10)):
        while True:
            seen = await scrape(client, server)
            if condition(seen):
                return seen
            assert server.running, what
            await asyncio.sleep(0.02)


async def test_a_fresh_server_shows_every_metric_of_the_contract(client, server):
    seen = await scrape(client, server)
    assert seen.types | {
        "sandstorm_requests": "counter", "sandstorm_request_duration_seconds": "histogram",
        "sandstorm_agent_execution_seconds": "histogram", "sandstorm_sandbox_creation_seconds": "histogram",
        "sandstorm_sandboxes_active": "gauge", "sandstorm_errors": "counter", "sandstorm_queue_drops": "counter",
        "sandstorm_webhook_events": "counter", "sandstorm_runs_active": "gauge", "sandstorm_max_runs": "gauge",
        "sandstorm_workers": "gauge", "sandstorm_kill_queue": "gauge", "sandstorm_admission_rejected": "counter",
        "sandstorm_trigger_skipped": "counter", "sandstorm_build_info": "gauge",
        "sandstorm_first_event_seconds": "histogram", "sandstorm_telemetry_dropped": "counter",
    } == seen.types  # fmt: skip
    health = (await client.get(f"{server.url}/health")).json()
    assert seen.value("build_info", version=health["version"]) == 1
    assert seen.value("max_runs") == 1024
    assert seen.value("workers") == seen.value("worker_state", state="serving") == 2
    assert ("sandstorm_queue_drops_total", frozenset()) in seen.samples
    for reason in ("max_runs", "body_memory", "stopping"):
        assert ("sandstorm_admission_rejected_total", frozenset({("reason", reason)})) in seen.samples
    head = await client.head(f"{server.url}/metrics")
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", CONTENT_TYPE)


async def test_runs_are_counted_by_model_and_outcome(double, client, start_server):
    server = start_server("--ping-interval", "0")
    answers = [await query(client, server, script(), model="opus") for _ in range(3)]
    answers.append(await query(client, server, script(error="no"), model="opus"))
    double.inject("create", "status", status=401)
    answers.append(await query(client, server, script()))
    async with open_query(client, server, script(hold="never", hold_after=1), model="haiku") as stream:
        await stream.next_numbered()
    answers.append(stream.answer)
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletions")
    deletions = len(double.ledger.of_stage("kill"))
    seen = await scrape_until(
        client, server,
        lambda it: it.total("requests_total") == 6 and it.total("sandbox_calls_total", operation="delete") == deletions,
        "six runs and their deletions",
    )  # fmt: skip
    assert seen.value("requests_total", model="opus", status="ok") == 3
    assert seen.value("requests_total", model="opus", status="error") == 1
    assert seen.value("requests_total", model="", status="error") == 1
    assert seen.value("requests_total", model="haiku", status="cancelled") == 1
    assert seen.value("cost_usd_total", model="opus") == 0.03
    assert seen.names_of("errors_total", "error_type") == {"agent_error", "e2b_auth", "client_gone"}
    for model, runs, agents in (("opus", 4, 4), ("", 1, 0), ("haiku", 1, 1)):
        seen.check_histogram("request_duration_seconds", runs, model=model)
        seen.check_histogram("agent_execution_seconds", agents, model=model)
    seen.check_histogram("sandbox_creation_seconds", 5, template="sandstorm")
    seen.check_histogram("first_event_seconds", 5)
    assert 0 < seen.total("request_duration_seconds_sum") < deadline(60)
    texts = [text for answer in answers for text in answer.texts]
    unread = seen.value("events_total") - len(texts)
    assert 0 <= unread <= 1, "the client that left may not have read what was put last"
    if unread == 0:
        assert seen.value("stream_bytes_total") == sum(len(f"data: {text}\n\n".encode()) for text in texts)


async def test_requests_to_the_sandbox_service_are_counted_as_it_saw_them(double, client, server):
    double.inject("create", "status", status=503, times=2)
    double.inject("kill", "status", status=500)
    await query(client, server, script(files={"out.txt": "x"}))
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
    seen = await scrape_until(
        client, server, lambda it: it.value("sandbox_calls_total", operation="delete", status="204") == 1, "the deletion"
    )
    stages = {"create": "create", "upload": "upload", "start": "start", "find": "collect", "read": "read",
              "delete": "kill"}  # fmt: skip
    for operation, stage in stages.items():
        for status in {entry.status for entry in double.ledger.of_stage(stage)}:
            counted = seen.value("sandbox_calls_total", operation=operation, status=str(status))
            assert counted == sum(entry.status == status for entry in double.ledger.of_stage(stage)), operation
        assert seen.total("sandbox_calls_total", operation=operation) == len(double.ledger.of_stage(stage)) > 0
    assert seen.value("sandbox_retries_total", operation="create") == 2
    assert seen.value("sandbox_retries_total", operation="delete") == 1
    assert seen.total("sandbox_retries_total") == 3


async def test_a_request_without_an_answer_is_counted_by_why(double, client, start_server):
    server = start_server(workers=1)
    double.inject("create", "reset")
    assert (await query(client, server, script())).error_code == "sandbox_create_failed"
    seen = await scrape(client, server)
    assert seen.value("sandbox_calls_total", operation="create", status="cut") == 1


async def test_labels_are_escaped_and_only_so_many_are_kept(double, client, start_server):
    server = start_server(workers=4)
    double.inject("create", "status", status=401, times=None)
    strange = ['a"b\\c\nd\te', "é✓🙂", "x" * 100, "é" * 60, "other"]
    for model in strange:
        await query(client, server, script(), model=model)
    seen = await scrape(client, server)
    assert seen.names_of("requests_total", "model") == {*strange[:2], "x" * 64, "é" * 32, "other"}
    assert seen.value("requests_total", model="other", status="error") == 1
    plain = [f"model-{n}" for n in range(LABELS_MAX)]
    await asyncio.gather(*(query(client, server, script(), model=model) for model in plain))
    seen = await scrape(client, server)
    assert len(seen.names_of("requests_total", "model")) == LABELS_MAX + 1
    assert seen.value("requests_total", model="other", status="error") == 1 + 4
    assert seen.total("requests_total") == len(strange) + len(plain)
    seen.check_histogram("request_duration_seconds", 5, model="other")


async def test_gauges_follow_runs_and_sandboxes(double, client, start_server):
    server = start_server("--max-runs", "1")
    double.inject("kill", "status")
    double.inject("kill", "hold", gate="deletion")
    async with open_query(client, server, script(hold="on", hold_after=1)) as stream:
        await stream.next_numbered()
        refused = await client.post(f"{server.url}/query", json={"prompt": "x"})
        assert refused.status_code == 503
        seen = await scrape_until(client, server, lambda it: it.value("connections") == 2, "this connection and the run's")
        assert seen.value("runs_active") == seen.value("sandboxes_active") == seen.value("max_runs") == 1
        assert seen.value("admission_rejected_total", reason="max_runs") == 1
        double.release("on")
        await stream.rest()
    seen = await scrape_until(client, server, lambda it: it.value("kill_queue") == 1, "a failed deletion")
    assert seen.value("runs_active") == 0
    assert seen.value("sandboxes_active") == 1
    double.release("deletion")
    seen = await scrape_until(client, server, lambda it: it.value("sandboxes_active") == 0, "the deletion")
    assert seen.total("requests_total") == 1, "a refused request is no run"


async def test_bodies_beyond_the_memory_for_them_are_counted(client, start_server):
    server = start_server("--body-memory", "1KiB", workers=1)
    assert (await client.post(f"{server.url}/query", content=b"x" * 5000)).status_code == 503
    assert (await scrape(client, server)).value("admission_rejected_total", reason="body_memory") == 1


async def test_a_sandbox_nobody_knew_of_is_a_leak(double, client, server):
    double.inject("create", "reset", applied=True)
    await query(client, server, script())
    await double.until(lambda ledger: not ledger.alive(), 15, "the deletion of the sandbox that was found")
    seen = await scrape(client, server)
    assert seen.value("leaks_reaped_total") == 1


async def test_a_slow_client_pauses_its_agent(double, client, server):
    prompt = script(flood_mib=FLOOD_MIB, bytes=4000)
    with RawConnection(server, 16384) as slow:
        slow.send(query_bytes(server, prompt))
        await scrape_until(client, server, lambda it: it.value("backpressure_pauses_total") > 0, "a pause")
        await asyncio.to_thread(slow.read_to_end)
    seen = await scrape(client, server)
    assert seen.value("stream_bytes_total") > FLOOD_MIB * 2**20
    assert seen.value("events_total") > FLOOD_MIB * 2**20 / 5000


async def test_totals_do_not_go_down_when_workers_die(double, client, server):
    for _ in range(6):
        await query(client, server, script(), model="opus")
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletions")
    seen = await scrape(client, server)
    for victim in server.workers():
        server.signal(signal.SIGKILL, victim)
        await eventually_async(lambda gone=victim: len(server.workers() - {gone}) == 2, 10, "a new worker")
        after = await scrape(client, server)
        for key, value in seen.counters.items():
            assert after.counters.get(key, -1) >= value, key
        assert after.value("requests_total", model="opus", status="ok") == 6
        seen = after
    await query(client, server, script(), model="opus")
    assert (await scrape(client, server)).value("requests_total", model="opus", status="ok") == 7


async def test_runs_of_a_dead_worker_are_counted_once_by_who_finds_them(double, client, start_server):
    server = start_server(workers=1)
    (victim,) = server.workers()
    async with open_query(client, server, script(hold="never", hold_after=1), model="opus") as stream:
        await stream.next_numbered()
        server.signal(signal.SIGKILL, victim)
        await eventually_async(lambda: server.workers() - {victim}, 10, "a new worker")
        seen = await scrape_until(client, server, lambda it: it.total("requests_total") > 0, "the lost run")
    assert seen.value("requests_total", model="opus", status="error") == seen.total("requests_total") == 1
    assert seen.value("errors_total", error_type="worker_lost") == 1
    assert seen.value("leaks_reaped_total") == 1
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
    seen = await scrape_until(client, server, lambda it: it.value("sandboxes_active") == 0, "the end of the lease")
    assert (seen.value("runs_active"), seen.total("requests_total"), seen.value("leaks_reaped_total")) == (0, 1, 1)


async def test_a_reload_keeps_the_totals(client, server):
    await query(client, server, script(), model="opus")
    old = server.workers()
    server.signal(signal.SIGHUP)
    await eventually_async(lambda: not old & server.workers(), 10, "the end of the old workers")
    await query(client, server, script(), model="opus")
    assert (await scrape(client, server)).value("requests_total", model="opus", status="ok") == 2


async def test_it_needs_the_bearer_and_counts_who_lacks_it(client, start_server):
    server = start_server(env={"SANDSTORM_API_KEY": KEY})
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = await client.get(f"{server.url}/metrics", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "sandstorm_" not in answer.text
    seen = await scrape(client, server, KEY)
    assert seen.value("errors_total", error_type="auth") == 2
    assert seen.total("errors_total") == 2


async def test_no_prompt_and_no_key_is_in_it(client, server):
    await query(client, server, json.dumps({"events": 1, "lines": ["a-secret-prompt"]}), anthropic_api_key="sk-secret")
    text = (await client.get(f"{server.url}/metrics")).text
    assert "a-secret-prompt" not in text and "sk-secret" not in text and server.secret not in text
