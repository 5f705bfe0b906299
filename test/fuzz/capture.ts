/**
 * @module test/fuzz/capture
 *
 * Records what real runs put on the wire, as seeds: one message of each kind on the link, TPM responses of each
 * command, evidence, an audit export and reference values. Local endpoints with real swtpm processes; nothing made up.
 */

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { sha256 } from "../../src/lib/crypto.ts"
import { TPM_CC } from "../../src/tpm/constants.ts"
import { LinkProxy } from "../integration/link-proxy.ts"
import { TestHost } from "../integration/host.ts"
import { CORPUS } from "./target.ts"
import { TARGETS } from "./targets.ts"

/** So many of one kind are enough: the grammar makes the rest. */
const PER_TARGET = 2
const SMALL_BYTES = 24 * 1024

const kept = new Map<string, number>()
const known = new Set(TARGETS.map(({ name }) => name))

function keep(target: string, bytes: Uint8Array): void {
  const count = kept.get(target) ?? 0
  if (!known.has(target) || count >= PER_TARGET || bytes.length === 0 || bytes.length > SMALL_BYTES) return
  kept.set(target, count + 1)
  const folder = join(CORPUS, "seeds", target)
  if (count === 0) rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${sha256(bytes).toHex().slice(0, 12)}.bin`), bytes)
}

const names = new Map<number, string>(
  Object.entries(TPM_CC).map(([name, code]) => [code, name.replaceAll("_", "").toLowerCase()]),
)
const tpmTargets = new Map(
  TARGETS.filter(({ name }) => name.startsWith("tpm.")).map(({ name }) => [
    name.slice(4).replaceAll("_", "").toLowerCase(),
    name,
  ]),
)

let host: TestHost | undefined
const proxy = new LinkProxy(() => host!.state)
let asked = 0
proxy.watcher = ({ name, message }) => {
  if (name === "ALLOC") asked += 1
  keep(`link.${name}`, message)
}
let lastCommand = 0
proxy.onTpm = ({ direction, bytes }) => {
  if (bytes.length < 10) return
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  if (direction === "command") lastCommand = view.getUint32(6)
  else keep(tpmTargets.get(names.get(lastCommand) ?? "") ?? "", bytes)
}

async function run(made: TestHost): Promise<void> {
  const content = crypto.getRandomValues(new Uint8Array(100_000))
  for (const words of [[], ["--digest", "sha256"]]) {
    const receiver = await made.recv("b", join(made.folder, "out"))
    const sender = made.send("a", "b", content, ...words)
    if ((await sender.over()) !== 0 || (await receiver.over()) !== 0) throw new Error(sender.stderr())
  }
  // A refusal, a cancelled wait, and an end by the operator.
  await made.run("guest", "send", "--local", "b", "nobody")
  const before = asked
  const waiting = made.send("a", "b", content, "--wait", "60s")
  await made.until("the request", () => asked > before)
  waiting.kill("SIGINT")
  await waiting.over()
  const receiver = await made.recv("b", join(made.folder, "out"))
  const endless = made.send("a", "b", "pipe")
  await made.until("the channel", async () => (await made.status()).channels === 1)
  await made.must("channel", "close", (await made.json<{ id: string }[]>("channel", "list"))[0]!.id)
  await Promise.all([endless.over(), receiver.over()])
  keep("reference-file", Buffer.from(await made.must("measure", "export", "a")))
  keep("audit-export", Buffer.from((await made.must("audit", "export")).slice(0, SMALL_BYTES)))
  keep("evidence-bundle", Buffer.from(await made.must("measure", "evidence", "a")))
  keep("audit-head", new Uint8Array(readFileSync(join(made.state, "audit.head"))))
}

const made = await TestHost.start({ guestState: proxy.guestState, onMember: proxy.add })
try {
  host = made
  for (const name of ["a", "b"]) await made.member(name)
  await run(made)
} finally {
  await made.end()
  proxy.close()
}
const seeds = join(CORPUS, "seeds")
process.stdout.write(
  `${[...kept.values()].reduce((sum, one) => sum + one, 0)} seeds in ${readdirSync(seeds).length} folders of ${seeds}\n`,
)
