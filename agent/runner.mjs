/*
 * runner: drives the one agent of a sandbox.
 *
 * Reads agent_config.json beside it, calls the Claude Agent SDK and prints every message of the SDK as one line of JSON
 * on stdout; nothing else goes there, diagnostics go to stderr. It ends after the message of type "result", when stdout
 * has taken every byte, although handles may still be open. A failure before a result is one line
 * {"type":"error","error":"…"} and exit status 1; a failure after it adds nothing, the result counts. SIGTERM and a
 * reader that closed stdout stop the agent and end the runner without another line.
 */
import { Console } from "node:console";
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";

const CONFIG_URL = new URL("agent_config.json", import.meta.url);
const SDK_PACKAGE = "@anthropic-ai/claude-agent-sdk";

/* How long a stopped agent may take to end by itself; the SDK gives its own child 2 s of these. */
const STOP_GRACE_MS = 3000;

const EXIT_OK = 0;
const EXIT_ERROR = 1;
/* As a shell reports a death by signal. */
const EXIT_STDOUT_CLOSED = 128 + 13;
const EXIT_TERMINATED = 128 + 15;

/* Keys of agent_config.json that become an option of the SDK, unless absent or null. */
const OPTION_OF_KEY = {
    model: "model",
    system_prompt: "systemPrompt",
    max_turns: "maxTurns",
    mcp_servers: "mcpServers",
    output_format: "outputFormat",
    agents: "agents",
    allowed_tools: "allowedTools",
    resume: "resume",
    resume_session_at: "resumeSessionAt",
    fork_session: "forkSession",
    include_partial_messages: "includePartialMessages",
    max_budget_usd: "maxBudgetUsd",
};

/* What the agent's environment holds unless the sandbox's says otherwise. */
const DEFAULT_ENVIRONMENT = {
    /* Else it calls the vendor on its own account: telemetry, feature flags, updates. */
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    /* Else subagents run in the background (0.3.330), and their work is lost when the result comes before theirs. */
    CLAUDE_CODE_DISABLE_BACKGROUND_TASKS: "1",
    /* Else HTTPS_PROXY is also used for a model at http://127.0.0.1 (seen with 0.3.330). */
    NO_PROXY: "localhost,127.0.0.1,::1",
};

/* The agent's environment: it replaces the inherited one, so that is merged in. */
function agentEnvironment() {
    const environment = { ...DEFAULT_ENVIRONMENT, ...process.env };
    if (process.getuid() === 0) {
        /* To root the agent refuses bypassPermissions, except in a sandbox. This is one. */
        environment.IS_SANDBOX = "1";
    }
    return environment;
}

/* The SDK's options for a configuration. */
function agentOptions(config, abortController) {
    const options = {
        cwd: config.cwd ?? "/home/user",
        permissionMode: "bypassPermissions",
        allowDangerouslySkipPermissions: true,
        settingSources: config.has_skills ? ["user", "project"] : ["user"],
        env: agentEnvironment(),
        stderr: (text) => process.stderr.write(text),
        abortController,
    };
    for (const [key, option] of Object.entries(OPTION_OF_KEY)) {
        if (config[key] !== undefined && config[key] !== null) {
            options[option] = config[key];
        }
    }
    return options;
}

/* Reads the configuration; throws with the file's name when it cannot be used. */
async function readConfig() {
    let config;
    try {
        config = JSON.parse(await readFile(CONFIG_URL, "utf8"));
    } catch (error) {
        throw new Error(`agent_config.json: ${error.message}`, { cause: error });
    }
    if (typeof config?.prompt !== "string") {
        throw new Error("agent_config.json: it has no prompt");
    }
    return config;
}

/* Keeps stdout for the messages: whatever writes to the console, or to process.stdout, means stderr from now on. */
function takeStdout() {
    const write = process.stdout.write.bind(process.stdout);
    process.stdout.write = process.stderr.write.bind(process.stderr);
    globalThis.console = new Console(process.stderr);
    return write;
}

/* Where a run stands. The process ends once, by the first of these ends that is reached. */
const RUNNING = Symbol("running"); /* messages come and are printed */
const ENDED = Symbol("ended"); /* a result came; what fails from now on does not matter */
const FAILED = Symbol("failed"); /* the error line is on its way out */
const STOPPED = Symbol("stopped"); /* nobody wants or takes further lines */

/* One run of the agent, from the configuration to the end of the process. */
class Run {
    #write = takeStdout();
    #abort = new AbortController();
    #state = RUNNING;
    #relayOver;

    /* Runs the agent; does not come back. */
    async start() {
        process.on("SIGTERM", () => this.#stop(EXIT_TERMINATED));
        process.on("uncaughtException", (error) => this.#fail(error));
        process.stdout.on("error", () => this.#stop(EXIT_STDOUT_CLOSED));
        process.stderr.on("error", () => {});
        this.#relayOver = this.#relay().catch((error) => this.#fail(error));
        await this.#relayOver;
    }

    /* Prints the agent's messages up to its result. */
    async #relay() {
        const config = await readConfig();
        const { query } = await import(SDK_PACKAGE);
        for await (const message of query({ prompt: config.prompt, options: agentOptions(config, this.#abort) })) {
            if (this.#state !== RUNNING) {
                return;
            }
            const line = JSON.stringify(message);
            if (message.type === "result") {
                this.#state = ENDED;
            }
            await this.#print(line);
            if (this.#state === ENDED) {
                process.exit(EXIT_OK);
            }
        }
        throw new Error("the agent ended without a result");
    }

    /* Prints one line; resolves when the kernel has all of it, so that a full stdout makes the agent wait. */
    #print(line) {
        return new Promise((resolve) => {
            this.#write(`${line}\n`, (error) => {
                if (error) {
                    this.#stop(EXIT_STDOUT_CLOSED);
                }
                resolve();
            });
        });
    }

    /* The agent failed: says so and ends the process, unless it is ending already. */
    async #fail(error) {
        if (this.#state !== RUNNING) {
            return;
        }
        this.#state = FAILED;
        const text = error instanceof Error ? error.message : String(error);
        await this.#print(JSON.stringify({ type: "error", error: text }));
        if (this.#state === FAILED) {
            process.exit(EXIT_ERROR);
        }
    }

    /* Stops the agent and ends the process with this status, after the grace even if the agent hangs. */
    async #stop(status) {
        if (this.#state === STOPPED) {
            return;
        }
        this.#state = STOPPED;
        this.#abort.abort();
        await Promise.race([this.#relayOver, setTimeout(STOP_GRACE_MS)]);
        process.exit(status);
    }
}

await new Run().start();
