"""An OpenTelemetry collector that takes OTLP/HTTP with JSON, and nothing that is not exactly that.

The shape of a body is checked against the descriptors of the protocol's own protobuf messages: names in lowerCamelCase,
64-bit integers as strings, enumerations as numbers, ids in hexadecimal. What every exporter has to keep is checked, too:
ids that are not zero, times in order, buckets that add up, sums that never go down.
"""

import base64
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
ID_BYTES = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
INTEGERS_64 = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
INTEGERS_32 = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_ENUM}
REALS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
CUMULATIVE = 2
STATUS_ERROR = 2


class Malformed(Exception):
    """Why a body is refused."""


def demand(condition: object, reason: str) -> None:
    """Malformed unless it holds."""
    if not condition:
        raise Malformed(reason)


def converted_scalar(known: FieldDescriptor, value: object, where: str) -> object:
    """A value as json_format wants it, checked."""
    if known.type == FieldDescriptor.TYPE_BYTES:
        length = 2 * ID_BYTES[known.json_name]
        demand(isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value), f"{where} is no id: {value!r}")
        demand(value.strip("0"), f"{where} is zero")
        return base64.b64encode(bytes.fromhex(value)).decode()
    kind = known.cpp_type
    if kind in INTEGERS_64:
        demand(isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d*)", value), f"{where} is no integer in a string: {value!r}")
    elif kind in INTEGERS_32:
        demand(type(value) is int, f"{where} is no integer: {value!r}")
    elif kind in REALS:
        demand(type(value) in (int, float), f"{where} is no number: {value!r}")
    elif kind == FieldDescriptor.CPPTYPE_BOOL:
        demand(type(value) is bool, f"{where} is neither true nor false: {value!r}")
    else:
        demand(isinstance(value, str), f"{where} is no string: {value!r}")
    return value


def converted(descriptor: Descriptor, value: object, where: str) -> dict:
    """A message as json_format wants it, each member checked."""
    demand(isinstance(value, dict), f"{where} is no object")
    fields = {known.json_name: known for known in descriptor.fields}
    result = {}
    for name, member in value.items():
        place = f"{where}.{name}"
        demand(name in fields, f"{place} is not known")
        known = fields[name]
        convert = converted_message if known.message_type else converted_scalar
        if known.is_repeated:
            demand(isinstance(member, list), f"{place} is no array")
            result[name] = [convert(known, element, f"{place}[{number}]") for number, element in enumerate(member)]
        else:
            result[name] = convert(known, member, place)
    return result


def converted_message(known: FieldDescriptor, value: object, where: str) -> dict:
    """A member that is a message."""
    return converted(known.message_type, value, where)


def no_repeats(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object whose keys are all different."""
    demand(len(dict(pairs)) == len(pairs), f"a key comes twice in {[name for name, _ in pairs]}")
    return dict(pairs)


def decode(path: str, body: bytes):
    """The message of a body; Malformed says what is wrong with it."""
    try:
        root = json.loads(body, object_pairs_hook=no_repeats)
    except ValueError as reason:
        raise Malformed(str(reason)) from None
    message = MESSAGES[path]()
    json_format.ParseDict(converted(message.DESCRIPTOR, root, "root"), message)
    return message


def plain(attributes) -> dict:
    """Attributes as a dict; each key stands once."""
    found = {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in attributes}
    demand(len(found) == len(attributes) and "" not in found, f"keys of attributes: {[entry.key for entry in attributes]}")
    return found


@dataclass
class Span:
    """What tests look at."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str  # "" without
    kind: int
    flags: int
    state: str
    start: int
    end: int
    attributes: dict
    events: list[tuple[str, dict]]
    status: int
    message: str
    resource: dict

    @property
    def failed(self) -> bool:
        """Whether its status is an error."""
        return self.status == STATUS_ERROR


def checked_span(span, resource: dict) -> Span:
    """A span with its own rules kept."""
    demand(span.trace_id and span.span_id and span.name, "a span lacks its ids or its name")
    demand(0 < span.start_time_unix_nano <= span.end_time_unix_nano, f"times of {span.name} are not in order")
    demand(1 <= span.kind <= 5, f"kind of {span.name}: {span.kind}")
    for event in span.events:
        demand(span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano, f"an event outside {span.name}")
    demand((span.status.code == STATUS_ERROR) == bool(span.status.message), f"status of {span.name}: {span.status}")
    return Span(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind, span.flags,
        span.trace_state, span.start_time_unix_nano, span.end_time_unix_nano, plain(span.attributes),
        [(event.name, plain(event.attributes)) for event in span.events], span.status.code, span.status.message, resource,
    )  # fmt: skip


Series = tuple[str, frozenset]


def points_of(metric) -> list:
    """The points of a metric, with the rules of its kind kept."""
    kind = metric.WhichOneof("data")
    demand(kind in ("sum", "gauge", "histogram") and metric.name and metric.unit and metric.description, f"metric {metric.name!r}")
    points = getattr(metric, kind).data_points
    demand(points, f"{metric.name} has no points")
    if kind != "gauge":
        demand(getattr(metric, kind).aggregation_temporality == CUMULATIVE, f"temporality of {metric.name}")
    for point in points:
        demand(0 < point.start_time_unix_nano <= point.time_unix_nano, f"times of {metric.name} are not in order")
        if kind == "histogram":
            demand(list(point.explicit_bounds) == sorted(set(point.explicit_bounds)), f"bounds of {metric.name}")
            demand(len(point.bucket_counts) == len(point.explicit_bounds) + 1, f"buckets of {metric.name}")
            demand(sum(point.bucket_counts) == point.count, f"count of {metric.name}")
    return list(points)


@dataclass
class Export:
    """The metrics of one request: what each series says."""

    values: dict[Series, float] = field(default_factory=dict)
    resource: dict = field(default_factory=dict)

    def value(self, name: str, **attributes: str) -> float:
        """A series; 0 when it is not there. Of a histogram its count."""
        return self.values.get((name, frozenset(attributes.items())), 0)


class Collector:
    """A running one. Its attributes say how it answers; they may be changed at any time."""

    def __init__(self, port: int = 0):
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: dict = {}
        self.spans: list[Span] = []
        self.exports: list[Export] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, body
        self.violations: list[str] = []
        self._highest: dict[Series, float] = {}
        self._go_on = threading.Event()
        self._go_on.set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = port
        self.come_up()

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is told."""
        return f"http://127.0.0.1:{self.port}"

    def come_up(self) -> None:
        """Listens."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802 - the name is the library's
                """One request."""
                collector._serve(self)

            def log_message(self, *_):
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="otlp-collector", daemon=True).start()

    def go_down(self) -> None:
        """Refuses connections from now on; those it has go on."""
        self._server.shutdown()
        self._server.server_close()

    def stall(self) -> None:
        """Answers nobody from now on."""
        self._go_on.clear()

    def resume(self) -> None:
        """Answers again, also those who wait."""
        self._go_on.set()

    def stop(self) -> None:
        """Ends it."""
        self.resume()
        with suppress(OSError):
            self.go_down()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Reads a request, looks at it, and answers when it may."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        status = self.status
        with self._lock:
            self.requests.append((handler.path, dict(handler.headers), body))
            try:
                self._take(handler, body, keep=status == 200)
            except Malformed as reason:
                self.violations.append(str(reason))
                status = 400
        self._go_on.wait()
        answer = json.dumps(self.answer).encode()
        with suppress(OSError):  # it may have given up
            handler.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(answer)), **self.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(answer)

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes, keep: bool) -> None:
        """Checks a request, and keeps what is in it."""
        demand(handler.path in MESSAGES, f"path {handler.path}")
        demand(handler.headers.get("Content-Type") == "application/json", f"type {handler.headers.get('Content-Type')}")
        message = decode(handler.path, body)
        if handler.path == "/v1/traces":
            spans = [
                checked_span(span, plain(group.resource.attributes))
                for group in message.resource_spans for scope in group.scope_spans for span in scope.spans
            ]  # fmt: skip
            demand(spans, "no spans")
            self.spans += spans if keep else []
        else:
            export = self._checked_export(message)
            self.exports += [export] if keep else []

    def _checked_export(self, message) -> Export:
        """The series of a request: each once, none that counts below what it was."""
        export = Export()
        for group in message.resource_metrics:
            export.resource = plain(group.resource.attributes)
            for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
                for point in points_of(metric):
                    series = (metric.name, frozenset(plain(point.attributes).items()))
                    demand(series not in export.values, f"{series} comes twice")
                    is_histogram = metric.WhichOneof("data") == "histogram"
                    value = point.count if is_histogram else point.as_int or point.as_double
                    export.values[series] = value
                    if is_histogram or metric.sum.is_monotonic:
                        demand(value >= self._highest.get(series, 0), f"{series} went down")
                        self._highest[series] = value
        return export
