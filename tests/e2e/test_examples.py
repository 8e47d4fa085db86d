"""The examples of README.md and of the manual's section 7, taken from there and run."""

import json
import re
import subprocess
import sys

import httpx
import pytest
import yaml
from harness import examples
from harness.balancer import replace_once
from harness.client import open_query, query, script
from harness.ds import environment
from harness.running import running_double, running_servers
from harness.server import BUILD, REPOSITORY, run_program
from harness.waiting import deadline
from prometheus_client.parser import text_string_to_metric_families

KINDS = {"sh", "python", "typescript", "json", "env", "conf", "nginx", "haproxy", "prometheus", "rules"}
# What only root can do on a machine of its own: tests/package does it there.
NOT_RUN = {"transcript"}
KEY = "the-bearer-of-this-server-0123456789"
RUN_SECONDS = 90
VARIABLES = {"ANTHROPIC_API_KEY": "test-key", "SANDSTORM_API_KEY": KEY, "HOOK_SECRET": "s3cret", "GITHUB_TOKEN": "t"}
TSC = REPOSITORY / "build/typescript/node_modules/typescript/bin/tsc"
COMPILE = ["--strict", "--noEmitOnError", "--target", "es2022", "--module", "es2022", "--moduleDetection", "force", "--skipLibCheck",
           "--lib", "es2022,dom,dom.iterable"]  # fmt: skip


def of(kind: str):
    """Runs a test with each example of a kind."""
    found = examples.all_of(kind)
    assert found
    return pytest.mark.parametrize("example", found, ids=[example.name for example in found])


@pytest.fixture(scope="module")
def shared_double():
    """An E2B double for all examples."""
    with running_double() as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(shared_double, tmp_path_factory):
    """A server that has the triggers of the manual, and wants no key."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "sandstorm.json").write_text(next(e.text for e in examples.all_of("json") if "webhook" in e.text))
    with running_servers(shared_double, folder) as start:
        yield start("--project-dir", folder, env=VARIABLES | {"SANDSTORM_API_KEY": None})


@pytest.fixture
def run(tmp_path, shared_double, shared_server):
    """run(words, **variables): a program that must succeed; what it printed."""
    (tmp_path / "work").mkdir()

    def run_once(*words: object, **variables: str) -> str:
        env = environment(shared_server, VARIABLES | variables)
        env |= {"PATH": f"{BUILD}:{env['PATH']}", "CURL_HOME": str(tmp_path), "E2B_API_KEY": shared_double.key,
                "E2B_API_URL": shared_double.url}  # fmt: skip
        done = subprocess.run(list(map(str, words)), env=env, cwd=tmp_path / "work", capture_output=True, text=True,
                              check=False, timeout=deadline(RUN_SECONDS))  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run_once.folder = tmp_path / "work"
    return run_once


def test_every_example_is_known():
    kinds = {example.kind for path in examples.GUIDES for example in examples.of_page(path)}
    assert kinds == KINDS | NOT_RUN
    for path in examples.GUIDES:  # nothing is shown that would not be run
        assert not re.search(r"^\.D[l1] .*(curl|import|fetch)", path.read_text(), re.MULTILINE), path
    assert {example.kind for example in examples.of_readme()} == {"sh", "python", "json"}


# --- clients ---


@of("sh")
async def test_commands(example, run, shared_server, client):
    text = example.against(shared_server)
    if "--fail" not in text:  # here a refusal is a failure anyway
        (run.folder.parent / ".curlrc").write_text("fail-with-body\n")
    if "$RUN_ID" not in text:
        said = run("bash", "-euo", "pipefail", "-c", text)
    else:
        async with open_query(client, shared_server, script(events=1, hold="never", hold_after=1)) as stream:
            await stream.next_numbered()
            said = run("bash", "-euo", "pipefail", "-c", text, RUN_ID=stream.run_id)
            assert (await stream.rest()).error_code == "cancelled"
            assert len(re.findall(rf'"(?:run_)?id":"{stream.run_id}"', said)) == 3, "one of the three commands did not find the run"
    if "/query" in text:
        assert '"type":"result"' in said and '"subtype":"success"' in said
    if "/hooks/" in text:
        assert json.loads(said) == {"status": "accepted", "trigger": "push"}


@of("python")
def test_python(example, run, shared_server, shared_double):
    made = len(shared_double.ledger.created())
    text = example.against(shared_server)
    wants_file = "Write three primes to primes.txt." in text
    if wants_file:  # the same words, to an agent that leaves the file
        prompt = script(events=0, files={"primes.txt": "2 3 5"})
        text = replace_once(text, '"Write three primes to primes.txt."', repr(prompt))
    (run.folder / "example.py").write_text(text)
    said = run(sys.executable, "example.py")
    assert len(shared_double.ledger.created()) > made
    assert said.strip()
    assert not wants_file or (run.folder / "out/primes.txt").read_text() == "2 3 5"


@of("typescript")
def test_typescript(example, run, shared_server):
    (run.folder / "example.ts").write_text(example.against(shared_server))
    run("node", TSC, *COMPILE, "example.ts")
    (run.folder / "example.js").rename(run.folder / "example.mjs")
    assert run("node", "example.mjs").split()[-2:] == ["done:", "success"]


# --- configuration ---


@of("json")
def test_projects(example, tmp_path):
    (tmp_path / "sandstorm.json").write_text(example.text)
    (tmp_path / "skills").mkdir()
    checked = run_program("--check", "--project-dir", str(tmp_path), env=VARIABLES | {"E2B_API_KEY": "e2b_0"})
    assert checked.returncode == 0 and "unknown" not in checked.stderr, checked.stderr


@of("conf")
def test_settings(example, tmp_path):
    text = replace_once(example.text, "/var/log/sandstorm", str(tmp_path))
    (tmp_path / "sandstorm.conf").write_text(text)
    checked = run_program("--check", "--config", str(tmp_path / "sandstorm.conf"), env=VARIABLES | {"E2B_API_KEY": "e2b_0"})
    assert checked.returncode == 0, checked.stderr
    for name, value in re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE):
        shown = re.search(rf"^{name} = (.*?) +# ", checked.stdout, re.MULTILINE)[1]
        assert shown == value or name.endswith("timeout")


@pytest.fixture(scope="module")
def bare_server(shared_double, tmp_path_factory):
    """A server that has no key but those of its .env."""
    with running_servers(shared_double, tmp_path_factory.mktemp("providers")) as start:
        yield start("--project-dir", tmp_path_factory.mktemp("project"), env={"ANTHROPIC_API_KEY": None})


@of("env")
async def test_providers(example, bare_server, shared_double, client):
    folder = bare_server.argv[bare_server.argv.index("--project-dir") + 1]
    (REPOSITORY / folder / "service-account.json").write_text("{}")
    (REPOSITORY / folder / "new").write_text(example.text)
    (REPOSITORY / folder / "new").rename(REPOSITORY / folder / ".env")
    answer = await query(client, bare_server, script(events=1))
    answer.check_complete(1)
    given = shared_double.ledger.sandbox_of(answer.run_id).env
    wanted = dict(line.split("=", 1) for line in example.text.splitlines())
    token = wanted.pop("OPENROUTER_API_KEY", None)
    if token:
        wanted |= {"ANTHROPIC_AUTH_TOKEN": token, "ANTHROPIC_BASE_URL": "https://openrouter.ai/api"}
    if "GOOGLE_APPLICATION_CREDENTIALS" in wanted:
        wanted["GOOGLE_APPLICATION_CREDENTIALS"] = "/home/user/.config/gcloud/service_account.json"
    assert {name: given.get(name) for name in wanted} == wanted


# --- balancers: test_front.py runs them --- Prometheus ---


def test_the_balancers_have_one_example_each():
    assert "proxy_buffering off" in examples.the_only("nginx").text
    assert "balance leastconn" in examples.the_only("haproxy").text


def families(server, path: str) -> dict[str, str]:
    """What Prometheus would read: the names of all series, and their types."""
    text = httpx.get(f"{server.url}{path}").raise_for_status().text
    names = {}
    for family in text_string_to_metric_families(text):
        names |= {sample.name: family.type for sample in family.samples}
        names[family.name + ("_total" if family.type == "counter" else "")] = family.type
    return names


def test_the_scrape_configuration(shared_server):
    config = yaml.safe_load(examples.the_only("prometheus").text)
    (job,) = config["scrape_configs"]
    assert set(job) == {"job_name", "metrics_path", "authorization", "static_configs"}
    assert job["static_configs"] == [{"targets": [examples.GUIDE_ADDRESS]}]
    assert "sandstorm_runs_active" in families(shared_server, job["metrics_path"])


def test_the_rules_ask_for_what_there_is(shared_server):
    known = families(shared_server, "/metrics")
    source = (REPOSITORY / "common/metrics.c").read_text()
    (group,) = yaml.safe_load(examples.the_only("rules").text)["groups"]
    job = yaml.safe_load(examples.the_only("prometheus").text)["scrape_configs"][0]["job_name"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"]) > 5
    for rule in group["rules"]:
        assert {"alert", "expr", "annotations"} <= set(rule) <= {"alert", "expr", "for", "annotations"}
        metrics = re.findall(r"\bsandstorm_\w+", rule["expr"])
        assert set(metrics) <= set(known), rule
        assert metrics or rule["expr"] == f'up{{job="{job}"}} == 0'
        assert rule["expr"].count("(") == rule["expr"].count(")")
        labels = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]) + re.findall(r"\{(\w+)=", rule["expr"])
        labels += [label for inner in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in inner.split(", ")]
        assert not [label for label in labels if label not in ("instance", "job") and f'"{label}"' not in source]
