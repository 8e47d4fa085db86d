"""What is measured: so many streams on a server, and what they cost."""

import os
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from programs import Load, Simulator, allow_descriptors, children, connections, cpu_us, free_kib, load, private_kib, simulator
from subjects import SUBJECTS, Subject

ENDLESS = 1_000_000_000
SETTLE_S = 2
PATIENCE_S = 60
FLOOD_STREAMS = 8
FLOOD_EVENTS = 60_000
FAR_MS = 50
FAR_STREAMS = 40
BURST_PER_S = 100_000
RELOAD_RAMP_S = 5
RELOADS_AT_S = (2, 4)
LOST = ("lost", "doubled", "foreign", "torn", "failed", "refused")
# Of these a benchmark's programs themselves need some; a run needs memory at four ends of two connections.
SPARE_DESCRIPTORS = 512
RUN_KIB = 100


def most_streams(wanted: int) -> tuple[int, str]:
    """How many streams this machine can have open at once, and what is the limit when there are fewer than wanted."""
    descriptors = allow_descriptors()
    for most, limit in ((descriptors - SPARE_DESCRIPTORS, f"RLIMIT_NOFILE is {descriptors}"),
                        (free_kib() // RUN_KIB, f"{free_kib() // 1024} MiB of memory are free")):  # fmt: skip
        if most < wanted:
            return most, f"{wanted} streams are too many here, {most} were opened: {limit}"
    return wanted, ""


class Bench:
    """One set of programs; what went wrong with them."""

    def __init__(self, build: Path, workers: int, size: int, fault: str):
        self.build, self.workers, self.bytes, self.fault = build, workers, size, fault
        self.faults: list[str] = []

    @contextmanager
    def _running(self, name: str, streams: int, has_tls: bool = False, **options):
        """Simulator and subject, both fresh."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandstorm-bench-")))
            upstream = stack.enter_context(simulator(self.build, folder, has_tls, bytes=self.bytes, fault=self.fault, **options))
            subject = stack.enter_context(SUBJECTS[name](self.build, upstream, folder, self.workers, streams))
            yield subject, upstream

    def _load(self, subject: Subject, streams: int, events: int, **options):
        """The load generator. Without events it does not know how many are to come."""
        return load(self.build, subject.ports, path=subject.path, streams=streams, bytes=self.bytes, events=events, **options)

    def _check(self, what: str, end: dict, upstream: Simulator) -> None:
        """Notes what went wrong: every event that was printed must have come, and every sandbox that was made be deleted."""
        wrong = {key: end[key] for key in LOST if end[key]}
        if wrong:
            self.faults.append(f"{what}: {wrong}")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            ledger = upstream.ledger()
            if ledger["created"] == ledger["deleted"] and ledger["streams"] == ledger["ended"]:
                break
            if time.monotonic() > deadline:
                self.faults.append(f"{what}: {ledger}")
                break
            time.sleep(0.2)
        if ledger["events"] != end["events"]:
            self.faults.append(f"{what}: {end['events']} events came of {ledger['events']}")

    @staticmethod
    def _wait_until_open(clients: Load, streams: int, ramp: int) -> None:
        """Every stream has had an event."""
        while clients.line()["first"] < streams:
            assert not clients.last["refused"] and not clients.last["over"], clients.last
            assert clients.last["seconds"] < streams / ramp + PATIENCE_S, clients.last

    def paced(self, name: str, streams: int, seconds: int, interval_us: int, ramp: int, has_tls: bool = False) -> dict:
        """So many open streams: what an event costs, how late it is, what a stream takes."""
        what = f"{name}, {streams} streams{', TLS' if has_tls else ''}"
        with self._running(name, streams, has_tls, events=ENDLESS, interval_us=interval_us) as (subject, upstream):
            idle_kib = private_kib(subject.pids)
            with self._load(subject, streams, 0, ramp=ramp) as clients:
                self._wait_until_open(clients, streams, ramp)
                clients.lines(SETTLE_S)
                clients.reset()
                start, cpu = clients.line(), cpu_us(subject.pids)
                line = clients.lines(seconds)
                spent_us = cpu_us(subject.pids) - cpu
                kib = private_kib(subject.pids) - idle_kib
                if line["open"] != streams:
                    self.faults.append(f"{what}: {line['open']} were open")
                upstream.end_agents()
                end = clients.rest(PATIENCE_S)
            self._check(what, end, upstream)
        relayed, took_s = line["events"] - start["events"], line["seconds"] - start["seconds"]
        latency = line["latency_us"]
        return {"cpu_us_per_event": spent_us / relayed, "cpu_percent": spent_us / took_s / 10_000, "kib_per_stream": kib / streams,
                "p50_us": latency["p50"], "p90_us": latency["p90"], "p99_us": latency["p99"],
                "events_per_s": relayed / took_s, "promised_per_s": streams * 1_000_000 / interval_us}  # fmt: skip

    def flood(self, name: str) -> dict:
        """As fast as the clients take it."""
        with self._running(name, FLOOD_STREAMS, events=FLOOD_EVENTS, interval_us=0) as (subject, upstream):
            cpu = cpu_us(subject.pids)
            with self._load(subject, FLOOD_STREAMS, FLOOD_EVENTS) as clients:
                end = clients.rest(PATIENCE_S)
                spent_us = cpu_us(subject.pids) - cpu
            self._check(f"{name}, flood", end, upstream)
        return {"cpu_us_per_event": spent_us / end["events"], "events_per_s": end["events"] / end["seconds"]}

    def first_event(self, name: str) -> dict:
        """How many round trips of a far service pass before the first event."""
        with self._running(name, FAR_STREAMS, events=1, interval_us=0, delay_ms=FAR_MS) as (subject, upstream):
            with self._load(subject, FAR_STREAMS, 1, ramp=FAR_STREAMS) as clients:
                end = clients.rest(PATIENCE_S)
            self._check(f"{name}, far service", end, upstream)
        return {"round_trips": end["first_event_us"]["p50"] / 1000 / FAR_MS}

    def balance(self, name: str, streams: int) -> dict:
        """What the busiest process has of streams that open all at once."""
        with self._running(name, streams, events=ENDLESS, interval_us=200_000) as (subject, upstream):
            with self._load(subject, streams, 0, ramp=BURST_PER_S) as clients:
                self._wait_until_open(clients, streams, BURST_PER_S)
                shares = connections(subject.ports, subject.pids)
                upstream.end_agents()
                end = clients.rest(PATIENCE_S)
            self._check(f"{name}, balance", end, upstream)
        assert sum(shares) == streams, shares
        return {"max_to_mean": max(shares) * len(shares) / streams}

    def reload(self, name: str, streams: int) -> dict:
        """How many streams two reloads cut, or keep from opening: some are open then, others come meanwhile."""
        with self._running(name, streams, events=ENDLESS, interval_us=200_000) as (subject, upstream):
            with self._load(subject, streams, 0, ramp=streams // RELOAD_RAMP_S) as clients:
                for second in range(RELOAD_RAMP_S):
                    if second in RELOADS_AT_S:
                        os.kill(subject.masters[0], signal.SIGHUP)
                    clients.line()
                clients.lines(SETTLE_S)
                assert set(children(subject.masters[0], 1)) - set(subject.pids), "it has not reloaded"
                upstream.end_agents()
                end = clients.rest(PATIENCE_S)
            self._check(f"{name}, reload", end, upstream)
        return {"harmed": sum(end[key] for key in LOST)}
