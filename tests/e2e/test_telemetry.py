"""Traces and metrics, as a collector that takes nothing but strict OTLP/JSON gets them."""

import asyncio
import json
import re
import signal
import time
from pathlib import Path

import pytest
from harness import procfs
from harness.client import open_query, query, script
from harness.record import final_record
from harness.server import run_program
from harness.waiting import deadline, eventually_async
from otlp_collector import Collector

STAGES = ["sandbox.create", "sandbox.upload", "agent.execute", "sandbox.collect", "sandbox.cleanup"]
SERVER, CLIENT = 2, 3
REMOTE_PARENT = 0x200
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_ID = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{CALLER_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{CALLER_ID}-00"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}  # milliseconds that spans wait for others
NEVER = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "600000"}
FLUSH_SECONDS = 5
ROUNDS_LEAST, ROUNDS_MAX = 5, 20


@pytest.fixture
def collector():
    """A collector; nothing it got may have been malformed."""
    running = Collector()
    try:
        yield running
        assert not running.violations, running.violations
    finally:
        running.stop()


@pytest.fixture
def start(start_server, collector):
    """start(**variables): a server that sends to the collector."""

    def start_once(*args, workers=1, **variables):
        server = start_server(*args, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | SOON | variables, workers=workers)
        server.service_ports.add(collector.port)
        return server

    return start_once


async def spans_of(collector: Collector, run_id: str, count: int = len(STAGES) + 1) -> dict:
    """The spans of a run by their names, as soon as all are there."""

    def found() -> list:
        traces = {span.trace_id for span in collector.spans if span.attributes.get("sandstorm.request_id") == run_id}
        return [span for span in collector.spans if span.trace_id in traces]

    await eventually_async(lambda: len(found()) >= count, 10, f"{count} spans of run {run_id}")
    spans = {span.name: span for span in found()}
    assert len(found()) == count == len(spans), sorted(span.name for span in found())
    return spans


async def ask(client, server, prompt: str, *headers: tuple[str, str], **fields) -> str:
    """POST /query with these headers, read to its end; the run's id."""
    answer = await client.post(f"{server.url}/query", json={"prompt": prompt} | fields, headers=list(headers))
    assert answer.status_code == 200
    return answer.headers["X-Sandstorm-Run-Id"]


async def dropped(client, server, kind: str) -> float:
    """The counter of what no collector took."""
    text = (await client.get(f"{server.url}/metrics")).text
    return float(re.search(rf'^sandstorm_telemetry_dropped_total{{signal="{kind}"}} (\S+)$', text, re.MULTILINE)[1])


# --- spans ----------------------------------------------------------------------------------------------


async def test_a_run_is_a_child_of_its_callers_span(start, double, collector, client):
    server = start(OTEL_SERVICE_NAME="agents", OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test%2Cing,service.name=no")
    run_id = await ask(client, server, script(files={"out.txt": "made"}), ("traceparent", SAMPLED), ("tracestate", "a=1"),
                       ("tracestate", "b=2"), model="m-7", timeout=60, files={"in.txt": "given"})  # fmt: skip
    spans = await spans_of(collector, run_id)
    root = spans["query"]
    assert {span.trace_id for span in spans.values()} == {TRACE_ID}
    assert {span.state for span in spans.values()} == {"a=1,b=2"}
    assert (root.parent_id, root.kind, root.flags & REMOTE_PARENT) == (CALLER_ID, SERVER, REMOTE_PARENT)
    for name in STAGES:
        assert (spans[name].parent_id, spans[name].kind, spans[name].flags & REMOTE_PARENT) == (root.span_id, CLIENT, 0)
    starts = [spans[name].start for name in ("query", *STAGES)]
    assert starts == sorted(starts)
    for name in STAGES[:4]:
        assert spans[name].end <= root.end
    sandbox = double.ledger.sandbox_of(run_id)
    of_sandbox = {"sandstorm.sandbox_id": sandbox.id}
    assert root.attributes == of_sandbox | {
        "sandstorm.request_id": run_id, "sandstorm.model": "m-7", "sandstorm.timeout": 60, "sandstorm.file_count": 1,
        "sandstorm.status": "completed", "sandstorm.num_turns": 1, "sandstorm.cost_usd": 0.01,
    }  # fmt: skip
    assert spans["sandbox.create"].attributes == of_sandbox | {"sandstorm.template": "sandstorm", "sandstorm.template_fallback": False}
    upload = spans["sandbox.upload"].attributes
    assert upload.pop("sandstorm.total_size_bytes") >= len("given")
    assert upload == of_sandbox | {"sandstorm.file_count": 4}
    assert spans["agent.execute"].attributes == of_sandbox | {"sandstorm.model": "m-7", "sandstorm.has_skills": False, "sandstorm.exit_code": 0}
    assert spans["sandbox.collect"].attributes == spans["sandbox.cleanup"].attributes == of_sandbox
    assert root.resource == {"service.name": "agents", "service.version": root.resource["service.version"],
                             "service.instance.id": "e2e", "deployment.environment": "test,ing"}  # fmt: skip
    assert not [span for span in spans.values() if span.failed or span.events]
    assert sandbox.env["TRACEPARENT"] == f"00-{TRACE_ID}-{spans['agent.execute'].span_id}-01"
    assert sandbox.env["TRACESTATE"] == "a=1,b=2"


async def test_a_bad_traceparent_is_as_none(start, double, collector, client):
    server = start()
    for headers in ([("traceparent", SAMPLED.upper())], [("traceparent", SAMPLED)] * 2, [("traceparent", "")], []):
        run_id = await ask(client, server, script(events=1), *headers, ("tracestate", "a=1"))
        spans = await spans_of(collector, run_id)
        assert (spans["query"].parent_id, spans["query"].flags & REMOTE_PARENT) == ("", 0)
        assert spans["query"].trace_id not in (TRACE_ID, "0" * 32)
        env = double.ledger.sandbox_of(run_id).env
        assert env["TRACEPARENT"] == f"00-{spans['query'].trace_id}-{spans['agent.execute'].span_id}-01"
        assert "TRACESTATE" not in env and not spans["query"].state


@pytest.mark.parametrize(
    ("fault", "fields", "code", "failed"),
    [
        (("create", 401), {}, "e2b_auth", {"query", "sandbox.create"}),
        (("upload", 400), {}, "upload_failed", {"query", "sandbox.upload"}),
        (None, {"result": False, "exit": 3}, "agent_exit", {"query", "agent.execute"}),
        (None, {"error": "words of the agent"}, "agent_error", {"query", "agent.execute"}),
        (("kill", 403), {}, None, {"sandbox.cleanup"}),
    ],
    ids=["create", "upload", "exit", "agent", "cleanup"],
)
async def test_what_fails_is_an_error_with_an_event(start, double, collector, client, fault, fields, code, failed):
    server = start()
    if fault:
        double.inject(fault[0], "status", status=fault[1], times=3)
    run_id = await ask(client, server, script(**fields))
    double.accept_left([run_id] if fault and fault[0] == "kill" else [])
    present = {"create": 2, "upload": 4}.get(fault[0] if fault else "", 6)
    spans = await spans_of(collector, run_id, present)
    assert {span.name for span in spans.values() if span.failed} == failed
    for name in failed:
        ((event, attributes),) = spans[name].events
        assert (event, attributes["exception.type"]) == ("exception", code or "sandbox_not_deleted")
    assert spans["query"].attributes.get("sandstorm.error_code") == code
    assert not [body for _, _, body in collector.requests if b"words of the agent" in body]


async def test_a_cancelled_run_is_no_error(start, double, collector, client):
    server = start()
    async with open_query(client, server, script(hold="never", hold_after=1)) as stream:
        await stream.next_numbered()
        await client.post(f"{server.url}/runs/{stream.run_id}/cancel")
        await stream.rest()
    spans = await spans_of(collector, stream.run_id, 5)
    assert not [span for span in spans.values() if span.failed]
    assert (spans["query"].attributes["sandstorm.status"], spans["query"].attributes["sandstorm.error_code"]) == ("cancelled",) * 2


async def test_the_sandbox_of_a_client_that_left_early_is_cleaned_up_in_the_trace(start, double, collector, client):
    server = start()
    double.inject("create", "hold", gate="create")
    async with open_query(client, server, script()) as stream:
        run_id = stream.run_id
        await double.until(lambda ledger: ledger.of_stage("create", run_id), 10, "the create")
    await eventually_async(lambda: [span for span in collector.spans if span.name == "query"], 10, "the end of the run")
    double.release("create")
    spans = await spans_of(collector, run_id, 3)
    assert set(spans) == {"query", "sandbox.create", "sandbox.cleanup"}
    assert spans["sandbox.cleanup"].attributes == {"sandstorm.sandbox_id": double.ledger.sandbox_of(run_id).id}


async def test_a_webhook_trigger_continues_its_callers_trace(start, double, collector, client, tmp_path):
    (tmp_path / "sandstorm.json").write_text(
        json.dumps({"triggers": [{"name": "hook", "type": "webhook", "path": "/hook", "public": True, "prompt": script()}]})
    )
    server = start("--project-dir", tmp_path)
    answer = await client.post(f"{server.url}/hook", json={}, headers={"traceparent": SAMPLED})
    run_id = answer.headers["X-Sandstorm-Run-Id"]
    spans = await spans_of(collector, run_id, 5)
    assert (spans["query"].trace_id, spans["query"].parent_id) == (TRACE_ID, CALLER_ID)
    assert spans["query"].attributes["sandstorm.trigger"] == "hook"
    assert "sandbox.collect" not in spans
    assert double.ledger.sandbox_of(run_id).env["TRACEPARENT"].startswith(f"00-{TRACE_ID}-")


@pytest.mark.parametrize(
    ("sampler", "argument", "parent", "sent"),
    [
        ("traceidratio", "0", SAMPLED, False),
        ("traceidratio", "1", NOT_SAMPLED, True),
        (None, None, NOT_SAMPLED, False),
        ("parentbased_traceidratio", "0", SAMPLED, True),
    ],
)
async def test_the_sampler_decides(start, double, collector, client, sampler, argument, parent, sent):
    server = start(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=argument)
    run_id = await ask(client, server, script(events=1), *([("traceparent", parent)] if parent else []))
    env = double.ledger.sandbox_of(run_id).env
    assert env["TRACEPARENT"].endswith("-01" if sent else "-00")
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
    assert server.stop() == 0
    assert len(collector.spans) == (6 if sent else 0)


# --- metrics --------------------------------------------------------------------------------------------


async def test_metrics_are_those_of_the_whole_instance(start, collector, client):
    server = start(workers=3, OTEL_METRIC_EXPORT_INTERVAL="100")
    runs = 9
    for number in range(runs):
        (await query(client, server, script(events=2), model=f"m-{number % 2}")).check_complete(2)

    def newest():
        export = collector.exports[-1] if collector.exports else None
        total = sum(export.value("sandstorm.requests", model=f"m-{number}", status="ok") for number in (0, 1)) if export else 0
        return export if total == runs else None

    await eventually_async(newest, 10, "all runs in the metrics")
    before = len(collector.exports)  # a run's end is counted in several metrics, one after the other
    await eventually_async(lambda: len(collector.exports) > before + 1, 10, "an export that was begun after that")
    export = collector.exports[-1]
    for name in ("sandstorm.request.duration", "sandstorm.agent.execution.duration"):
        assert (export.value(name, model="m-0"), export.value(name, model="m-1")) == (5, 4)
    assert export.value("sandstorm.sandbox.creation.duration", template="sandstorm") == runs
    assert export.value("sandstorm.cost", model="m-1") == pytest.approx(0.04)
    assert export.value("sandstorm.workers") == 3
    assert export.value("sandstorm.runs.max") == 1024
    assert export.resource["service.instance.id"] == "e2e"
    before = len(collector.exports)
    await eventually_async(lambda: len(collector.exports) > before + 1, 10, "two more exports")
    senders = {path for path, _, _ in collector.requests}
    assert senders == {"/v1/traces", "/v1/metrics"}


async def test_another_worker_sends_them_when_the_elected_one_dies(start, collector, client):
    server = start(workers=2, OTEL_METRIC_EXPORT_INTERVAL="100")
    (await query(client, server, script())).check_complete(3)
    await eventually_async(lambda: collector.exports, 10, "metrics")
    elected = [pid for pid in server.workers() if procfs.sockets_to(collector.port) & set(procfs.descriptors(pid).values())]
    for pid in elected:
        server.signal(signal.SIGKILL, pid)
    await eventually_async(lambda: not set(elected) & server.workers(), 10, "the end of the worker")
    before = len(collector.exports)
    await eventually_async(lambda: len(collector.exports) > before + 2, 10, "metrics of another worker")
    assert collector.exports[-1].value("sandstorm.requests", model="", status="ok") == 1


# --- collectors that do not take it ------------------------------------------------------------------------


async def test_what_is_refused_for_now_is_sent_again(start, collector, client):
    server = start()
    collector.status = 503
    run_id = await ask(client, server, script())
    await eventually_async(lambda: collector.requests, 10, "the first try")
    collector.status = 429
    await eventually_async(lambda: len(collector.requests) > 1, 10, "the second try")
    assert not collector.spans
    collector.status = 200
    await spans_of(collector, run_id)
    assert await dropped(client, server, "traces") == 0
    server.wait_log("the collector takes traces again")
    assert server.stderr.count("the collector does not take traces") == 1


async def test_what_is_refused_for_good_is_dropped_and_counted(start, collector, client):
    server = start(**NEVER | {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6"})
    collector.status = 400
    await ask(client, server, script())

    async def is_dropped():
        return await dropped(client, server, "traces") == 6

    await eventually_async(is_dropped, 10, "the drop to be counted")
    assert len(collector.requests) == 1
    collector.status, collector.answer = 200, {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "two too many"}}
    await ask(client, server, script())

    async def is_partly_dropped():
        return await dropped(client, server, "traces") == 8

    await eventually_async(is_partly_dropped, 10, "what was rejected to be counted")
    server.wait_log("the collector rejected 2 of 6 spans: two too many")


async def test_the_queue_is_bounded(start, collector, client):
    server = start(**NEVER | PATIENT | {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5"})
    collector.stall()
    for _ in range(8):
        await ask(client, server, script(events=1))

    async def all_counted():  # 5 are under way, 10 in the queue
        return await dropped(client, server, "traces") == 8 * 6 - 15

    await eventually_async(all_counted, 10, "the drops to be counted")
    collector.resume()
    await eventually_async(lambda: len(collector.spans) == 15, 10, "what was kept")


@pytest.mark.parametrize("state", ["stalled", "down", "busy"])
async def test_runs_and_stops_do_not_wait_for_a_collector(start, double, collector, client, state):
    server = start(OTEL_METRIC_EXPORT_INTERVAL="100", workers=2)
    if state == "down":
        collector.go_down()
    elif state == "stalled":
        collector.stall()
    else:
        collector.status, collector.headers = 429, {"Retry-After": "30"}
    for _ in range(3):
        (await query(client, server, script())).check_complete(3)
    await double.until(lambda ledger: not ledger.alive(), 10, "the deletions")
    if state != "down":
        await eventually_async(lambda: collector.requests, 10, "a request")
    began = time.monotonic()
    assert await asyncio.to_thread(server.stop) == 0
    assert time.monotonic() - began < deadline(FLUSH_SECONDS + 3 if state == "stalled" else FLUSH_SECONDS)
    assert state != "stalled" or "the collector is too slow" in server.stderr


async def test_a_stop_sends_what_waits(start, collector, client):
    server = start(**NEVER)
    run_id = await ask(client, server, script())
    assert not collector.requests
    assert await asyncio.to_thread(server.stop) == 0
    assert len(await spans_of(collector, run_id)) == 6
    (export,) = collector.exports
    assert export.value("sandstorm.requests", model="", status="ok") == 1


# --- the environment ------------------------------------------------------------------------------------


async def test_headers_reach_the_collector_and_no_log(start, collector, client):
    server = start("--log-level", "debug", OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20s3cret%2C1, X-Tenant = seven",
                   OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-tenant=eight", OTEL_METRIC_EXPORT_INTERVAL="100")  # fmt: skip
    await spans_of(collector, await ask(client, server, script()))
    await eventually_async(lambda: collector.exports, 10, "metrics")
    of = {path: headers for path, headers, _ in collector.requests}
    assert (of["/v1/traces"]["authorization"], of["/v1/traces"]["X-Tenant"]) == ("Bearer s3cret,1", "seven")
    assert of["/v1/metrics"]["x-tenant"] == "eight" and "authorization" not in of["/v1/metrics"]
    assert "s3cret" not in server.stderr


async def test_each_signal_may_go_elsewhere_or_nowhere(start_server, collector, client):
    env = {"SANDSTORM_TELEMETRY": "yes", "OTEL_METRICS_EXPORTER": "none",
           "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces"}  # fmt: skip
    server = start_server(env=env | SOON, workers=1)
    server.service_ports.add(collector.port)
    await spans_of(collector, await ask(client, server, script()))
    assert f"telemetry: traces go to 127.0.0.1:{collector.port}" in server.stderr
    assert "metrics go to" not in server.stderr


@pytest.mark.parametrize(
    "env",
    [{"OTEL_SDK_DISABLED": "true"}, {"SANDSTORM_TELEMETRY": "0"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}],
    ids=["disabled", "off", "nowhere"],
)
async def test_off_is_off(start, double, collector, client, env):
    server = start(**env)
    run_id = await ask(client, server, script(), ("traceparent", SAMPLED))
    assert not double.ledger.sandbox_of(run_id).env.keys() & {"TRACEPARENT", "TRACESTATE"}
    await final_record(server, run_id)
    assert await asyncio.to_thread(server.stop) == 0
    assert not collector.requests
    assert "telemetry" not in server.stderr


def test_the_check_tells_of_values_that_cannot_be_used():
    done = run_program("--check", env={
        "E2B_API_KEY": "e2b_0", "SANDSTORM_TELEMETRY": "on", "OTEL_TRACES_SAMPLER": "s3cret", "OTEL_EXPORTER_OTLP_HEADERS": "s3cret",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "s3cret://x", "OTEL_BSP_MAX_QUEUE_SIZE": "s3cret",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    })  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("TRACES_SAMPLER", "EXPORTER_OTLP_HEADERS", "EXPORTER_OTLP_METRICS_ENDPOINT", "BSP_MAX_QUEUE_SIZE", "EXPORTER_OTLP_PROTOCOL"):
        assert f"warn: telemetry: OTEL_{name} " in done.stderr
    assert "telemetry: traces go to localhost:4318" in done.stderr
    assert "s3cret" not in done.stderr


async def test_hup_reads_the_variables_again(start_server, collector, client, tmp_path):
    (tmp_path / ".env").write_text("")
    server = start_server("--project-dir", tmp_path, env=SOON, workers=1)
    await ask(client, server, script())
    other = Collector()
    try:
        for number, target in enumerate((collector, other), 2):
            server.service_ports.add(target.port)
            (tmp_path / ".env").write_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={target.url}\n")
            server.signal(signal.SIGHUP)
            server.wait_log(f"generation {number} serves, generation {number - 1} drains")
            # An older one may take a connection before it hears that it drains.
            await eventually_async(lambda: len(server.workers()) == 1, 10, "the end of the older worker")
            spans = await spans_of(target, await ask(client, server, script()))
            assert len({span.trace_id for span in target.spans} - {spans["query"].trace_id}) == 0
        server.wait_ready(1)  # what a fresh worker has open is more than it was without telemetry
        assert not other.violations
    finally:
        other.stop()


# --- what it costs --------------------------------------------------------------------------------------


def processor_seconds(pid: int) -> float:
    """What a process has used, by the scheduler's own count."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@pytest.mark.alone
async def test_a_stalled_collector_costs_a_run_less_than_one_percent(start, double, collector, client):
    """A worker is one thread: what it uses for a run bounds its throughput.

    What else the machine does can only add to it: the least of many counts, and who costs more is not excused by more tries.
    """
    # A request for each run, when it is over.
    server = start(**NEVER | PATIENT | {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6"})
    (pid,) = server.workers()
    runs, served, stalled = 0, [], []

    async def used() -> float:
        before = processor_seconds(pid)
        answer = await query(client, server, script(flood_mib=8, bytes=32768))
        assert answer.events[-1]["type"] == "result"
        await double.until(lambda ledger: not ledger.alive(), 10, "the deletion")
        return processor_seconds(pid) - before

    async def used_while_it_answers() -> float:
        await eventually_async(lambda: len(collector.spans) == 6 * runs, 10, "all spans so far")
        return await used()

    def costs_less() -> bool:
        return min(stalled) < 1.01 * min(served)

    for number in range(ROUNDS_MAX):
        if number >= ROUNDS_LEAST and costs_less():
            break
        collector.resume()
        for _ in range(5):
            served.append(await used_while_it_answers())
            runs += 1
        collector.stall()
        stalled += [await used() for _ in range(6)][1:]  # the end of the first is what is not answered
        runs += 6
    assert costs_less(), (served, stalled)
