"""The scripted model of the demo: what an agent can rely on."""

import http.client
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness.waiting import deadline

FAKE = Path(__file__).resolve().parents[1] / "fake"
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("Bash", "Write", "Read")]
STEPS_MAX = 20
ANSWER_SECONDS = 30
PROMPTS = {
    "Scrape the top 50 YC companies and save as CSV": "companies.csv",
    "Analyze Python dependency security for requests==2.31.0": "report.json",
    "Fetch today's arxiv papers on LLM agents and write a summary": "summary.md",
    "Build a SQLite DB of US national parks from NPS.gov": "parks.db",
}


@pytest.fixture(scope="module")
def model():
    """A client of a running model."""
    process = subprocess.Popen([sys.executable, FAKE / "model.py"], stdout=subprocess.PIPE, text=True)
    with process, httpx.Client(base_url=process.stdout.readline().strip(), timeout=deadline(ANSWER_SECONDS)) as client:
        yield client
        process.terminate()


def user(*texts: str) -> dict:
    """A message of the user, one block a text."""
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def results_for(answer: dict, output: str) -> dict:
    """The message that returns one output for each tool call of an answer."""
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": output} for call in calls],
    }


def ask(model: httpx.Client, messages: list[dict], **more) -> dict:
    """One plain answer."""
    request = {"model": "m", "max_tokens": 100, "tools": TOOLS, "messages": messages} | more
    return model.post("/v1/messages", json=request).raise_for_status().json()


def play(model: httpx.Client, prompt: str, output: str = "it worked") -> list[dict]:
    """The answers of a whole conversation, in which every tool call gives the same output."""
    messages, answers = [user(prompt)], []
    while len(answers) < STEPS_MAX:
        answers.append(ask(model, messages))
        if answers[-1]["stop_reason"] == "end_turn":
            return answers
        messages += [{"role": "assistant", "content": answers[-1]["content"]}, results_for(answers[-1], output)]
    raise AssertionError("the script does not end")


def texts(answer: dict) -> str:
    """The text of an answer."""
    return "".join(block["text"] for block in answer["content"] if block["type"] == "text")


def calls(answers: list[dict]) -> list[dict]:
    """Every tool call of a conversation."""
    return [block for answer in answers for block in answer["content"] if block["type"] == "tool_use"]


def without_ids(answer: dict) -> list[dict]:
    """The content of an answer, without what is drawn anew each time."""
    return [{key: value for key, value in block.items() if key != "id"} for block in answer["content"]]


def reassemble(stream: httpx.Response) -> dict:
    """The message that a stream of events adds up to."""
    message, arguments = None, {}
    for line in stream.text.splitlines():
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                message["content"][event["index"]]["text"] += event["delta"]["text"]
            case "content_block_delta":
                arguments[event["index"]] = arguments.get(event["index"], "") + event["delta"]["partial_json"]
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return message


@pytest.mark.parametrize("prompt", PROMPTS)
def test_known_prompt_uses_tools_and_says_its_data_is_a_sample(model, prompt):
    answers = play(model, prompt)
    assert {call["name"] for call in calls(answers)} >= {"Bash", "Write"}
    assert len(answers) >= 4
    assert PROMPTS[prompt] in json.dumps(answers)
    assert "sample" in texts(answers[-1]).lower()


def test_final_text_quotes_what_the_tools_really_returned(model):
    assert "4711 rows" in texts(play(model, list(PROMPTS)[0], "4711 rows")[-1])


def test_unknown_prompt_runs_one_command(model):
    answers = play(model, "What is the weather?", "hello from here")
    assert [call["name"] for call in calls(answers)] == ["Bash"]
    assert "hello from here" in texts(answers[-1])


def test_prompt_carries_its_own_script(model):
    steps = [
        {"text": "both", "calls": [["Bash", {"command": "a"}], ["Read", {"file_path": "/b"}]]},
        {"calls": [["Bash", {"command": "c"}]]},
        {"text": "end: {last_result}"},
    ]
    answers = play(model, f"Please. sandstorm-script: {json.dumps(steps)} Thanks.", "out")
    assert [len(calls([answer])) for answer in answers] == [2, 1, 0]
    assert [call["input"] for call in calls(answers)] == [{"command": "a"}, {"file_path": "/b"}, {"command": "c"}]
    assert texts(answers[-1]) == "end: out"


@pytest.mark.parametrize("script", ["[{", "7", "[1]", '[{"unknown": 1}]', '[{"calls": 3}]', ""])
def test_script_that_cannot_be_read_is_said_so(model, script):
    answers = play(model, f"sandstorm-script: {script}")
    assert len(answers) == 1
    assert "cannot be read" in texts(answers[0])


def test_it_is_stateless(model):
    """The same request gives the same answer, whatever is asked in between or at the same time."""
    first = {prompt: without_ids(ask(model, [user(prompt)])) for prompt in PROMPTS}
    with ThreadPoolExecutor(16) as pool:
        again = list(pool.map(lambda prompt: (prompt, without_ids(ask(model, [user(prompt)]))), list(PROMPTS) * 8))
    assert all(answer == first[prompt] for prompt, answer in again)


def test_next_prompt_of_a_session_starts_its_own_script(model):
    old = play(model, list(PROMPTS)[0])
    messages = [user(list(PROMPTS)[0])]
    for answer in old[:-1]:
        messages += [{"role": "assistant", "content": answer["content"]}, results_for(answer, "x")]
    messages += [{"role": "assistant", "content": old[-1]["content"]}, user(list(PROMPTS)[3])]
    assert without_ids(ask(model, messages)) == without_ids(ask(model, [user(list(PROMPTS)[3])]))


def test_reminders_of_the_agent_are_no_prompt(model):
    reminder = "<system-reminder>arxiv papers, YC companies</system-reminder>"
    prompt = list(PROMPTS)[3]
    plain = without_ids(ask(model, [user(prompt)]))
    assert without_ids(ask(model, [user(reminder, prompt)])) == plain
    assert without_ids(ask(model, [user(prompt), user(reminder)])) == plain
    assert without_ids(ask(model, [{"role": "user", "content": prompt}])) == plain


@pytest.mark.parametrize("prompt", [*PROMPTS, "anything"])
def test_stream_adds_up_to_the_plain_answer(model, prompt):
    request = {"model": "m", "tools": TOOLS, "messages": [user(prompt)]}
    stream = model.post("/v1/messages?beta=true", json=request | {"stream": True})
    assert stream.headers["content-type"] == "text/event-stream"
    streamed, plain = reassemble(stream), ask(model, request["messages"])
    assert without_ids(streamed) == without_ids(plain)
    assert streamed["stop_reason"] == plain["stop_reason"] == "tool_use"
    assert streamed["usage"] == plain["usage"]
    assert plain["usage"]["output_tokens"] > 1


def test_request_without_tools_is_a_side_call(model):
    answer = ask(model, [user(list(PROMPTS)[0])], tools=[])
    assert answer["stop_reason"] == "end_turn"
    assert texts(answer)


FAILURES = [(401, "authentication_error"), (529, "overloaded_error"), (500, "api_error")]


@pytest.mark.parametrize(("status", "kind"), FAILURES)
def test_script_can_make_the_model_fail(model, status, kind):
    request = {"tools": TOOLS, "messages": [user(f'sandstorm-script: [{{"status": {status}}}]')]}
    answer = model.post("/v1/messages", json=request)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind


def test_other_paths_of_the_api(model):
    assert model.head("/").status_code == 200
    assert model.get("/v1/models").json()["data"][0]["type"] == "model"
    assert model.post("/v1/messages/count_tokens", json={"messages": [user("hello")]}).json()["input_tokens"] > 0
    assert model.get("/v1/nothing").status_code == 404
    assert model.post("/v1/nothing", json={}).json()["error"]["type"] == "not_found_error"


def test_malformed_requests_are_refused(model):
    assert model.post("/v1/messages", content=b"{").status_code == 400
    assert model.post("/v1/messages", content=b"[]").status_code == 400
    assert model.post("/v1/messages", content=iter([b"{}"])).status_code == 400


@pytest.mark.parametrize("length", [-1, 1 << 40])
def test_body_out_of_bounds_is_refused_before_it_is_read(model, length):
    connection = http.client.HTTPConnection("127.0.0.1", model.base_url.port, timeout=deadline(ANSWER_SECONDS))
    connection.putrequest("POST", "/v1/messages")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_it_listens_on_loopback_only(model):
    address = f"{model.base_url.port:04X}"
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [fields[1] for fields in listening if fields[1].endswith(f":{address}") and fields[3] == "0A"] == [
        f"0100007F:{address}"
    ]


def test_busy_port_is_an_error_that_names_it(model):
    port = str(model.base_url.port)
    argv = [sys.executable, FAKE / "model.py", "--port", port]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=deadline(ANSWER_SECONDS))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
