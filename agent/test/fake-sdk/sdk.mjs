/*
 * A stand-in for the Agent SDK: query() plays the steps that the prompt holds as JSON.
 *
 *   {"yield": message}      one message              {"throw": text}        the iteration fails
 *   {"options": true}       a message with what query() was called with
 *   {"big": bytes}          a message of that size   {"log": text}          writes to the console
 *   {"crash": text}         an exception of no promise, later
 *   {"touch": path}         makes a file             {"hang": true}         waits until aborted
 *   {"hang_on": true}       waits for ever, whatever happens
 */
import { writeFileSync } from "node:fs";

const FAR_MS = 1_000_000;

/* An open handle that would keep the process alive, like the real SDK's child. */
function holdOpen() {
    return setInterval(() => {}, FAR_MS);
}

/* Rejects when the signal fires. */
function aborted(signal) {
    return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
            console.error("the agent was stopped");
            reject(new Error("aborted"));
        });
    });
}

function describe(prompt, options) {
    const { abortController, env, ...rest } = options;
    return { type: "options", prompt: prompt.length, options: rest, env, abortable: abortController.signal !== undefined };
}

export async function* query({ prompt, options }) {
    holdOpen();
    for (const step of JSON.parse(prompt)) {
        if (step.yield) yield step.yield;
        if (step.options) yield describe(prompt, options);
        if (step.big) yield { filler: "x".repeat(step.big), type: "assistant" };
        if (step.log) console.log(step.log), process.stdout.write(`${step.log}\n`);
        if (step.stderr) options.stderr(step.stderr);
        if (step.crash) setImmediate(() => { throw new Error(step.crash); });
        if (step.touch) writeFileSync(step.touch, "");
        if (step.hang) await aborted(options.abortController.signal);
        if (step.hang_on) await new Promise(() => {});
        if (step.throw) throw new Error(step.throw);
    }
}
