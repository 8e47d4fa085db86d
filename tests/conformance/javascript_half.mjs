// npm e2b of one version: runs the steps named on stdin, one a line, and prints what came of each as a line of JSON.
// First argument: the folder whose node_modules has the package.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

import { Step, makeSteps } from './javascript_steps.mjs'

const folder = process.argv[2]
const { version, module } = JSON.parse(readFileSync(join(folder, 'node_modules/e2b/package.json'), 'utf8'))
const sdk = await import(pathToFileURL(join(folder, 'node_modules/e2b', module)))
const steps = makeSteps(sdk)
const stepMs = 40_000 * Step.slow

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

/** A promise that a step forgot is a failure of that step. */
let stray
process.on('unhandledRejection', (reason) => (stray ??= reason))

/** Runs one step; what it gives is the text of its failure, or null. */
async function run(name) {
  const step = new Step(sdk)
  const limit = AbortSignal.timeout(stepMs)
  const late = new Promise((_, reject) => limit.addEventListener('abort', () => reject(new Error(`${name}: not in ${stepMs} ms`))))
  stray = undefined
  try {
    await Promise.race([steps[name](step), late])
  } catch (error) {
    return error.stack
  } finally {
    await step.end()
  }
  return stray === undefined ? null : `unhandled: ${stray?.stack ?? stray}`
}

say({ version, steps: Object.keys(steps) })
for await (const name of createInterface({ input: process.stdin })) say({ step: name, error: await run(name) })
process.exit(0)
