// The steps with npm e2b. makeSteps() gives a function per step; each gets a Step, whose sandboxes end with it.
import assert from 'node:assert/strict'

const LONG = 'sleep 30'
const UNKNOWN_PID = 999999
const ODD = { k: 'a b&c=d é' }
const { equal, deepEqual, ok } = assert

export class Step {
  static slow = Number(process.env.SANDSTORM_SLOW ?? 1)

  constructor(sdk) {
    this.Sandbox = sdk.Sandbox
    this.made = []
    this.mark = `javascript ${process.pid} ${Math.random()}`
  }

  async create(wishes = {}) {
    const sandbox = await this.Sandbox.create('base', { timeoutMs: 60_000, ...wishes })
    this.made.push(sandbox)
    return sandbox
  }

  async end() {
    for (const sandbox of this.made) await sandbox.kill()
  }
}

/** Waits for a condition and returns what it gave. */
async function eventually(condition, what, seconds = 5) {
  const end = Date.now() + seconds * 1000 * Step.slow
  for (;;) {
    const value = await condition()
    if (value) return value
    ok(Date.now() < end, `waited ${seconds * Step.slow} s for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** The error a promise must end in: of exactly this class, its text matching. */
async function fails(promise, Kind, pattern = /./) {
  let error
  await promise.then(
    (value) => assert.fail(`no ${Kind.name}, but ${JSON.stringify(value)}`),
    (reason) => (error = reason)
  )
  if (error.code === 'ERR_ASSERTION') throw error
  equal(error.constructor, Kind, `${error.constructor.name}: ${error.message}`)
  assert.match(error.message, pattern)
  return error
}

const bytes = (text) => new TextEncoder().encode(text)

/** What files.read gives as bytes, as a Buffer. */
const content = async (sandbox, path) => Buffer.from(await sandbox.files.read(path, { format: 'bytes' }))

/** All pages of a list, each as its ids. */
async function pages(step, options) {
  const paginator = step.Sandbox.list(options)
  const found = []
  while (paginator.hasNext) found.push((await paginator.nextItems()).map((info) => info.sandboxId))
  return found
}

const remainingMs = async (sandbox) => (await sandbox.getInfo()).endAt - Date.now()

export function makeSteps(sdk) {
  const {
    AuthenticationError, CommandExitError, FileNotFoundError, InvalidArgumentError, NotFoundError, SandboxError,
    SandboxNotFoundError, TimeoutError
  } = sdk

  /** A request without the access token. */
  const raw = (sandbox, url, options = {}) =>
    fetch(url, { ...options, headers: { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49983' } })

  const lifecycle = {
    async create(step) {
      const sandbox = await step.create({ metadata: ODD, envs: { G: '1' } })
      assert.match(sandbox.sandboxId, /^i[a-z0-9]{20}$/)
      equal(await sandbox.isRunning(), true)
    },
    create_unknown_template: (step) => fails(step.Sandbox.create('nope'), SandboxError, /^404: template 'nope' not found$/),
    create_malformed_key: (step) => fails(step.Sandbox.create('base', { apiKey: 'nope' }), AuthenticationError),
    create_unknown_key: (step) =>
      fails(step.Sandbox.create('base', { apiKey: 'e2b_' + 'f'.repeat(40) }), AuthenticationError, /Invalid API key/),
    async set_timeout(step) {
      const sandbox = await step.create({ metadata: ODD })
      await sandbox.setTimeout(120_000)
      const left = await remainingMs(sandbox)
      ok(left > 120_000 - 5_000 * Step.slow && left <= 120_000, String(left))
      const info = await sandbox.getInfo()
      deepEqual([info.sandboxId, info.templateId, info.metadata], [sandbox.sandboxId, 'base', ODD])
      await sandbox.setTimeout(30_000)
      ok((await remainingMs(sandbox)) <= 30_000)
    },
    async connect_never_shortens(step) {
      const sandbox = await step.create({ timeoutMs: 120_000 })
      const again = await step.Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
      ok((await remainingMs(sandbox)) > 120_000 - 10_000 * Step.slow)
      equal((await again.commands.run('echo same')).stdout, 'same\n')
      await step.Sandbox.connect(sandbox.sandboxId, { timeoutMs: 600_000 })
      ok((await remainingMs(sandbox)) > 500_000)
    },
    async expiry(step) {
      let lateMs
      // Noise can only make it later: the best of three counts.
      for (let tries = 0; tries < 3 && !(lateMs < 400 * Step.slow); tries++) {
        const sandbox = await step.create({ timeoutMs: 2_000 })
        const { endAt } = await sandbox.getInfo()
        await eventually(async () => !(await sandbox.isRunning()), 'expiry', 10)
        lateMs = Date.now() - endAt
        ok(lateMs >= 0, `${-lateMs} ms early`)
        equal(await sandbox.kill(), false)
      }
      ok(lateMs < 400 * Step.slow, `${lateMs} ms late`)
    },
    async list_pages(step) {
      const metadata = { pg: step.mark }
      const older = (await step.create({ metadata })).sandboxId
      const newer = (await step.create({ metadata })).sandboxId
      const query = { metadata, state: ['running'] }
      deepEqual(await pages(step, { query, limit: 1 }), [[newer], [older]])
      deepEqual(await pages(step, { query, limit: 1, order: 'asc' }), [[older], [newer]])
      deepEqual(await pages(step, { query }), [[newer, older]])
    },
    async list_odd_metadata(step) {
      const metadata = { ...ODD, 'odd &=%+ key': step.mark }
      const sandbox = await step.create({ metadata })
      deepEqual(await pages(step, { query: { metadata } }), [[sandbox.sandboxId]])
      deepEqual(await pages(step, { query: { metadata: { ...metadata, k: 'a b' } } }), [[]])
    },
    async pause(step) {
      const metadata = { paused: step.mark }
      const sandbox = await step.create({ metadata })
      await sandbox.files.write('kept', 'yes')
      equal(await sandbox.pause(), true)
      equal(await sandbox.pause(), false)
      equal(await sandbox.isRunning(), false)
      equal((await sandbox.getInfo()).state, 'paused')
      deepEqual(await pages(step, { query: { metadata, state: ['paused'] } }), [[sandbox.sandboxId]])
      const again = await sandbox.connect()
      equal(again.sandboxId, sandbox.sandboxId)
      equal(await again.isRunning(), true)
      equal(await again.files.read('kept'), 'yes')
    },
    async killed_while_running(step) {
      const sandbox = await step.create()
      const handle = await sandbox.commands.run(LONG, { background: true })
      equal(await sandbox.kill(), true)
      await fails(handle.wait(), TimeoutError, /killed or reached its end of life/)
    },
    async use_after_kill(step) {
      const sandbox = await step.create()
      await sandbox.kill()
      await fails(sandbox.commands.run('true'), SandboxNotFoundError)
      await fails(sandbox.setTimeout(60_000), SandboxNotFoundError)
      await fails(sandbox.files.read('x'), TimeoutError)
    },
    async kill(step) {
      const sandbox = await step.create()
      equal(await sandbox.kill(), true)
      equal(await step.Sandbox.kill(sandbox.sandboxId), false)
      await fails(step.Sandbox.connect(sandbox.sandboxId), SandboxNotFoundError)
    }
  }

  const commands = {
    async run_output(step) {
      const sandbox = await step.create({ envs: { G: '1' } })
      const result = await sandbox.commands.run('echo hi; echo err >&2; echo $G')
      deepEqual([result.exitCode, result.stdout, result.stderr], [0, 'hi\n1\n', 'err\n'])
    },
    async run_exit_code(step) {
      const error = await fails((await step.create()).commands.run('echo out; exit 3'), CommandExitError)
      deepEqual([error.exitCode, error.stdout, error.error], [3, 'out\n', 'exit status 3'])
    },
    async run_unknown_command(step) {
      const error = await fails((await step.create()).commands.run('no-such-command-here'), CommandExitError)
      equal(error.exitCode, 127)
      assert.match(error.stderr, /no-such-command-here/)
    },
    async run_cwd_and_envs(step) {
      const result = await (await step.create()).commands.run('pwd; echo $X; id -un', { cwd: '/tmp', envs: { X: 'y' } })
      equal(result.stdout, '/tmp\ny\nuser\n')
    },
    run_missing_cwd: async (step) =>
      fails((await step.create()).commands.run('true', { cwd: '/nope' }), InvalidArgumentError, /cwd '\/nope' does not exist/),
    run_unknown_user: async (step) =>
      fails((await step.create()).commands.run('true', { user: 'nosuch' }), AuthenticationError, /invalid username: 'nosuch'/),
    async run_timeout_kills(step) {
      const sandbox = await step.create()
      const run = sandbox.commands.run('echo $$ >/tmp/pid; exec sleep 30', { timeoutMs: 2000 * Step.slow })
      await fails(run, TimeoutError)
      const check = 'kill -0 $(cat /tmp/pid) 2>/dev/null && echo alive || echo gone'
      await eventually(async () => (await sandbox.commands.run(check)).stdout === 'gone\n', 'the end of the process')
    },
    async output_keeps_characters_whole(step) {
      const result = await (await step.create()).commands.run("printf 'é%.0s' $(seq 100000)")
      ok(result.stdout === 'é'.repeat(100000))
    },
    async output_comes_in_order(step) {
      // Each piece comes before the next is printed: the program waits for a file that whoever gets the piece makes.
      const sandbox = await step.create()
      const pieces = []
      const command = 'for i in 1 2 3 4 5; do echo $i; until [ -e /tmp/$i ]; do sleep 0.02; done; done'
      const result = await sandbox.commands.run(command, {
        onStdout: async (piece) => {
          pieces.push(piece)
          await sandbox.files.write(`/tmp/${piece.trim()}`, '')
        }
      })
      deepEqual([pieces, result.stdout], [['1\n', '2\n', '3\n', '4\n', '5\n'], '1\n2\n3\n4\n5\n'])
    },
    async background_list_and_kill(step) {
      const sandbox = await step.create()
      const handle = await sandbox.commands.run(LONG, { background: true, envs: { X: 'y' }, cwd: '/tmp' })
      const listed = (await sandbox.commands.list()).find(({ pid }) => pid === handle.pid)
      deepEqual([listed.cmd, listed.args, listed.cwd, listed.envs.X], ['/bin/bash', ['-l', '-c', LONG], '/tmp', 'y'])
      equal(await handle.kill(), true)
      const error = await fails(handle.wait(), CommandExitError)
      deepEqual([error.exitCode, error.error], [-1, 'signal: killed'])
      ok(!(await sandbox.commands.list()).some(({ pid }) => pid === handle.pid))
    },
    kill_unknown_pid: async (step) => equal(await (await step.create()).commands.kill(UNKNOWN_PID), false),
    async processes_share_the_sandbox(step) {
      const sandbox = await step.create()
      await sandbox.files.write('/tmp/www/page', 'served')
      await sandbox.commands.run('python3 -m http.server 8123 --bind 127.0.0.1 --directory /tmp/www', { background: true })
      const fetch = `python3 -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8123/page").read().decode())'`
      const fetched = async () => (await sandbox.commands.run(`${fetch} 2>/dev/null || true`)).stdout
      equal(await eventually(fetched, 'the server', 10), 'served\n')
    },
    async attach(step) {
      const sandbox = await step.create()
      const waits = 'until [ -e /tmp/go ]; do sleep 0.02; done; echo later'
      const handle = await sandbox.commands.run(waits, { background: true })
      await handle.disconnect()
      const again = await sandbox.commands.connect(handle.pid)
      await sandbox.files.write('/tmp/go', '')
      const result = await again.wait()
      deepEqual([result.exitCode, result.stdout], [0, 'later\n'])
    },
    async attach_to_the_finished(step) {
      const sandbox = await step.create()
      const handle = await sandbox.commands.run('echo once; exit 4', { background: true })
      const first = await fails(handle.wait(), CommandExitError)
      deepEqual([first.exitCode, first.stdout], [4, 'once\n'])
      const late = await sandbox.commands.connect(handle.pid)
      const second = await fails(late.wait(), CommandExitError)
      deepEqual([second.exitCode, second.stdout], [4, ''])
    },
    attach_to_unknown_pid: async (step) =>
      fails((await step.create()).commands.connect(UNKNOWN_PID), NotFoundError, /process with pid 999999 not found/),
    async stdin(step) {
      const sandbox = await step.create()
      const handle = await sandbox.commands.run('cat', { background: true, stdin: true })
      await sandbox.commands.sendStdin(handle.pid, 'one\n')
      await handle.sendStdin('zwei é\n')
      await sandbox.commands.closeStdin(handle.pid)
      equal((await handle.wait()).stdout, 'one\nzwei é\n')
    },
    async stdin_of_none(step) {
      const sandbox = await step.create()
      equal((await sandbox.commands.run('cat')).stdout, '')
      const handle = await sandbox.commands.run(LONG, { background: true, stdin: false })
      await fails(sandbox.commands.sendStdin(handle.pid, 'x'), SandboxError, /stdin not enabled or closed/)
    },
    async pty(step) {
      const sandbox = await step.create()
      let seen = ''
      const handle = await sandbox.pty.create({ cols: 80, rows: 24, onData: (data) => void (seen += Buffer.from(data)) })
      await sandbox.pty.resize(handle.pid, { cols: 97, rows: 31 })
      await sandbox.pty.sendInput(handle.pid, bytes('tty; stty size\n'))
      // The kernel drops what a terminal has not yet handed on when its shell exits: first the output, then the exit.
      await eventually(() => seen.includes('31 97'), '31 97')
      assert.match(seen, /\/dev\/pts\//)
      await sandbox.pty.sendInput(handle.pid, bytes('exit 5\n'))
      equal((await fails(handle.wait(), CommandExitError)).exitCode, 5)
    }
  }

  /** Uploads bytes one way and reads them back. */
  async function checkUpload(step, options) {
    const sandbox = await step.create()
    const sent = Buffer.alloc(256_000, Buffer.from(Array.from({ length: 256 }, (_, i) => i)))
    const blob = new Blob([sent])
    equal((await sandbox.files.write('dir/x y.bin', blob, options)).path, '/home/user/dir/x y.bin')
    ok(sent.equals(await content(sandbox, 'dir/x y.bin')))
  }

  const files = {
    async write_one(step) {
      const sandbox = await step.create()
      const info = await sandbox.files.write('one.txt', 'a longer text')
      deepEqual([info.name, info.path, info.type], ['one.txt', '/home/user/one.txt', 'file'])
      await sandbox.files.write('one.txt', 'é')
      equal(await sandbox.files.read('/home/user/one.txt'), 'é')
      equal((await sandbox.commands.run('stat -c %U /home/user/one.txt')).stdout, 'user\n')
    },
    async write_many(step) {
      const sandbox = await step.create()
      const wanted = { '/opt/agent-runner/r.mjs': bytes('1;\n'), 'rel/b.bin': new Uint8Array([0, 255, 10]), '/home/user/x y/é.txt': bytes('é') }
      const list = Object.entries(wanted).map(([path, data]) => ({ path, data: new Blob([data]) }))
      const paths = (await sandbox.files.write(list)).map((info) => info.path)
      deepEqual(paths, ['/opt/agent-runner/r.mjs', '/home/user/rel/b.bin', '/home/user/x y/é.txt'])
      for (const [path, data] of Object.entries(wanted)) deepEqual(await content(sandbox, path), Buffer.from(data))
    },
    write_nothing: async (step) => deepEqual(await (await step.create()).files.write([]), []),
    write_octet_stream: (step) => checkUpload(step, { useOctetStream: true }),
    write_gzip: (step) => checkUpload(step, { gzip: true }),
    async write_metadata(step) {
      const sandbox = await step.create()
      const info = await sandbox.files.write('m.txt', 'x', { metadata: { Key: 'a value' } })
      deepEqual(info.metadata, { key: 'a value' })
      deepEqual((await sandbox.files.getInfo('m.txt')).metadata, { key: 'a value' })
    },
    async read(step) {
      const sandbox = await step.create()
      await sandbox.files.write('r.txt', 'näive\n')
      for (const path of ['r.txt', '~/r.txt', '/home/user/r.txt']) equal(await sandbox.files.read(path), 'näive\n')
      deepEqual(await content(sandbox, 'r.txt'), Buffer.from('näive\n'))
      equal(await (await sandbox.files.read('r.txt', { format: 'blob' })).text(), 'näive\n')
      equal(await new Response(await sandbox.files.read('r.txt', { format: 'stream' })).text(), 'näive\n')
    },
    read_missing: async (step) =>
      fails((await step.create()).files.read('nothing'), FileNotFoundError, /path '\/home\/user\/nothing' does not exist/),
    read_directory: async (step) =>
      fails((await step.create()).files.read('/tmp'), InvalidArgumentError, /path '\/tmp' is a directory/),
    async read_without_token(step) {
      const sandbox = await step.create()
      const answer = await raw(sandbox, `${process.env.E2B_SANDBOX_URL}/files?path=/etc/passwd`)
      deepEqual([answer.status, (await answer.json()).code], [401, 401])
    },
    async signed_urls(step) {
      const sandbox = await step.create()
      const form = new FormData()
      form.append('file', new Blob(['signed']), 's.txt')
      const sent = await raw(sandbox, await sandbox.uploadUrl('s.txt'), { method: 'POST', body: form })
      equal(sent.status, 200)
      equal((await sent.json())[0].path, '/home/user/s.txt')
      const got = await raw(sandbox, await sandbox.downloadUrl('s.txt', { useSignatureExpiration: 60 }))
      deepEqual([got.status, await got.text()], [200, 'signed'])
      const refusals = [
        [await sandbox.uploadUrl('s.txt'), /invalid signature/],
        [await sandbox.downloadUrl('s.txt', { useSignatureExpiration: -60 }), /signature is already expired/],
        [(await sandbox.downloadUrl('s.txt')).split('&signature')[0], /missing signature query parameter/]
      ]
      for (const [url, reason] of refusals) {
        const refused = await raw(sandbox, url)
        equal(refused.status, 401)
        assert.match((await refused.json()).message, reason)
      }
    }
  }

  const filesystem = {
    async exists(step) {
      const sandbox = await step.create()
      await sandbox.files.write('there', '')
      deepEqual([await sandbox.files.exists('there'), await sandbox.files.exists('/tmp'), await sandbox.files.exists('nothing')], [true, true, false])
    },
    async make_dir(step) {
      const sandbox = await step.create()
      equal(await sandbox.files.makeDir('a/b'), true)
      equal(await sandbox.files.makeDir('/home/user/a/b'), false)
      equal((await sandbox.commands.run("stat -c '%U %F' a/b")).stdout, 'user directory\n')
      await sandbox.files.write('file', '')
      await fails(sandbox.files.makeDir('file'), InvalidArgumentError)
    },
    async list_dir(step) {
      const sandbox = await step.create()
      await sandbox.files.makeDir('d/sub')
      await sandbox.files.write('d/f', 'abc')
      const listed = await sandbox.files.list('d')
      deepEqual(listed.map(({ name, type, path }) => [name, type, path]), [['f', 'file', '/home/user/d/f'], ['sub', 'dir', '/home/user/d/sub']])
      equal(listed[0].size, 3)
    },
    async list_depth(step) {
      const sandbox = await step.create()
      await sandbox.files.write('d/one/two/three', '')
      deepEqual((await sandbox.files.list('d', { depth: 2 })).map(({ name }) => name), ['one', 'two'])
    },
    async list_missing(step) {
      const sandbox = await step.create()
      await fails(sandbox.files.list('nothing'), FileNotFoundError, /directory not found/)
      await sandbox.files.write('file', '')
      await fails(sandbox.files.list('file'), InvalidArgumentError, /path is not a directory/)
    },
    async get_info(step) {
      const sandbox = await step.create()
      await sandbox.files.write('i.txt', '12345')
      await sandbox.commands.run('chmod 640 i.txt; ln -s i.txt link')
      const info = await sandbox.files.getInfo('i.txt')
      deepEqual([info.name, info.type, info.path, info.size, typeof info.size], ['i.txt', 'file', '/home/user/i.txt', 5, 'number'])
      deepEqual([info.mode, info.permissions, info.owner, info.group], [0o640, '-rw-r-----', 'user', 'user'])
      ok(Math.abs(Date.now() - info.modifiedTime) < 30_000 * Step.slow)
      equal((await sandbox.files.getInfo('link')).symlinkTarget, '/home/user/i.txt')
      await fails(sandbox.files.getInfo('nothing'), FileNotFoundError)
    },
    async rename(step) {
      const sandbox = await step.create()
      await sandbox.files.write('old', 'kept')
      const info = await sandbox.files.rename('old', 'new/place')
      deepEqual([info.name, info.path], ['place', '/home/user/new/place'])
      equal(await sandbox.files.read('new/place'), 'kept')
      equal(await sandbox.files.exists('old'), false)
      await fails(sandbox.files.rename('old', 'elsewhere'), FileNotFoundError, /source file not found/)
    },
    async remove(step) {
      const sandbox = await step.create()
      await sandbox.files.write('tree/a/b', '')
      for (let i = 0; i < 2; i++) {
        await sandbox.files.remove('tree')
        equal(await sandbox.files.exists('tree'), false)
      }
    },
    async watch_dir(step) {
      const sandbox = await step.create()
      await sandbox.files.makeDir('w')
      const seen = new Set()
      const handle = await sandbox.files.watchDir('w', ({ type, name }) => void seen.add(`${type} ${name}`))
      await sandbox.files.write('w/new', 'x')
      await sandbox.commands.run('mv w/new w/moved; rm w/moved')
      const wanted = ['create new', 'write new', 'rename new', 'remove moved']
      await eventually(() => wanted.every((event) => seen.has(event)), wanted.join(', '))
      await handle.stop()
    },
    watch_missing: async (step) => fails((await step.create()).files.watchDir('nothing', () => {}), FileNotFoundError, /nothing/)
  }

  return { ...lifecycle, ...commands, ...files, ...filesystem }
}
