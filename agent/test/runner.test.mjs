/* The rules of runner.mjs, each on the real program with a fake SDK beside it. Run: node --test this file. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const AGENT = fileURLToPath(new URL("..", import.meta.url));
const DEADLINE_MS = 20_000;
const POLL_MS = 10;

const RESULT = { subtype: "success", is_error: false, type: "result" };
const HELLO = { type: "assistant", message: { content: [{ type: "text", text: "h\u00e9llo \u2028\n" }] } };

/* A folder as in a sandbox: runner.mjs, agent_config.json (unless undefined) and an SDK. Removed after the test. */
async function sandbox(t, config, { sdk = true } = {}) {
    const folder = await mkdtemp(join(tmpdir(), "runner-test-"));
    t.after(() => rm(folder, { recursive: true }));
    await cp(join(AGENT, "runner.mjs"), join(folder, "runner.mjs"));
    if (sdk) {
        const modules = join(folder, "node_modules/@anthropic-ai");
        await mkdir(modules, { recursive: true });
        await cp(join(AGENT, "test/fake-sdk"), join(modules, "claude-agent-sdk"), { recursive: true });
    }
    if (config !== undefined) {
        const text = typeof config === "string" ? config : JSON.stringify(config);
        await writeFile(join(folder, "agent_config.json"), text);
    }
    return folder;
}

/* The configuration whose prompt makes the fake SDK play these steps. */
function script(steps, more = {}) {
    return { prompt: JSON.stringify(steps), cwd: "/home/user", has_skills: false, model: null, ...more };
}

/* Starts the runner of a folder; its stderr is collected, its stdout is the test's business. */
function start(t, folder, env = {}) {
    const child = spawn(process.execPath, [join(folder, "runner.mjs")], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { PATH: process.env.PATH, ...env },
    });
    t.after(() => child.kill("SIGKILL"));
    const running = { child, stdout: "", stderr: "" };
    child.stderr.setEncoding("utf8").on("data", (text) => (running.stderr += text));
    running.exit = new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no exit; stderr: ${running.stderr}`)), DEADLINE_MS);
        child.on("close", (code, signal) => {
            clearTimeout(timer);
            resolve({ code, signal });
        });
    });
    return running;
}

/* Runs the runner to its end; the messages are what its lines parse to. */
async function run(t, config, { sdk, env } = {}) {
    const running = start(t, await sandbox(t, config, { sdk }), env);
    running.child.stdout.setEncoding("utf8").on("data", (text) => (running.stdout += text));
    const { code } = await running.exit;
    assert.ok(running.stdout === "" || running.stdout.endsWith("\n"), "the last line is terminated");
    const lines = running.stdout.split("\n").slice(0, -1);
    return { code, lines, messages: lines.map((line) => JSON.parse(line)), stderr: running.stderr };
}

/* Waits until the file exists. */
async function appeared(path) {
    const end = Date.now() + DEADLINE_MS;
    for (;;) {
        try {
            return await stat(path);
        } catch (error) {
            assert.ok(Date.now() < end, `no ${path}: ${error.message}`);
            await sleep(POLL_MS);
        }
    }
}

test("each message is one line of compact JSON, unknown types too", async (t) => {
    const odd = { later: 1, type: "of_a_coming_version", subtype: null };
    const { code, lines } = await run(t, script([{ yield: HELLO }, { yield: odd }, { yield: RESULT }]));
    assert.equal(code, 0);
    assert.deepEqual(lines, [HELLO, odd, RESULT].map((message) => JSON.stringify(message)));
});

test("it stops after a result, whatever its subtype, with handles open", async (t) => {
    for (const subtype of ["success", "error_max_turns", "error_of_a_coming_version"]) {
        const result = { type: "result", subtype };
        const { code, messages } = await run(t, script([{ yield: result }, { yield: HELLO }, { hang_on: true }]));
        assert.equal(code, 0);
        assert.deepEqual(messages, [result]);
    }
});

test("a throw after an error result adds no line", async (t) => {
    const result = { type: "result", subtype: "error_during_execution", is_error: true };
    const { code, messages } = await run(t, script([{ yield: result }, { throw: "process exited with code 1" }]));
    assert.equal(code, 0);
    assert.deepEqual(messages, [result]);
});

test("a crash while the result waits for its reader adds no line", async (t) => {
    const big = { type: "result", filler: "x".repeat(1 << 20) };
    const running = start(t, await sandbox(t, script([{ crash: "late" }, { yield: big }])));
    await sleep(300); /* time for the crash to come while nobody reads; the promise holds either way */
    running.child.stdout.setEncoding("utf8").on("data", (text) => (running.stdout += text));
    assert.equal((await running.exit).code, 0);
    assert.deepEqual(JSON.parse(running.stdout), big);
});

test("a throw before a result is an error line and exit 1", async (t) => {
    const { code, messages } = await run(t, script([{ yield: HELLO }, { throw: "no\nmodel" }]));
    assert.equal(code, 1);
    assert.deepEqual(messages, [HELLO, { type: "error", error: "no\nmodel" }]);
});

test("a crash outside the messages is an error line and exit 1", async (t) => {
    const { code, messages } = await run(t, script([{ crash: "timer died" }, { hang_on: true }]));
    assert.equal(code, 1);
    assert.deepEqual(messages, [{ type: "error", error: "timer died" }]);
});

test("an end without a result is an error line and exit 1", async (t) => {
    const { code, messages } = await run(t, script([{ yield: HELLO }]));
    assert.equal(code, 1);
    assert.deepEqual(messages, [HELLO, { type: "error", error: "the agent ended without a result" }]);
});

test("a configuration that is missing, broken or without a prompt is an error line", async (t) => {
    for (const config of [undefined, "{", "null", { model: "m" }]) {
        const { code, messages } = await run(t, config);
        assert.equal(code, 1);
        assert.equal(messages.length, 1);
        assert.equal(messages[0].type, "error");
        assert.match(messages[0].error, /^agent_config\.json: /);
    }
});

test("a missing SDK is an error line", async (t) => {
    const { code, messages } = await run(t, script([{ yield: RESULT }]), { sdk: false });
    assert.equal(code, 1);
    assert.equal(messages.length, 1);
    assert.match(messages[0].error, /claude-agent-sdk/);
});

test("nothing but messages reaches stdout; the agent's diagnostics go to stderr", async (t) => {
    const steps = [{ log: "chatter" }, { stderr: "cli says\n" }, { yield: RESULT }];
    const { messages, stderr } = await run(t, script(steps));
    assert.deepEqual(messages, [RESULT]);
    assert.match(stderr, /chatter\nchatter\n/);
    assert.match(stderr, /cli says/);
});

test("only what is set becomes an option", async (t) => {
    const unset = { system_prompt: null, max_turns: null, mcp_servers: null, agents: null, resume: null };
    const { messages } = await run(t, script([{ options: true }, { yield: RESULT }], { ...unset, timeout: 300 }));
    assert.deepEqual(messages[0].options, {
        cwd: "/home/user",
        permissionMode: "bypassPermissions",
        allowDangerouslySkipPermissions: true,
        settingSources: ["user"],
    });
    assert.equal(messages[0].abortable, true);
});

test("every key becomes its option, empty and zero values too", async (t) => {
    const config = {
        model: "m", system_prompt: "", max_turns: 3, mcp_servers: {}, output_format: { type: "json_schema" },
        agents: { a: {} }, allowed_tools: [], resume: "r", resume_session_at: "u", fork_session: false,
        include_partial_messages: true, max_budget_usd: 0, has_skills: true,
    };
    const { messages } = await run(t, script([{ options: true }, { yield: RESULT }], config));
    const { cwd, permissionMode, allowDangerouslySkipPermissions, ...options } = messages[0].options;
    assert.deepEqual([cwd, permissionMode, allowDangerouslySkipPermissions], ["/home/user", "bypassPermissions", true]);
    assert.deepEqual(options, {
        model: "m", systemPrompt: "", maxTurns: 3, mcpServers: {}, outputFormat: { type: "json_schema" },
        agents: { a: {} }, allowedTools: [], resume: "r", resumeSessionAt: "u", forkSession: false,
        includePartialMessages: true, maxBudgetUsd: 0, settingSources: ["user", "project"],
    });
});

test("the agent's environment is the sandbox's, with our defaults below it", async (t) => {
    const own = { ANTHROPIC_BASE_URL: "http://m", ANTHROPIC_API_KEY: "" };
    const steps = script([{ options: true }, { yield: RESULT }]);
    const plain = (await run(t, steps, { env: own })).messages[0].env;
    assert.deepEqual([plain.ANTHROPIC_BASE_URL, plain.ANTHROPIC_API_KEY], ["http://m", ""]);
    assert.equal(plain.CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC, "1");
    assert.equal(plain.CLAUDE_CODE_DISABLE_BACKGROUND_TASKS, "1");
    assert.match(plain.NO_PROXY, /127\.0\.0\.1/);
    assert.equal(plain.IS_SANDBOX, process.getuid() === 0 ? "1" : undefined);
    const chosen = (await run(t, steps, { env: { CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "0" } })).messages[0].env;
    assert.equal(chosen.CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC, "0");
});

test("a reader that is slow gets every byte, also the result's, before the exit", async (t) => {
    const size = 1 << 20;
    const result = { type: "result", filler: "y".repeat(size) };
    const running = start(t, await sandbox(t, script([{ big: size }, { big: size }, { yield: result }])));
    running.child.stdout.setEncoding("utf8");
    for await (const text of running.child.stdout) {
        running.stdout += text;
        await sleep(1);
    }
    assert.equal((await running.exit).code, 0);
    const messages = running.stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(messages.map((message) => message.filler.length), [size, size, size]);
});

test("the agent waits while stdout is full", async (t) => {
    const mark = join(await mkdtemp(join(tmpdir(), "runner-mark-")), "went-on");
    t.after(() => rm(join(mark, ".."), { recursive: true }));
    const running = start(t, await sandbox(t, script([{ big: 4 << 20 }, { touch: mark }, { yield: RESULT }])));
    await sleep(500); /* nobody reads; without back-pressure the mark appears within this time */
    await assert.rejects(stat(mark));
    running.child.stdout.resume();
    await appeared(mark);
    assert.equal((await running.exit).code, 0);
});

test("SIGTERM stops the agent and ends the runner without a line", async (t) => {
    const folder = await sandbox(t, undefined);
    const mark = join(folder, "started");
    await writeFile(join(folder, "agent_config.json"), JSON.stringify(script([{ touch: mark }, { hang: true }])));
    const running = start(t, folder);
    running.child.stdout.setEncoding("utf8").on("data", (text) => (running.stdout += text));
    await appeared(mark);
    running.child.kill("SIGTERM");
    assert.equal((await running.exit).code, 143);
    assert.equal(running.stdout, "");
    assert.match(running.stderr, /the agent was stopped/);
});

test("SIGTERM ends the runner although the agent hangs and stdout is full", async (t) => {
    const folder = await sandbox(t, undefined);
    const mark = join(folder, "started");
    const steps = [{ touch: mark }, { big: 4 << 20 }, { hang_on: true }];
    await writeFile(join(folder, "agent_config.json"), JSON.stringify(script(steps)));
    const running = start(t, folder);
    await appeared(mark);
    running.child.kill("SIGTERM");
    const code = await new Promise((resolve) => running.child.on("exit", resolve));
    assert.equal(code, 143);
    running.child.stdout.resume();
});

test("a closed stdout ends the runner", async (t) => {
    const running = start(t, await sandbox(t, script([{ big: 1 << 20 }, { big: 1 << 20 }, { hang: true }])));
    running.child.stdout.destroy();
    assert.equal((await running.exit).code, 141);
});
