/* The rules of prepare-template.sh, with a fake npm. Run: node --test agent/test/template.test.mjs */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const AGENT = fileURLToPath(new URL("..", import.meta.url));
const PARTS = ["package.json", "package-lock.json", ".npmrc", "prepare-template.sh"];
const PACKAGES = "node_modules/@anthropic-ai";

/* Counts its calls, installs a private file of an SDK and a package for musl, or fails when told to. */
const FAKE_NPM = `#!/bin/sh
echo "$@" >>"$NPM_CALLS"
mkdir -p ${PACKAGES}/claude-agent-sdk ${PACKAGES}/claude-agent-sdk-linux-x64-musl
[ -z "$NPM_FAILS" ] || exit 1
echo "{}" >${PACKAGES}/claude-agent-sdk/package.json
chmod 600 ${PACKAGES}/claude-agent-sdk/package.json
`;

/* A copy of agent/ with a fake npm, and a place for the template. */
async function workshop(t) {
    const folder = await mkdtemp(join(tmpdir(), "template-test-"));
    t.after(() => rm(folder, { recursive: true }));
    await mkdir(join(folder, "agent"));
    await mkdir(join(folder, "bin"));
    await Promise.all(PARTS.map((name) => cp(join(AGENT, name), join(folder, "agent", name))));
    await writeFile(join(folder, "bin/npm"), FAKE_NPM, { mode: 0o755 });
    return { folder, calls: join(folder, "calls"), templates: join(folder, "templates") };
}

/* Runs the script; resolves to its exit status and what it said. */
function prepare(shop, env = {}) {
    const options = {
        env: { PATH: `${shop.folder}/bin:${process.env.PATH}`, HOME: shop.folder, NPM_CALLS: shop.calls, ...env },
    };
    return new Promise((resolve) => {
        const arguments_ = [join(shop.templates, "sandstorm")];
        execFile(join(shop.folder, "agent/prepare-template.sh"), arguments_, options, (error, _, stderr) =>
            resolve({ code: error ? error.code : 0, stderr }),
        );
    });
}

/* How often npm was called. */
async function npmCalls(shop) {
    return (await readFile(shop.calls, "utf8")).trim().split("\n").length;
}

/* What stands in the template's folder beside the template and the lock. */
async function leftovers(shop) {
    return (await readdir(shop.templates)).filter((name) => !["sandstorm", ".sandstorm.lock"].includes(name));
}

test("it installs from the lock file, for every uid to read, without musl packages", async (t) => {
    const shop = await workshop(t);
    assert.equal((await prepare(shop)).code, 0);
    assert.match(await readFile(shop.calls, "utf8"), /^ci /);
    const packages = join(shop.templates, "sandstorm", PACKAGES);
    assert.deepEqual(await readdir(packages), ["claude-agent-sdk"]);
    assert.equal((await stat(join(packages, "claude-agent-sdk/package.json"))).mode & 0o777, 0o644);
    assert.equal((await stat(join(shop.templates, "sandstorm"))).mode & 0o777, 0o755);
    assert.deepEqual(await leftovers(shop), []);
});

test("it does nothing until the pins change", async (t) => {
    const shop = await workshop(t);
    await prepare(shop);
    assert.equal((await prepare(shop)).code, 0);
    assert.equal(await npmCalls(shop), 1);
    await writeFile(join(shop.folder, "agent/package-lock.json"), "{}");
    assert.equal((await prepare(shop)).code, 0);
    assert.equal(await npmCalls(shop), 2);
    assert.deepEqual(await leftovers(shop), []);
});

test("a failed install leaves the old template and nothing else", async (t) => {
    const shop = await workshop(t);
    await prepare(shop);
    await writeFile(join(shop.folder, "agent/package-lock.json"), "{}");
    const { code, stderr } = await prepare(shop, { NPM_FAILS: "1" });
    assert.equal(code, 1);
    assert.match(stderr, /npm ci failed/);
    await stat(join(shop.templates, "sandstorm", PACKAGES, "claude-agent-sdk/package.json"));
    assert.deepEqual(await leftovers(shop), []);
});

test("two at once install once", async (t) => {
    const shop = await workshop(t);
    const ends = await Promise.all([prepare(shop), prepare(shop), prepare(shop)]);
    assert.deepEqual(ends.map((end) => end.code), [0, 0, 0]);
    assert.equal(await npmCalls(shop), 1);
});

test("what a killed one left is cleared by the next", async (t) => {
    const shop = await workshop(t);
    await mkdir(join(shop.templates, ".sandstorm.new.abc123/template"), { recursive: true });
    assert.equal((await prepare(shop)).code, 0);
    assert.deepEqual(await leftovers(shop), []);
});

test("a missing npm is said so", async (t) => {
    const shop = await workshop(t);
    await rm(join(shop.folder, "bin/npm"));
    await mkdir(join(shop.folder, "few"));
    await symlink("/usr/bin/dirname", join(shop.folder, "few/dirname"));
    const { code, stderr } = await prepare(shop, { PATH: join(shop.folder, "few") });
    assert.equal(code, 1);
    assert.match(stderr, /npm is missing/);
});
