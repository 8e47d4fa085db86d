"""What POST /query takes and what it answers to the rest, rule by rule (http-api.md 3.1 to 3.6).

Each case is named after its rule. A refusal is compared as text, byte by byte; what is accepted is looked up in the
sandbox it led to. All cases share one server, and no value of a caller may stand in its log.
"""

import json
import time

import httpx
import pytest
from harness.rules import as_json, by_rule, check_json
from harness.running import running_double, running_servers
from harness.waiting import deadline

AGENT_CONFIG = "/opt/agent-runner/agent_config.json"
MARK = "Zq7marker"  # in every value that must not come back


@pytest.fixture(scope="module")
def service():
    """The double all cases share."""
    with running_double() as double:
        yield double


@pytest.fixture(scope="module")
def server(service, tmp_path_factory):
    """The server all cases share. Its log holds nothing of what callers sent."""
    with running_servers(service, tmp_path_factory.mktemp("contract")) as start:
        running = start()
        yield running
        assert MARK not in running.stderr


@pytest.fixture(scope="module")
def http():
    """The client all cases share."""
    with httpx.Client(timeout=deadline(60), trust_env=False) as client:
        yield client


def post(http, server, body: bytes | dict) -> httpx.Response:
    """POST /query; a dict is given a prompt, unless it has one, and becomes JSON."""
    content = body if isinstance(body, bytes) else as_json({"prompt": "p"} | body).encode()
    return http.post(f"{server.url}/query", content=content)


def body(member: str) -> bytes:
    """A body with one more member, as JSON text: for what Python would not write."""
    return b'{"prompt":"p",' + member.encode() + b"}"


# --- the shapes of errors -------------------------------------------------------------------------


def error(kind: str, loc: list, msg: str, ctx: dict | None = None) -> dict:
    """One entry of `detail`."""
    entry = {"type": kind, "loc": ["body", *loc], "msg": msg}
    return entry if ctx is None else entry | {"ctx": ctx}


def string_type(*loc):
    return error("string_type", list(loc), "Input should be a valid string")


def too_short(field):
    return error("string_too_short", [field], "String should have at least 1 character", {"min_length": 1})


def int_type(field):
    return error("int_type", [field], "Input should be a valid integer")


def int_parsing(field):
    text = "Input should be a valid integer, unable to parse string as an integer"
    return error("int_parsing", [field], text)


def int_from_float(field):
    return error("int_from_float", [field], "Input should be a valid integer, got a number with a fractional part")


def at_least(field, limit):
    shown = int(limit)
    return error("greater_than_equal", [field], f"Input should be greater than or equal to {shown}", {"ge": limit})


def at_most(field, limit):
    return error("less_than_equal", [field], f"Input should be less than or equal to {limit}", {"le": limit})


def bool_parsing(field):
    return error("bool_parsing", [field], "Input should be a valid boolean, unable to interpret input")


def bool_type(field):
    return error("bool_type", [field], "Input should be a valid boolean")


def float_parsing(field):
    return error("float_parsing", [field], "Input should be a valid number, unable to parse string as a number")


def float_type(field):
    return error("float_type", [field], "Input should be a valid number")


def not_finite(field):
    return error("finite_number", [field], "Input should be a finite number")


def list_type(field):
    return error("list_type", [field], "Input should be a valid list")


def dict_type(*loc):
    return error("dict_type", list(loc), "Input should be a valid dictionary")


def value_error(field, text):
    return error("value_error", [field], f"Value error, {text}", {"error": {}})


MISSING_PROMPT = error("missing", ["prompt"], "Field required")
NO_BODY = error("missing", [], "Field required")
NO_OBJECT = error(
    "model_attributes_type", [], "Input should be a valid dictionary or object to extract fields from"
)
TEXTS = ["resume", "team_id", "user_id", "channel_id", "remember"]
KEYS = ["anthropic_api_key", "e2b_api_key", "openrouter_api_key"]
LISTS = ["allowed_mcp_servers", "allowed_skills", "allowed_tools", "allowed_agents"]
DEEPEST = 400

# --- refused: 422 ---------------------------------------------------------------------------------

REFUSED = {
    "3.6 missing: empty body": (b"", [NO_BODY]),
    "3.6 missing: null body": (b" null ", [NO_BODY]),
    "3.6 model_attributes_type: array": (b"[]", [NO_OBJECT]),
    "3.6 model_attributes_type: string": (b'"p"', [NO_OBJECT]),
    "3.6 model_attributes_type: number": (b"1e999", [NO_OBJECT]),
    "3.6 model_attributes_type: boolean": (b"true", [NO_OBJECT]),
    "3.2 prompt: absent": (b"{}", [MISSING_PROMPT]),
    "3.2 prompt: null": ({"prompt": None}, [string_type("prompt")]),
    "3.2 prompt: number": ({"prompt": 1}, [string_type("prompt")]),
    "3.2 prompt: array": ({"prompt": [MARK]}, [string_type("prompt")]),
    "3.2 prompt: empty": ({"prompt": ""}, [too_short("prompt")]),
    "3.2 prompt: 1,000,001 code points": (
        {"prompt": "ä" * 1_000_001},
        [error("string_too_long", ["prompt"], "String should have at most 1000000 characters",
               {"max_length": 1000000})],
    ),
    "3.2 model: empty": ({"model": ""}, [too_short("model")]),
    "3.2 model: number": ({"model": 4}, [string_type("model")]),
    "3.3 string is never coerced: true": ({"model": True}, [string_type("model")]),
    **{f"3.2 {key}: a space": ({key: f"{MARK} x"}, [value_error(key, f"{key} contains invalid characters")])
       for key in KEYS},
    **{f"3.2 {key}: a letter beyond ASCII": ({key: MARK + "ä"}, [value_error(key, f"{key} contains invalid characters")])
       for key in KEYS},
    "3.2 e2b_api_key: DEL": ({"e2b_api_key": MARK + "\x7f"},
                             [value_error("e2b_api_key", "e2b_api_key contains invalid characters")]),
    "3.2 e2b_api_key: NUL": ({"e2b_api_key": MARK + "\0"},
                             [value_error("e2b_api_key", "e2b_api_key contains invalid characters")]),
    "3.2 e2b_api_key: 4097 bytes": ({"e2b_api_key": MARK + "k" * (4097 - len(MARK))},
                                    [value_error("e2b_api_key", "e2b_api_key contains invalid characters")]),
    **{f"3.2 {key}: number": ({key: 7}, [string_type(key)]) for key in KEYS},
    **{f"3.2 {name}: number": ({name: 7}, [string_type(name)]) for name in TEXTS},
    **{f"3.2 {name}: object": ({name: {MARK: 1}}, [string_type(name)]) for name in TEXTS},
    "3.2 max_turns: 0": ({"max_turns": 0}, [at_least("max_turns", 1)]),
    "3.2 max_turns: negative": ({"max_turns": -5}, [at_least("max_turns", 1)]),
    "3.3 max_turns: 2^53": ({"max_turns": 2**53}, [at_most("max_turns", 2**53 - 1)]),
    "3.3 max_turns: 1e400": (body('"max_turns":1e400'), [at_most("max_turns", 2**53 - 1)]),
    "3.2 timeout: 4": ({"timeout": 4}, [at_least("timeout", 5)]),
    "3.2 timeout: 3601": ({"timeout": 3601}, [at_most("timeout", 3600)]),
    "3.3 int: 23 digits": (body('"timeout":99999999999999999999999'), [at_most("timeout", 3600)]),
    "3.3 int: 23 digits in a string": ({"timeout": "99999999999999999999999"}, [at_most("timeout", 3600)]),
    "3.3 int: 5000 digits": (body('"timeout":' + "9" * 5000), [at_most("timeout", 3600)]),
    "3.3 int: minus 23 digits": (body('"timeout":-99999999999999999999999'), [at_least("timeout", 5)]),
    "3.3 int: 1e999": (body('"timeout":1e999'), [at_most("timeout", 3600)]),
    "3.3 int: 3600 and a bit": (body('"timeout":3600.0000000000000000000001'), [int_from_float("timeout")]),
    "3.3 int: a fraction": ({"timeout": 60.5}, [int_from_float("timeout")]),
    "3.3 int: a tiny number": (body('"timeout":1e-999'), [int_from_float("timeout")]),
    "3.3 int: false is 0": ({"timeout": False}, [at_least("timeout", 5)]),
    "3.3 int: -0 is 0": (body('"timeout":-0'), [at_least("timeout", 5)]),
    "3.3 int: a fraction in a string": ({"timeout": "60.5"}, [int_parsing("timeout")]),
    "3.3 int: an empty string": ({"timeout": ""}, [int_parsing("timeout")]),
    "3.3 int: blanks": ({"timeout": "  "}, [int_parsing("timeout")]),
    "3.3 int: a word": ({"timeout": MARK}, [int_parsing("timeout")]),
    "3.3 int: _ doubled": ({"timeout": "6__0"}, [int_parsing("timeout")]),
    "3.3 int: _ first": ({"timeout": "_60"}, [int_parsing("timeout")]),
    "3.3 int: _ last": ({"timeout": "60_"}, [int_parsing("timeout")]),
    "3.3 int: a blank inside": ({"timeout": "6 0"}, [int_parsing("timeout")]),
    "3.3 int: two signs": ({"timeout": "+-60"}, [int_parsing("timeout")]),
    "3.3 int: a point without a fraction": ({"timeout": "60."}, [int_parsing("timeout")]),
    "3.3 int: a point without a whole": ({"max_turns": ".0"}, [int_parsing("max_turns")]),
    "3.3 int: a zero-width blank": ({"timeout": "60\u200b"}, [int_parsing("timeout")]),
    "3.3 int: hexadecimal": ({"timeout": "0x3c"}, [int_parsing("timeout")]),
    "3.3 int: a NUL behind it": ({"timeout": "60\0"}, [int_parsing("timeout")]),
    "3.3 int: array": ({"timeout": [60]}, [int_type("timeout")]),
    "3.3 int: object": ({"timeout": {}}, [int_type("timeout")]),
    "3.3 bool: 2": ({"fork_session": 2}, [bool_parsing("fork_session")]),
    "3.3 bool: -1": ({"fork_session": -1}, [bool_parsing("fork_session")]),
    "3.3 bool: beyond 64 bits": (body('"fork_session":12345678901234567890'), [bool_type("fork_session")]),
    "3.3 bool: a fraction": ({"fork_session": 0.5}, [bool_type("fork_session")]),
    "3.3 bool: blanks around a word": ({"fork_session": " on"}, [bool_parsing("fork_session")]),
    "3.3 bool: a word": ({"fork_session": MARK}, [bool_parsing("fork_session")]),
    "3.3 bool: an empty string": ({"fork_session": ""}, [bool_parsing("fork_session")]),
    "3.3 bool: array": ({"fork_session": []}, [bool_type("fork_session")]),
    "3.3 bool: object": ({"fork_session": {}}, [bool_type("fork_session")]),
    "3.2 max_budget_usd: negative": ({"max_budget_usd": -0.01}, [at_least("max_budget_usd", 0.0)]),
    "3.3 number: 1e999": (body('"max_budget_usd":1e999'), [not_finite("max_budget_usd")]),
    "3.3 number: -1e999": (body('"max_budget_usd":-1e999'), [not_finite("max_budget_usd")]),
    "3.3 number: inf": ({"max_budget_usd": "inf"}, [not_finite("max_budget_usd")]),
    "3.3 number: -Infinity": ({"max_budget_usd": "-Infinity"}, [not_finite("max_budget_usd")]),
    "3.3 number: nan": ({"max_budget_usd": "nan"}, [not_finite("max_budget_usd")]),
    "3.3 number: a word": ({"max_budget_usd": MARK}, [float_parsing("max_budget_usd")]),
    "3.3 number: an empty string": ({"max_budget_usd": ""}, [float_parsing("max_budget_usd")]),
    "3.3 number: array": ({"max_budget_usd": []}, [float_type("max_budget_usd")]),
    "3.2 output_format: array": ({"output_format": []}, [dict_type("output_format")]),
    "3.2 output_format: string": ({"output_format": "{}"}, [dict_type("output_format")]),
    **{f"3.2 {name}: object": ({name: {}}, [list_type(name)]) for name in LISTS},
    **{f"3.2 {name}: string": ({name: MARK}, [list_type(name)]) for name in LISTS},
    "3.6 element of a list": ({"allowed_tools": ["a", 1, "b", None]},
                              [string_type("allowed_tools", 1), string_type("allowed_tools", 3)]),
    "3.2 files: array": ({"files": []}, [dict_type("files")]),
    "3.6 element of files": ({"files": {"a": 1, "b": "", "c": None}},
                             [string_type("files", "a"), string_type("files", "c")]),
    "3.2 extra_agents: array": ({"extra_agents": []}, [dict_type("extra_agents")]),
    "3.6 element of extra_agents": ({"extra_agents": {"a": "x", "b": {}}}, [dict_type("extra_agents", "a")]),
    "3.2 extra_skills: string": ({"extra_skills": MARK}, [dict_type("extra_skills")]),
    "3.6 element of extra_skills": ({"extra_skills": {"a": {}}}, [string_type("extra_skills", "a")]),
    **{f"3.2 name of an agent: {name!r}": (
        {"extra_agents": {"good": {}, name: {}, "b d": {}}},
        [value_error("extra_agents", f"Invalid agent name '{name}': must match [a-zA-Z0-9_-]+")])
       for name in ("", "a b", "a\n", "a/b", "ä", "a\0")},
    "3.6 a bad name is cut to 100 code points": (
        {"extra_skills": {"ä" * 300: ""}},
        [value_error("extra_skills", f"Invalid skill name '{'ä' * 100}': must match [a-zA-Z0-9_-]+")]),
    "3.2 name of a skill: a dot": ({"extra_skills": {"a.b": ""}},
                                   [value_error("extra_skills", "Invalid skill name 'a.b': must match [a-zA-Z0-9_-]+")]),
    "3.4 files: 21 entries": ({"files": {f"/{i}": "" for i in range(21)}},
                              [value_error("files", "Too many files: 21 (max 20)")]),
    "3.4 files: 10,000,001 bytes": (
        {"files": {"/a": "ä" * 5_000_000, "b": "x"}},
        [value_error("files", "Total file size 10,000,001 bytes exceeds 10MB limit")]),
    **{f"3.4 files: absolute: {path!r}": ({"files": {path: MARK}},
                                          [value_error("files", f"Absolute paths are not allowed: {path}")])
       for path in ("/etc/passwd", "\\server", "C:\\x", "c:/x", "/", "/a\0b")},
    "3.4 files: NUL": ({"files": {"a\0b": MARK}}, [value_error("files", "Invalid file path: a\0b")]),
    "3.4 files: NUL before traversal": ({"files": {"../\0": MARK}}, [value_error("files", "Invalid file path: ../\0")]),
    **{f"3.4 files: traversal: {path!r}": ({"files": {path: MARK}},
                                           [value_error("files", f"Path traversal not allowed: {path}")])
       for path in ("..", "../a", "a/../../b", "", ".", "./", "a/..", "a//../..")},
    "3.4 files: the first violation": ({"files": {"good": "", "../x": "", "/y": ""}},
                                       [value_error("files", "Path traversal not allowed: ../x")]),
    "3.4 files: a path is cut to 200 code points": (
        {"files": {"/" + "ä" * 300: ""}}, [value_error("files", "Absolute paths are not allowed: /" + "ä" * 199)]),
    "3.6 field order": (
        {"extra_skills": 1, "files": {"/x": ""}, "timeout": 4, "model": 5, "prompt": 6, "fork_session": [], "e2b_api_key": 1,
         "allowed_tools": 1, "allowed_skills": [1], "max_budget_usd": {}, "max_turns": "x"},
        [string_type("prompt"), string_type("e2b_api_key"), string_type("model"), int_parsing("max_turns"),
         at_least("timeout", 5), value_error("files", "Absolute paths are not allowed: /x"),
         string_type("allowed_skills", 0), list_type("allowed_tools"), bool_type("fork_session"),
         float_type("max_budget_usd"), dict_type("extra_skills")]),
    "3.1 of a repeated key the last wins": (b'{"prompt":"p","timeout":60,"timeout":1}', [at_least("timeout", 5)]),
    "3.1 of a repeated key the last wins: spelled with an escape": (
        b'{"prompt":"p","t\\u0069meout":1}', [at_least("timeout", 5)]),
    "3.1 of a repeated key the last wins: in files": (
        b'{"prompt":"p","files":{"a":"x","a":1}}', [string_type("files", "a")]),
}  # fmt: skip

# Text that is not JSON, and the byte at which that shows.
NOT_JSON = {
    "blanks": (b"  ", 2),
    "cut short": (b'{"prompt":"p"', 13),
    "a trailing comma in an object": (b'{"prompt":"p",}', 14),
    "a trailing comma in an array": (b'{"prompt":"p","x":[1,]}', 21),
    "single quotes": (b"{'prompt':'p'}", 1),
    "NaN": (b'{"prompt":"p","x":NaN}', 18),
    "Infinity": (b'{"prompt":"p","x":Infinity}', 18),
    "-Infinity": (b'{"prompt":"p","x":-Infinity}', 19),
    "a control character in a string": (b'{"prompt":"a\nb"}', 12),
    "a tab in a string": (b'{"prompt":"a\tb"}', 12),
    "text after the value": (b'{"prompt":"p"} x', 15),
    "two values": (b'{"prompt":"p"}{}', 14),
    "a lone high surrogate": (b'{"prompt":"\\ud800"}', 12),
    "a lone low surrogate": (b'{"prompt":"\\udc00"}', 12),
    "a surrogate pair in the wrong order": (b'{"prompt":"\\udc00\\ud800"}', 12),
    "a lone surrogate in an unknown key": (b'{"prompt":"p","\\ud800":1}', 16),
    "a leading zero": (b'{"prompt":"p","timeout":060}', 25),
    "a plus": (b'{"prompt":"p","timeout":+60}', 24),
    "a number without digits behind its point": (b'{"prompt":"p","timeout":60.}', 27),
    "an unknown escape": (b'{"prompt":"\\x41"}', 12),
    "a key without quotes": (b'{prompt:"p"}', 1),
    "no colon": (b'{"prompt" "p"}', 10),
    "NUL": (b'{"prompt":"p"}\0', 14),
    "a comment": (b'{"prompt":"p"/* c */}', 13),
    "behind a BOM": (b"\xef\xbb\xbf{", 4),
}

# Text that is refused before it is looked at as JSON.
BAD_TEXT = {
    "3.1 a byte that is not UTF-8": b'{"prompt":"\xff"}',
    "3.1 an overlong form": b'{"prompt":"\xc0\x80"}',
    "3.1 a surrogate in UTF-8": b'{"prompt":"\xed\xa0\x80"}',
    "3.1 a sequence that is cut": b'{"prompt":"p"}\xe2\x82',
    "3.1 401 levels": b'{"prompt":"p","x":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}",
    "3.1 401 levels that are not closed": b"[" * (DEEPEST + 1),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_refused(http, server, service, rule):
    sent, errors = REFUSED[rule]
    service.wait(lambda ledger: not ledger.alive(), 10, "the deletions of runs before")
    before = len(service.ledger.of_runs())
    answer = post(http, server, sent)
    check_json(answer, 422, {"detail": errors})
    assert MARK not in answer.text
    assert len(service.ledger.of_runs()) == before, "a refused request reached the sandbox service"


def test_an_answer_tells_of_a_thousand_faults_at_most(http, server):
    """3.6: a body can hold millions."""
    started = time.monotonic()
    answer = post(http, server, b'{"prompt":"p","allowed_tools":[' + b"1," * 4_000_000 + b"1]}")
    check_json(answer, 422, {"detail": [string_type("allowed_tools", index) for index in range(1000)]})
    assert time.monotonic() - started < deadline(5)


@by_rule("what", "3.1 json_invalid:", NOT_JSON)
def test_not_json(http, server, what):
    """3.1, 3.6 json_invalid."""
    sent, offset = NOT_JSON[what]
    answer = post(http, server, sent)
    reason = answer.json()["detail"][0]["ctx"]["error"]
    assert reason and "\n" not in reason
    wanted = error("json_invalid", [offset], "JSON decode error", {"error": reason})
    check_json(answer, 422, {"detail": [wanted]})


@pytest.mark.parametrize("rule", BAD_TEXT)
def test_bad_text(http, server, rule):
    answer = post(http, server, BAD_TEXT[rule])
    check_json(answer, 400, {"detail": "There was an error parsing the body"})


# --- accepted -------------------------------------------------------------------------------------

BIG = "123456789012345678901234567890.10"
TREE = '{"z":1.50,"a":[1E2,-0,' + BIG + '],"n":{"k":1e999}}'

# agent_config.json of a run that asks for nothing: its 14 keys in their order, and their values as JSON text.
PLAIN = {
    "prompt": '"p"', "cwd": '"/home/user"', "model": "null", "max_turns": "null", "system_prompt": "null",
    "output_format": "null", "agents": "null", "mcp_servers": "null", "has_skills": "false", "allowed_tools": "null",
    "timeout": "300", "resume": "null", "fork_session": "null", "max_budget_usd": "null",
}  # fmt: skip

# A member of the body, as JSON text, and the one member of agent_config.json that differs from PLAIN, as JSON text.
ACCEPTED = {
    **{f"3.3 int: {text}": (f'"timeout":{text}', '"timeout":60,')
       for text in ("60", "60.0", "6e1", "600e-1", '"60"', '" 60 "', '"+60"', '"6_0"', '"60.0"', '"060"', '"\\t60\\n"',
                    '"6e1"', '"\\u0036\\u0030"', '"\\u00a0\\u200360\\u3000\\u0085"')},
    "3.2 timeout: 5": ('"timeout":5', '"timeout":5,'),
    "3.2 timeout: null": ('"timeout":null', '"timeout":300,'),
    "3.2 timeout: absent": ('"x":0', '"timeout":300,'),
    "3.3 max_turns: true is 1": ('"max_turns":true', '"max_turns":1,'),
    "3.3 max_turns: 2^53-1": ('"max_turns":9007199254740991', '"max_turns":9007199254740991,'),
    "3.2 max_turns: null": ('"max_turns":null', '"max_turns":null,'),
    **{f"3.3 bool: {text} is true": (f'"fork_session":{text}', '"fork_session":true,')
       for text in ("true", "1", "1.0", '"1"', '"t"', '"True"', '"y"', '"YES"', '"on"')},
    **{f"3.3 bool: {text} is false": (f'"fork_session":{text}', '"fork_session":false,')
       for text in ("false", "0", "0.0", "-0", '"0"', '"F"', '"false"', '"N"', '"no"', '"OFF"')},
    "3.2 fork_session: null": ('"fork_session":null', '"fork_session":null,'),
    **{f"3.3 number: {text}": (f'"max_budget_usd":{text}', '"max_budget_usd":1.5}')
       for text in ("1.5", '"1.5"', '" 1.5 "', "15e-1", "1.50", '"+1.5e0"', '"\\u20281.5"')},
    **{f"3.3 number: {text}": (f'"max_budget_usd":{text}', f'"max_budget_usd":{number}}}')
       for text, number in (('".5"', "0.5"), ('"5."', "5"), ('"1_0"', "10"), ('"1e2"', "100"))},
    "3.3 number: 0": ('"max_budget_usd":0', '"max_budget_usd":0}'),
    "3.3 number: a tiny one": ('"max_budget_usd":1e-999', '"max_budget_usd":0}'),
    "3.3 number: true is 1": ('"max_budget_usd":true', '"max_budget_usd":1}'),
    "3.3 number: 0.1 stays 0.1": ('"max_budget_usd":0.1', '"max_budget_usd":0.1}'),
    "3.2 max_budget_usd: null": ('"max_budget_usd":null', '"max_budget_usd":null}'),
    "3.2 model": ('"model":"m \\u00e4 \\"x\\""', '"model":"m ä \\"x\\"",'),
    "3.2 model: null": ('"model":null', '"model":null,'),
    "3.2 resume": ('"resume":""', '"resume":"",'),
    "3.1 output_format keeps order and spelling": (f'"output_format":{TREE}', f'"output_format":{TREE},'),
    "3.1 blanks in output_format go": ('"output_format": { "a" : [ 1 , 2 ] }', '"output_format":{"a":[1,2]},'),
    "3.2 output_format: {} is off": ('"output_format":{}', '"output_format":null,'),
    "3.1 extra_agents keep order and spelling": (
        f'"extra_agents":{{"b":{TREE},"a":{{}}}}', f'"agents":{{"b":{TREE},"a":{{}}}},'),
    "3.2 allowed_tools: []": ('"allowed_tools":[]', '"allowed_tools":[],'),
    "3.2 allowed_tools unchanged": ('"allowed_tools":["Read","Read"," "]', '"allowed_tools":["Read","Read"," "],'),
    "3.2 allowed_tools: null": ('"allowed_tools":null', '"allowed_tools":null,'),
    "3.2 empty key is absent": ('"e2b_api_key":"","anthropic_api_key":"","openrouter_api_key":""', '"model":null,'),
    "3.1 unknown keys are ignored": ('"temperature":1e999,"x":{"y":[null]}', '"model":null,'),
    "3.1 400 levels": ('"x":' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1), '"model":null,'),
    "3.1 of a repeated key the last wins": ('"model":7,"model":"m"', '"model":"m",'),
    "3.2 prompt: NUL survives": ('"prompt":"a\\u0000b"', '{"prompt":"a\\u0000b",'),
    "3.2 prompt: blanks alone": ('"prompt":" \\n"', '{"prompt":" \\n",'),
    "3.2 prompt: escapes become UTF-8": ('"prompt":"\\u00e4\\ud83d\\ude00\\/"', '{"prompt":"ä😀/",'),
    "3.2 prompt: 1,000,000 code points": ('"prompt":"' + "ä" * 1_000_000 + '"', '{"prompt":"' + "ä" * 1_000_000 + '",'),
    "3.2 team_id, user_id, channel_id": ('"team_id":"t","user_id":"u","channel_id":""', '"model":null,'),
}  # fmt: skip


def run(http, server, service, content: bytes):
    """An accepted request: the sandbox it led to and the events of its stream."""
    answer = http.post(f"{server.url}/query", content=content)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    return service.ledger.sandbox_of(answer.headers["X-Sandstorm-Run-Id"]), events


@pytest.mark.parametrize("rule", ACCEPTED)
def test_accepted(http, server, service, rule):
    member, holds = ACCEPTED[rule]
    sandbox, events = run(http, server, service, body(member))
    config = sandbox.files[AGENT_CONFIG]
    key, value = holds.removeprefix("{")[:-1].split(":", 1)
    wanted = PLAIN | {json.loads(key): value}
    assert "{" + ",".join(f'"{key}":{value}' for key, value in wanted.items()) + "}" == (
        config.decode() if isinstance(config, bytes) else config
    )
    assert [event["type"] for event in events if event["type"] in ("warning", "error")] == []


def test_a_leading_bom_is_skipped(http, server, service):
    """3.1."""
    sandbox, _ = run(http, server, service, b"\xef\xbb\xbf" + body('"model":"m"'))
    assert json.loads(sandbox.files[AGENT_CONFIG])["model"] == "m"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json"])
def test_the_content_type_is_not_looked_at(http, server, content_type):
    """3.1."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = http.post(f"{server.url}/query", content=body('"model":"m"'), headers=headers)
    assert answer.status_code == 200


PATHS = {
    "a//b": "a/b", "c/": "c", "./d": "d", "e/./f": "e/f", "g/../h": "h", "i/j/../..//k": "k", "..foo": "..foo", "...": "...",
    "l\\m": "l\\m", "n\no": "n\no", 'with "quotes" and spaces': 'with "quotes" and spaces', "ä/ö": "ä/ö", "C:": "C:",
    ".hidden": ".hidden",
}  # fmt: skip


def test_paths_of_files_are_normalised(http, server, service):
    """3.4: the normalised path is what the sandbox sees; of keys that normalise alike the last wins."""
    files = {path: f"content of {path}" for path in PATHS} | {"x/y": "first", "x//y": "last"}
    sandbox, _ = run(http, server, service, json.dumps({"prompt": "p", "files": files}).encode())
    for path, placed in PATHS.items():
        found = sandbox.files[f"/home/user/{placed}"]
        assert (found.decode() if isinstance(found, bytes) else found) == f"content of {path}"
    found = sandbox.files["/home/user/x/y"]
    assert (found.decode() if isinstance(found, bytes) else found) == "last"


def test_remember_is_ignored_with_a_warning(http, server, service):
    """3.2 remember, 5.6."""
    sandbox, events = run(http, server, service, body('"remember":"me"'))
    (warning,) = [event for event in events if event["type"] == "warning"]
    assert list(warning) == ["type", "message", "request_id", "code"]
    assert (warning["code"], warning["request_id"]) == ("remember_ignored", sandbox.run_id)
    assert not [event for event in run(http, server, service, body('"remember":""'))[1] if event["type"] == "warning"]


def test_a_timeout_over_the_cap_is_lowered_with_a_warning(http, server, service):
    """6.1."""
    sandbox, events = run(http, server, service, body('"timeout":3600'))
    (warning,) = [event for event in events if event["type"] == "warning"]
    assert warning["code"] == "timeout_capped" and "3600" in warning["message"] and "600" in warning["message"]
    assert json.loads(sandbox.files[AGENT_CONFIG])["timeout"] == 600
    assert sandbox.ttl == 660
