"""What a run is made of: credentials, provider, project, skills (http-api.md 3.5, 6.6 to 6.8, 15).

One server without a key of its own serves all cases: each writes the `.env` and the sandstorm.json it needs, and these
count for the very next request. So that is tested here too.
"""

import json
import shutil
import time

import httpx
import pytest
from harness.rules import by_rule, check_json
from harness.running import running_double, running_servers
from harness.waiting import deadline

AGENT_CONFIG = "/opt/agent-runner/agent_config.json"
SETTINGS = "/home/user/.claude/settings.json"
SKILLS = "/home/user/.claude/skills"
VERTEX_KEY = "/home/user/.config/gcloud/service_account.json"
NO_PROVIDER = (
    "anthropic_api_key is required — pass it in the request body or set ANTHROPIC_API_KEY in the environment"
)
NO_SANDBOX = "e2b_api_key is required — pass it in the request body or set E2B_API_KEY in the environment"
OPENROUTER = "https://openrouter.ai/api"


@pytest.fixture(scope="module")
def service():
    """The double all cases share."""
    with running_double() as double:
        yield double


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project directory."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def server(service, project, tmp_path_factory):
    """A server that has no key but those of the project. FROM_PROCESS stands in its own environment."""
    with running_servers(service, tmp_path_factory.mktemp("server")) as start:
        env = {"E2B_API_KEY": None, "ANTHROPIC_API_KEY": None, "FROM_PROCESS": "process", "SET_BUT_EMPTY": ""}
        yield start("--project-dir", project, "--runtime", "e2b", env=env)


@pytest.fixture(scope="module")
def http():
    """The client all cases share."""
    with httpx.Client(timeout=deadline(60), trust_env=False) as client:
        yield client


@pytest.fixture
def ask(http, server, service, project):
    """ask(body, env=…, config=…): the answer to one request of a project that is just this."""

    def ask_once(body: dict, env: dict | None = None, config: dict | None = None) -> httpx.Response:
        lines = {"E2B_API_KEY": service.key, "ANTHROPIC_API_KEY": "env-key"} if env is None else env
        (project / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
        fresh = project / "fresh"
        fresh.write_text(json.dumps(config or {}))
        fresh.rename(project / "sandstorm.json")
        return http.post(f"{server.url}/query", json={"prompt": "p"} | body)

    return ask_once


@pytest.fixture
def run(ask, service):
    """run(body, env=…, config=…): the sandbox that an accepted request led to."""

    def run_once(body: dict | None = None, env: dict | None = None, config: dict | None = None):
        answer = ask(body or {}, env, config)
        assert answer.status_code == 200, answer.text
        assert '"code"' not in answer.text
        return service.ledger.sandbox_of(answer.headers["X-Sandstorm-Run-Id"])

    return run_once


def text(content) -> str:
    """A file of a sandbox."""
    return content.decode() if isinstance(content, bytes) else content


def options(sandbox) -> dict:
    """agent_config.json, with the spelling of its values kept."""
    return json.loads(text(sandbox.files[AGENT_CONFIG]))


# --- 3.5 ------------------------------------------------------------------------------------------

# .env, the request's keys, what is missing.
CREDENTIALS = {
    "nothing at all": ({}, {}, NO_PROVIDER),
    "only a key of E2B": ({"E2B_API_KEY": "e2b_0"}, {}, NO_PROVIDER),
    "an empty variable counts as unset": ({"ANTHROPIC_API_KEY": "", "E2B_API_KEY": "e2b_0"}, {}, NO_PROVIDER),
    "an empty key counts as absent": ({"E2B_API_KEY": "e2b_0"}, {"anthropic_api_key": ""}, NO_PROVIDER),
    "a token alone is no provider": ({"ANTHROPIC_AUTH_TOKEN": "t", "E2B_API_KEY": "e2b_0"}, {}, NO_PROVIDER),
    "a model's key of the environment": ({"ANTHROPIC_API_KEY": "k"}, {}, NO_SANDBOX),
    "a model's key of the request": ({}, {"anthropic_api_key": "k"}, NO_SANDBOX),
    "OpenRouter of the environment": ({"OPENROUTER_API_KEY": "k"}, {}, NO_SANDBOX),
    "OpenRouter of the request": ({}, {"openrouter_api_key": "k"}, NO_SANDBOX),
    "Vertex": ({"CLAUDE_CODE_USE_VERTEX": "1"}, {}, NO_SANDBOX),
    "Bedrock": ({"CLAUDE_CODE_USE_BEDROCK": "1"}, {}, NO_SANDBOX),
    "Foundry": ({"CLAUDE_CODE_USE_FOUNDRY": "1"}, {}, NO_SANDBOX),
    "a base URL": ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}, {}, NO_SANDBOX),
    "an empty E2B key": ({"ANTHROPIC_API_KEY": "k", "E2B_API_KEY": ""}, {"e2b_api_key": ""}, NO_SANDBOX),
}


@by_rule("rule", "3.5", CREDENTIALS)
def test_what_is_missing(ask, rule):
    """3.5."""
    env, keys, missing = CREDENTIALS[rule]
    answer = ask(keys, env=env)
    detail = [{"type": "value_error", "loc": ["body"], "msg": f"Value error, {missing}", "ctx": {"error": {}}}]
    check_json(answer, 422, {"detail": detail})


def test_fields_come_before_credentials(ask):
    """2.6 (8)."""
    answer = ask({"timeout": 1}, env={})
    text = "Input should be greater than or equal to 5"
    detail = [{"type": "greater_than_equal", "loc": ["body", "timeout"], "msg": text, "ctx": {"ge": 5}}]
    check_json(answer, 422, {"detail": detail})


def test_the_key_of_a_request_is_used_and_kept_from_the_sandbox(run, service):
    """3.5, 6.2: the API key never goes to a sandbox."""
    sandbox = run({"e2b_api_key": service.key, "anthropic_api_key": "request-key"}, env={})
    assert sandbox.env == {"ANTHROPIC_API_KEY": "request-key"}
    assert service.key not in json.dumps({path: text(content) for path, content in sandbox.files.items()})


# --- 6.8 ------------------------------------------------------------------------------------------

ALL = {
    name: f"value of {name}"
    for name in (
        "CLAUDE_CODE_USE_BEDROCK", "CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID", "AWS_REGION", "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CLAUDE_CODE_USE_FOUNDRY", "AZURE_FOUNDRY_RESOURCE",
        "AZURE_API_KEY", "ANTHROPIC_FOUNDRY_RESOURCE", "ANTHROPIC_FOUNDRY_API_KEY", "ANTHROPIC_FOUNDRY_BASE_URL",
        "ANTHROPIC_AUTH_TOKEN", "LINEAR_API_KEY", "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_OPUS_MODEL",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    )
}  # fmt: skip

# .env but for the E2B key, the request's keys, the variables of the sandbox.
PROVIDERS = {
    "Anthropic, environment": ({"ANTHROPIC_API_KEY": "e"}, {}, {"ANTHROPIC_API_KEY": "e"}),
    "Anthropic, request": ({"ANTHROPIC_API_KEY": "e"}, {"anthropic_api_key": "r"}, {"ANTHROPIC_API_KEY": "r"}),
    "OpenRouter, request": (
        {"ANTHROPIC_API_KEY": "e"}, {"openrouter_api_key": "o"},
        {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "o", "ANTHROPIC_BASE_URL": OPENROUTER}),
    "OpenRouter, environment": (
        {"OPENROUTER_API_KEY": "o"}, {},
        {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "o", "ANTHROPIC_BASE_URL": OPENROUTER}),
    "OpenRouter of the environment is no match for the request's own key": (
        {"OPENROUTER_API_KEY": "o"}, {"anthropic_api_key": "r"}, {"ANTHROPIC_API_KEY": "r"}),
    "OpenRouter behind a base URL": (
        {"OPENROUTER_API_KEY": "o", "ANTHROPIC_BASE_URL": "http://b"}, {"anthropic_api_key": "r"},
        {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "o", "ANTHROPIC_BASE_URL": "http://b"}),
    "OpenRouter over any other token": (
        {"ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_BASE_URL": "http://b"}, {"openrouter_api_key": "o"},
        {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "o", "ANTHROPIC_BASE_URL": "http://b"}),
    "OpenRouter never reaches another provider": (
        {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "r"}, {"openrouter_api_key": "o"},
        {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "r"}),
    "a base URL with its token": (
        {"ANTHROPIC_BASE_URL": "http://b", "ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_API_KEY": "e"}, {},
        {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "t", "ANTHROPIC_BASE_URL": "http://b"}),
    "a base URL with the key": (
        {"ANTHROPIC_BASE_URL": "http://b", "ANTHROPIC_API_KEY": "e"}, {},
        {"ANTHROPIC_API_KEY": "e", "ANTHROPIC_BASE_URL": "http://b"}),
    "Bedrock": (
        {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}, {},
        {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}),
    "Foundry by its Azure names": (
        {"CLAUDE_CODE_USE_FOUNDRY": "1", "AZURE_FOUNDRY_RESOURCE": "r", "AZURE_API_KEY": "k"}, {},
        {"CLAUDE_CODE_USE_FOUNDRY": "1", "AZURE_FOUNDRY_RESOURCE": "r", "AZURE_API_KEY": "k",
         "ANTHROPIC_FOUNDRY_RESOURCE": "r", "ANTHROPIC_FOUNDRY_API_KEY": "k"}),
    "Foundry's own name is stronger": (
        {"CLAUDE_CODE_USE_FOUNDRY": "1", "AZURE_API_KEY": "k", "ANTHROPIC_FOUNDRY_API_KEY": "f"}, {},
        {"CLAUDE_CODE_USE_FOUNDRY": "1", "AZURE_API_KEY": "k", "ANTHROPIC_FOUNDRY_API_KEY": "f"}),
    "every variable that is forwarded": (ALL, {}, ALL),
    "nothing else": ({"ANTHROPIC_API_KEY": "e", "HOME": "x", "PATH": "y", "OTHER": "z", "AWS_PROFILE": "w"}, {},
                     {"ANTHROPIC_API_KEY": "e"}),
    "an empty variable is not forwarded": ({"ANTHROPIC_API_KEY": "e", "AWS_REGION": ""}, {}, {"ANTHROPIC_API_KEY": "e"}),
}  # fmt: skip


@by_rule("provider", "6.8", PROVIDERS)
def test_the_environment_of_the_sandbox(run, service, provider):
    """6.8."""
    env, keys, variables = PROVIDERS[provider]
    assert run(keys, env=env | {"E2B_API_KEY": service.key}).env == variables


def test_vertex_brings_its_key_file(run, service, project):
    """6.8 (6): relative to the project directory."""
    (project / "key.json").write_text('{"type":"service_account"}')
    env = {"E2B_API_KEY": service.key, "CLAUDE_CODE_USE_VERTEX": "1", "GOOGLE_APPLICATION_CREDENTIALS": "key.json",
           "CLOUD_ML_REGION": "eu"}  # fmt: skip
    sandbox = run({"files": {".config/gcloud/service_account.json": "not this"}}, env=env)
    assert sandbox.env == {
        "CLAUDE_CODE_USE_VERTEX": "1", "CLOUD_ML_REGION": "eu", "GOOGLE_APPLICATION_CREDENTIALS": VERTEX_KEY,
    }  # fmt: skip
    assert text(sandbox.files[VERTEX_KEY]) == '{"type":"service_account"}'


VERTEX_FAULTS = {"unset": None, "no such file": "nowhere.json", "a directory": ".", "too large": "large.json",
                 "not UTF-8": "latin.json"}  # fmt: skip


@by_rule("fault", "6.8 (6)", VERTEX_FAULTS)
def test_vertex_without_its_key_file(ask, service, project, fault):
    """6.8 (6): config_error, before any sandbox exists."""
    (project / "large.json").write_text(" " * 65537)
    (project / "latin.json").write_bytes(b'{"a":"\xe4"}')
    env = {"E2B_API_KEY": service.key, "CLAUDE_CODE_USE_VERTEX": "1"}
    if VERTEX_FAULTS[fault]:
        env["GOOGLE_APPLICATION_CREDENTIALS"] = VERTEX_FAULTS[fault]
    made = len(service.ledger.sandboxes)
    event = only_error(ask({}, env=env))
    assert event["code"] == "config_error" and "GOOGLE_APPLICATION_CREDENTIALS" in event["error"]
    assert str(project) not in event["error"]
    assert len(service.ledger.sandboxes) == made


def only_error(answer: httpx.Response) -> dict:
    """The one event of a stream that ends before it began."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    (line,) = [line for line in answer.text.split("\n") if line]
    event = json.loads(line.removeprefix("data: "))
    assert list(event) == ["type", "error", "request_id", "code"]
    assert event["request_id"] == answer.headers["X-Sandstorm-Run-Id"]
    return event


# --- 6.7 ------------------------------------------------------------------------------------------

PRESET = {"type": "preset", "preset": "claude_code"}
A, B, C = {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"}

# sandstorm.json, the request, what agent_config.json then says.
MERGES = {
    "model, max_turns, timeout: configured": (
        {"model": "m", "max_turns": 7, "timeout": 50}, {}, {"model": "m", "max_turns": 7, "timeout": 50}),
    "model, max_turns, timeout: the request is stronger": (
        {"model": "m", "max_turns": 7, "timeout": 50}, {"model": "n", "max_turns": 8, "timeout": 51},
        {"model": "n", "max_turns": 8, "timeout": 51}),
    "system_prompt: text": ({"system_prompt": "s"}, {}, {"system_prompt": "s"}),
    "system_prompt: text and append": (
        {"system_prompt": "s", "system_prompt_append": "a"}, {}, {"system_prompt": "s\n\na"}),
    "system_prompt: object": ({"system_prompt": PRESET}, {}, {"system_prompt": PRESET}),
    "system_prompt: object and append": (
        {"system_prompt": PRESET, "system_prompt_append": "a"}, {}, {"system_prompt": PRESET | {"append": "a"}}),
    "system_prompt: object with an append, and append": (
        {"system_prompt": PRESET | {"append": "b"}, "system_prompt_append": "a"}, {},
        {"system_prompt": PRESET | {"append": "b\n\na"}}),
    "system_prompt: NUL in both": (
        {"system_prompt": "s\0t", "system_prompt_append": "a\0b"}, {}, {"system_prompt": "s\0t\n\na\0b"}),
    "system_prompt: an object's other members keep their order": (
        {"system_prompt": {"z": 1, "append": "b", "a": [2]}, "system_prompt_append": "a"}, {},
        {"system_prompt": {"z": 1, "append": "b\n\na", "a": [2]}}),
    "system_prompt: append alone": ({"system_prompt_append": "a"}, {}, {"system_prompt": "a"}),
    "output_format: configured": ({"output_format": {"type": "t"}}, {}, {"output_format": {"type": "t"}}),
    "output_format: the request is stronger": (
        {"output_format": {"type": "t"}}, {"output_format": {"type": "u"}}, {"output_format": {"type": "u"}}),
    "output_format: the request's null says nothing": (
        {"output_format": {"type": "t"}}, {"output_format": None}, {"output_format": {"type": "t"}}),
    "output_format: the request's {} switches it off": (
        {"output_format": {"type": "t"}}, {"output_format": {}}, {"output_format": None}),
    "output_format: a configured {} is null": ({"output_format": {}}, {}, {"output_format": None}),
    "agents: none": ({}, {}, {"agents": None}),
    "agents: configured": ({"agents": {"a": A}}, {}, {"agents": {"a": A}}),
    "agents: extra ones join, the same name replaces": (
        {"agents": {"a": A, "b": B}}, {"extra_agents": {"b": C, "c": C}}, {"agents": {"a": A, "b": C, "c": C}}),
    "agents: extra ones alone": ({}, {"extra_agents": {"c": C}}, {"agents": {"c": C}}),
    "agents: only those that are allowed": (
        {"agents": {"a": A, "b": B}}, {"extra_agents": {"c": C}, "allowed_agents": ["c", "a", "x"]},
        {"agents": {"a": A, "c": C}}),
    "agents: none is allowed": ({"agents": {"a": A}}, {"allowed_agents": []}, {"agents": {}}),
    "agents: a list passes": ({"agents": [A, 1.0, "x"]}, {}, {"agents": [A, 1.0, "x"]}),
    "mcp_servers: none": ({}, {"allowed_mcp_servers": ["x"]}, {"mcp_servers": None}),
    "mcp_servers: only those that are allowed, others need no variables": (
        {"mcp_servers": {"a": {"k": "${SURELY_UNSET}"}, "b": {"k": 1}}}, {"allowed_mcp_servers": ["b", "x"]},
        {"mcp_servers": {"b": {"k": 1}}}),
    "mcp_servers: none is allowed": (
        {"mcp_servers": {"a": {"k": "${SURELY_UNSET}"}}}, {"allowed_mcp_servers": []}, {"mcp_servers": {}}),
    "mcp_servers: variables of the process and of .env, at any depth": (
        {"mcp_servers": {"a": {"args": ["-x${FROM_PROCESS}", {"h": "${FROM_ENV}${FROM_ENV}"}]}}}, {},
        {"mcp_servers": {"a": {"args": ["-xprocess", {"h": "envenv"}]}}}),
    "mcp_servers: the process is stronger than .env": (
        {"mcp_servers": {"a": {"k": "${FROM_PROCESS:-d}"}}}, {}, {"mcp_servers": {"a": {"k": "process"}}}),
    "mcp_servers: never in keys": (
        {"mcp_servers": {"a": {"${FROM_ENV}": "x"}}}, {}, {"mcp_servers": {"a": {"${FROM_ENV}": "x"}}}),
    "mcp_servers: a default": (
        {"mcp_servers": {"a": {"k": "${SURELY_UNSET:-d:-e}", "l": "${SURELY_UNSET:-}", "m": "${FROM_ENV:-d}"}}}, {},
        {"mcp_servers": {"a": {"k": "d:-e", "l": "", "m": "env"}}}),
    "mcp_servers: set but empty": (
        {"mcp_servers": {"a": {"k": "<${SET_BUT_EMPTY:-d}${EMPTY_IN_ENV}>"}}}, {}, {"mcp_servers": {"a": {"k": "<>"}}}),
    "mcp_servers: what is no reference stays": (
        {"mcp_servers": {"a": {"k": "$HOME ${ ${} ${1A} $ ${a b}"}}}, {},
        {"mcp_servers": {"a": {"k": "$HOME ${ ${} ${1A} $ ${a b}"}}}),
    "allowed_tools: configured": (
        {"allowed_tools": ["Read"]}, {}, {"allowed_tools": ["Read"], "has_skills": False}),
    "allowed_tools: the request's, even []": ({"allowed_tools": ["Read"]}, {"allowed_tools": []}, {"allowed_tools": []}),
    "allowed_tools: skills bring their tool": (
        {"allowed_tools": ["Read"]}, {"extra_skills": {"s": "# S"}},
        {"allowed_tools": ["Read", "Skill"], "has_skills": True}),
    "allowed_tools: not twice": (
        {"allowed_tools": ["Skill"], "template_skills": True}, {}, {"allowed_tools": ["Skill"], "has_skills": True}),
    "allowed_tools: the request's are left alone": (
        {}, {"allowed_tools": ["Read"], "extra_skills": {"s": "# S"}}, {"allowed_tools": ["Read"], "has_skills": True}),
    "allowed_tools: no restriction": ({}, {"extra_skills": {"s": "# S"}}, {"allowed_tools": None, "has_skills": True}),
}  # fmt: skip
MERGE_ENV = {"FROM_ENV": "env", "FROM_PROCESS": "not this one", "EMPTY_IN_ENV": ""}


@by_rule("rule", "6.7", MERGES)
def test_merged(run, service, rule):
    """6.7."""
    config, request, wanted = MERGES[rule]
    keys = {"E2B_API_KEY": service.key, "ANTHROPIC_API_KEY": "k"}
    found = options(run(request, config=config, env=keys | MERGE_ENV))
    assert json.dumps({key: found[key] for key in wanted}) == json.dumps(wanted)  # the order of members too


REFUSED = {
    "a variable that is not set": (
        {"mcp_servers": {"gh": {"env": {"T": "${SURELY_UNSET}"}}}}, {},
        "mcp_servers.gh requires environment variable SURELY_UNSET to be set"),
    "a list of agents and extra_agents": (
        {"agents": [A]}, {"extra_agents": {"a": A}},
        "extra_agents and allowed_agents require agents to be a dict in sandstorm.json, got list"),
    "a list of agents and allowed_agents": (
        {"agents": [A]}, {"allowed_agents": []},
        "extra_agents and allowed_agents require agents to be a dict in sandstorm.json, got list"),
}  # fmt: skip


@by_rule("rule", "6.7", REFUSED)
def test_what_cannot_be_merged(ask, service, rule):
    """5.6, 6.7: config_error, and no sandbox."""
    config, request, message = REFUSED[rule]
    made = len(service.ledger.sandboxes)
    event = only_error(ask(request, config=config))
    assert (event["code"], event["error"]) == ("config_error", message)
    assert len(service.ledger.sandboxes) == made


# --- skills ---------------------------------------------------------------------------------------

BETAS_OFF = '{"permissions":{"allow":[],"deny":[]},"env":{"CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS":"1"}}'
BETAS_ON = '{"permissions":{"allow":[],"deny":[]}}'

# sandstorm.json beside skills_dir, the request, the files under the skills' directory.
SKILL_CASES = {
    "all of the disk": ({}, {}, {"one/SKILL.md": "one", "one/sub/x y.md": "x", "two/SKILL.md": "two"}),
    "only those that are allowed": ({}, {"allowed_skills": ["two", "none"]}, {"two/SKILL.md": "two"}),
    "none is allowed": ({}, {"allowed_skills": []}, {}),
    "an extra one": (
        {}, {"extra_skills": {"new": "n"}, "allowed_skills": ["new", "two"]}, {"new/SKILL.md": "n", "two/SKILL.md": "two"}),
    "an extra one replaces the whole skill": (
        {}, {"extra_skills": {"one": "mine"}}, {"one/SKILL.md": "mine", "two/SKILL.md": "two"}),
    "an extra one is filtered too": ({}, {"extra_skills": {"new": "n"}, "allowed_skills": ["two"]}, {"two/SKILL.md": "two"}),
    "the template has them": ({"template_skills": True}, {}, {}),
    "the template has them, but for extra ones": (
        {"template_skills": True}, {"extra_skills": {"one": "mine", "new": "n"}},
        {"one/SKILL.md": "mine", "new/SKILL.md": "n"}),
}  # fmt: skip


@pytest.fixture
def skills(project):
    """Two skills on disk."""
    folder = project / "skills"
    (folder / "one/sub").mkdir(parents=True)
    (folder / "two").mkdir()
    (folder / "one/SKILL.md").write_text("one")
    (folder / "one/sub/x y.md").write_text("x")
    (folder / "two/SKILL.md").write_text("two")
    yield "skills"
    shutil.rmtree(folder)


@by_rule("rule", "6.7 skills:", SKILL_CASES)
def test_skills(run, skills, rule):
    """6.6, 6.7: in the one upload, with the settings that go with them."""
    config, request, files = SKILL_CASES[rule]
    sandbox = run(request, config=config | {"skills_dir": skills})
    found = {path: text(content) for path, content in sandbox.files.items() if path.startswith(SKILLS + "/")}
    assert found == {f"{SKILLS}/{path}": content for path, content in files.items()}
    assert sandbox.uploads == 1
    has_skills = bool(files) or config.get("template_skills", False)
    assert options(sandbox)["has_skills"] is has_skills
    assert text(sandbox.files[SETTINGS]) == (BETAS_ON if has_skills else BETAS_OFF)


@pytest.mark.alone
def test_long_lists_of_names_do_not_hold_up_the_worker(run):
    """6.7: names are looked up, not searched for."""
    count = 40000
    agents = {str(number): {} for number in range(count)}
    started = time.monotonic()
    sandbox = run({"extra_agents": agents, "allowed_agents": [f"x{number}" for number in range(count)] + ["7"]})
    assert options(sandbox)["agents"] == {"7": {}}
    assert time.monotonic() - started < deadline(3)


def test_own_files_win_over_request_files_and_those_over_skills(run, skills):
    """6.5: no path twice."""
    files = {".claude/settings.json": "mine", ".claude/skills/one/SKILL.md": "request"}
    sandbox = run({"files": files}, config={"skills_dir": skills})
    assert text(sandbox.files[SETTINGS]) == BETAS_ON
    assert text(sandbox.files[f"{SKILLS}/one/SKILL.md"]) == "request"
    assert text(sandbox.files[f"{SKILLS}/one/sub/x y.md"]) == "x"
    assert list(sandbox.files)[-1] == AGENT_CONFIG  # the mark of what the agent wrote comes last


# --- 15.2 -----------------------------------------------------------------------------------------


def test_a_change_of_env_counts_for_that_very_request(ask, run, service):
    """15.2: added, changed and removed."""
    keys = {"E2B_API_KEY": service.key}
    assert run({}, env=keys | {"ANTHROPIC_API_KEY": "first"}).env == {"ANTHROPIC_API_KEY": "first"}
    assert run({}, env=keys | {"ANTHROPIC_API_KEY": "second"}).env == {"ANTHROPIC_API_KEY": "second"}
    assert ask({}, env=keys).status_code == 422
    assert run({}, env=keys | {"ANTHROPIC_API_KEY": "third"}).env == {"ANTHROPIC_API_KEY": "third"}


# --- the texts of errors --------------------------------------------------------------------------

# What the service says to which request, and what the client is told.
TEXTS = {
    "5.6 <status>: <message of the service>": ("create", 403, "team is blocked", "403: team is blocked"),
    "5.6 401": ("create", 401, "bad key {key}", "401: Unauthorized, please check your credentials."),
    "5.6 one line": ("create", 400, "a\nb\r\nc\u0001d\u007fe", "400: a b  c d e"),
    "5.6 no key": ("create", 400, "{key} is no key: {key}", "400: {hidden} is no key: {hidden}"),
    "5.6 no URL credential": ("create", 400, "ask http://u:p@h/x", "400: ask http://h/x"),
    "5.6 at most 4 KiB": ("create", 400, "✓" * 5000, "400: " + "✓" * 1363),
    "5.6 Failed to upload": (
        "upload", 507, "disk\nfull",
        "Failed to upload 5 files (b, " + "ä" * 100 + ", settings.json, runner.mjs, agent_config.json) to sandbox: 507: disk full"),
}  # fmt: skip


@pytest.mark.parametrize("rule", TEXTS)
def test_texts_of_errors(ask, service, server, rule):
    stage, status, message, wanted = TEXTS[rule]
    words = {"key": service.key, "hidden": "***"}
    service.inject(stage, "status", status=status, message=message.format(**words))
    event = only_error(ask({"files": {"a/b": "", "ä" * 3000: ""}}))
    assert event["error"] == wanted.format(**words)
    assert service.key not in server.stderr


def test_the_name_of_a_server_is_cut_in_the_text_of_an_error(ask):
    """5.6: one line, at most 4 KiB."""
    event = only_error(ask({}, config={"mcp_servers": {"a\nb" + "ä" * 5000: {"x": "${SURELY_UNSET}"}}}))
    assert event["error"] == f"mcp_servers.a b{'ä' * 197} requires environment variable SURELY_UNSET to be set"
