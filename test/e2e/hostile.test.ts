/**
 * @module test/e2e/hostile
 *
 * Two VMs that pass data through the arena, and a third whose root does what it can against them and the MVM: on the
 * memory that all map, and on its own port in its agent's place. What it runs is in its reference table, so nothing
 * here is refused for its software. What root does to its own measurement and vTPM is in attestation.test.ts.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Console } from "./console.ts"
import { Background, Managed, until } from "./managed.ts"

/** The same file in every VM; long enough that a transfer lasts. */
const FILE = "/usr/bin/mvm"
const BYTES = 8_000_000
const RING_BYTES = 1 << 20
const MEMORY_GROWTH_BYTES = 64 << 20
/** From the attacker's first write to a region that both ends have given up, which is later than either's status. */
const DETECTED_MS = 5000
const REQUESTS = 3200

let mvm: Managed
let alpha: Console
let beta: Console
let hostile: Console
let names = 0

beforeAll(async () => {
  mvm = await Managed.start(["--ring", String(RING_BYTES)])
  await mvm.vm("alpha")
  await mvm.vm("beta")
  await mvm.vm("hostile", { image: "guest-attacker", memory: "1G" })
  await mvm.linked("alpha", "beta", "hostile")
  alpha = await mvm.console("alpha")
  beta = await mvm.console("beta")
  hostile = await mvm.console("hostile")
  await hostile.must("bun --version")
  await mvm.learn("alpha", "beta", "hostile")
  const rule = 'service = "*"\nfrom = "*"\nto = "*"\naction = "allow"\nisolation = "arena"\n'
  const path = join(mvm.state, "policy.toml")
  writeFileSync(`${path}.new`, `[[rule]]\n${rule}`, { mode: 0o600 })
  renameSync(`${path}.new`, path)
  await until(
    "the policy",
    async () => (await mvm.run("policy", "test", "default", "alpha", "beta")).status === 0,
  )
}, 300_000)
afterAll(() => mvm?.stop(), 60_000)

interface Passed {
  sent: number
  received: number
  /** All of it, the same. */
  whole: boolean
  /** What came is a beginning of what was sent. */
  isBeginning: boolean
}

/** A transfer from alpha to beta; `during` begins when its channel is open. */
async function pass(during: () => Promise<void> = async () => {}, bytes = BYTES): Promise<Passed> {
  names += 1
  const out = "/tmp/received"
  const receiving = await Background.start(beta, `in${names}`, `mvm guest recv alpha --quiet >${out}`)
  await alpha.must("rm -f /tmp/gate")
  const sending = await Background.start(
    alpha,
    `out${names}`,
    `{ head -c ${bytes} ${FILE}; until [ -e /tmp/gate ]; do sleep 0.1; done; } | mvm guest send beta --wait 60s --quiet`,
  )
  await during()
  await alpha.must("touch /tmp/gate")
  const sent = (await sending.end({ timeoutMs: 180_000 })).status
  const received = (await receiving.end({ timeoutMs: 180_000 })).status
  const length = Number(await beta.must(`wc -c <${out}`))
  const same = await beta.run(`head -c ${length} ${FILE} | cmp -s - ${out}`)
  return { sent, received, whole: length === bytes, isBeginning: same.status === 0 }
}

const HELLO = { sent: 0, received: 0, whole: true, isBeginning: true }

/**
 * Rows of the audit log that say something became of a channel. Not of refusals: those of a flood are added up, and
 * written now and then.
 */
async function audited(): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const kind of ["grant", "abort", "revoke", "receipt", "untrusted"]) {
    const rows = await mvm.json<unknown[]>("audit", "list", "--kind", kind, "--limit", "1000")
    counts[kind] = rows.length
  }
  return counts
}

/** The channel that alpha has open. */
async function openChannel(): Promise<string> {
  let id = ""
  await until("the channel", async () => {
    const open = await mvm.json<{ id: string; state: string; asker: string }[]>("channel", "list")
    id = open.find(({ state, asker }) => state === "open" && asker === "alpha")?.id ?? ""
    return id !== ""
  })
  return id
}

async function othersGoOn(): Promise<void> {
  expect(await pass(async () => {}, 100_000)).toEqual(HELLO)
}

describe("root of a third VM that writes into the region of a pair", () => {
  /** Races a transfer in a mode of arena-race. */
  async function race(
    mode: string,
  ): Promise<{ passed: Passed; raced: { writes: number; givenUpMs: number | null } }> {
    const racing = await Background.start(
      hostile,
      `race-${mode}`,
      `bun /root/arena-race.js ${RING_BYTES} ${mode} 6`,
    )
    const passed = await pass()
    const { output } = await racing.end({ timeoutMs: 180_000 })
    expect(output).toStartWith('{"mode"')
    const raced = JSON.parse(output) as { writes: number; givenUpMs: number | null }
    console.log(`${mode}: ${JSON.stringify({ ...passed, ...raced })}`)
    expect(raced.writes).toBeGreaterThan(0)
    return { passed, raced }
  }

  const RACES: [title: string, mode: string][] = [
    ["at random ends that channel, is found at once, and no wrong byte comes out", "random"],
    ["at its cursors ends that channel, is found at once, and no wrong byte comes out", "header"],
    ["at its records ends that channel, is found at once, and no wrong byte comes out", "records"],
  ]
  for (const [title, mode] of RACES) {
    test(
      title,
      async () => {
        const { abort: before = 0 } = await audited()
        const { passed, raced } = await race(mode)
        expect(passed.isBeginning).toBe(true)
        expect([passed.sent, passed.received]).toContain(5)
        expect([0, passed.sent === 0]).not.toEqual([passed.received, false])
        expect(raced.givenUpMs).toBeLessThan(DETECTED_MS)
        const aborts = await mvm.json<{ by: string; code: string }[]>("audit", "list", "--kind", "abort")
        expect(aborts.length).toBeGreaterThan(before)
        expect(["alpha", "beta"]).toContain(aborts.at(-1)!.by)
        await othersGoOn()
      },
      300_000,
    )
  }

  test("at its marks changes nothing, since they are hints", async () => {
    const { passed } = await race("marks")
    expect(passed).toEqual(HELLO)
  }, 300_000)
})

describe("root of a third VM, on its own port in its agent's place,", () => {
  /** The supervisor is held and the agent ended: the port is the attack's. */
  const TAKE = [
    "for p in $(pidof mvm); do grep -q agent /proc/$p/cmdline && agent=$p; done",
    "loop=$(grep PPid /proc/$agent/status | tr -dc 0-9)",
    "kill -STOP $loop",
    "kill -9 $agent",
    'while [ -d /proc/$agent/fd ] && [ -n "$(ls /proc/$agent/fd 2>/dev/null)" ]; do sleep 0.1; done',
    "bun /root/link-attack.js $*; status=$?",
    "kill -CONT $loop",
    "exit $status",
  ]

  beforeAll(async () => {
    await hostile.must(`cat >/tmp/take <<'END'\n${TAKE.join("\n")}\nEND`)
  })

  const attack = (words: string): Promise<Background> => {
    names += 1
    return Background.start(hostile, `attack${names}`, `sh /tmp/take ${words}`)
  }

  async function outcome<T>(attacking: Background): Promise<T> {
    const { status, output } = await attacking.end({ timeoutMs: 180_000 })
    // The last whole line of JSON: the agent's log and the kernel's messages may stand around it.
    const [said] = output
      .split("\n")
      .filter((line) => /^\{.*\}$/.test(line))
      .slice(-1)
    expect({ status, output }).toEqual({ status: 0, output: expect.stringMatching(/^\{.*\}$/m) })
    return JSON.parse(said!) as T
  }

  /** Anonymous memory of the MVM. */
  const memory = (): number => {
    const status = readFileSync(`/proc/${mvm.servePid}/status`, "utf8")
    return Number(/^RssAnon:\s+(\d+)/m.exec(status)![1]) * 1024
  }

  afterEach(async () => {
    // Its own agent is back.
    await mvm.linked("hostile")
  }, 60_000)

  test("writes garbage at full speed: others get their channels, and the MVM's memory stays as it was", async () => {
    const before = memory()
    const attacking = await attack("garbage 10")
    expect(await pass(async () => {}, 1_000_000)).toEqual(HELLO)
    const { bytes } = await outcome<{ bytes: number }>(attacking)
    console.log(`garbage: ${JSON.stringify({ bytes, grown: memory() - before })}`)
    expect(bytes).toBeGreaterThan(1_000_000)
    expect(memory() - before).toBeLessThan(MEMORY_GROWTH_BYTES)
  }, 300_000)

  test("claims a channel of two others: it has its own name, keeps nothing, and they notice nothing", async () => {
    let claimed: unknown
    const passed = await pass(async () => {
      claimed = await outcome(await attack(`claims ${await openChannel()}`))
    })
    expect(claimed).toEqual({ name: "hostile", kept: 0, told: ["protocol", "protocol"], answers: true })
    expect(passed).toEqual(HELLO)
  }, 300_000)

  test("makes thousands of requests: they are bounded, others get their channels, and the MVM answers on", async () => {
    const before = memory()
    const attacking = await attack(`flood beta ${REQUESTS}`)
    expect(await pass(async () => {}, 1_000_000)).toEqual(HELLO)
    const { counts, answers } = await outcome<{ counts: Record<string, number>; answers: boolean }>(attacking)
    console.log(`flood: ${JSON.stringify({ counts, grown: memory() - before })}`)
    expect(answers).toBe(true)
    expect(Object.values(counts).reduce((sum, one) => sum + one, 0)).toBeGreaterThanOrEqual(REQUESTS)
    expect(counts["ALLOCATED"]).toBeUndefined()
    expect(memory() - before).toBeLessThan(MEMORY_GROWTH_BYTES)
    await othersGoOn()
  }, 300_000)

  test("takes a grant and never accepts: the asker is told, and the memory is free again", async () => {
    const attacking = await attack("hold")
    const asked = await alpha.run("echo x | mvm guest send hostile --wait 60s --quiet", {
      timeoutMs: 120_000,
    })
    expect(asked).toEqual({ status: 3, output: expect.not.stringContaining("nobody") as string })
    const held = await outcome<{ held: boolean; told: string | null; answers: boolean }>(attacking)
    expect(held).toEqual({ held: true, told: "ABORT", answers: true })
    await mvm.linked("hostile")
    await until("the memory", async () => {
      const { arena } = await mvm.json<{ arena: { sizeBytes: number; freeBytes: number } }>("status")
      return arena.sizeBytes - arena.freeBytes < 2 * RING_BYTES
    })
    await othersGoOn()
  }, 300_000)

  test("repeats frames of this epoch and of the last: none counts, and the link goes on", async () => {
    const before = await audited()
    const attacking = await attack("replay beta")
    await hostile.must("until [ -e /tmp/replayed ]; do sleep 0.2; done", { timeoutMs: 120_000 })
    // Its one request was refused, for nobody waits. Its offer was withdrawn.
    expect(await audited()).toEqual(before)
    const asked = await alpha.run("echo x | mvm guest send hostile --service once --quiet")
    expect(asked.status).toBe(3)
    expect(await mvm.json<unknown[]>("channel", "list")).toEqual([])
    await hostile.must("touch /tmp/replay-over")
    const replayed = await outcome<{ replayed: number }>(attacking)
    console.log(`replay: ${JSON.stringify(replayed)}`)
    expect(replayed).toMatchObject({ first: "no_receiver", answers: [true, true], epochs: 2 })
    expect(replayed.replayed).toBeGreaterThan(4)
  }, 300_000)

  test("has frames carried in what it sends, about a channel of two others: nothing ends, is revoked or receipted", async () => {
    const before = await audited()
    let asContent: number | undefined
    let onRelay: unknown
    const passed = await pass(async () => {
      const id = await openChannel()
      await hostile.must(`bun /root/link-attack.js forge ${id} /tmp/forged`)
      const got = await Background.start(beta, "forged", "mvm guest recv hostile --quiet | sha256sum")
      asContent = (await hostile.run("mvm guest send beta --wait 60s --quiet </tmp/forged")).status
      expect((await got.end()).output).toContain(await hostile.must("sha256sum </tmp/forged"))
      const relayed = await Background.start(beta, "relayed", "mvm guest recv hostile --quiet")
      onRelay = await outcome(await attack(`inject beta ${id}`))
      expect(await relayed.end()).toEqual({ status: 5, output: expect.any(String) as string })
    })
    expect([asContent, onRelay]).toEqual([0, { opened: "OPENED", told: "ABORT", answers: true }])
    expect(passed).toEqual(HELLO)
    const { grant = 0, abort = 0, receipt = 0 } = before
    expect(await audited()).toEqual({ ...before, grant: grant + 3, abort: abort + 1, receipt: receipt + 2 })
    await othersGoOn()
  }, 300_000)

  // Last: its evidence is broken from here to its next boot.
  test("lies about its log, its request and its quote: refused, each for what it is, and so is all that follows", async () => {
    const waiting = await Background.start(
      beta,
      "lied-to",
      "until [ -e /tmp/enough ]; do mvm guest recv hostile --quiet; done",
    )
    const { told } = await outcome<{ told: Record<string, string> }>(await attack("lies beta"))
    await beta.must(
      "touch /tmp/enough; kill -INT $(for p in $(pidof mvm); do grep -q recv /proc/$p/cmdline && echo $p; done)",
    )
    await waiting.end()
    console.log(`lies: ${JSON.stringify(told)}`)
    expect(told).toMatchObject({
      "after lies about the log's offset and bytes": "true",
      "a request signed for another service": "signature",
      "an attest changed and signed with the identity key": "evidence_quote_signature",
    })
    expect(told["the next honest request"]).toStartWith("evidence_")
    // By its agent's word: the MVM may still have the attacker's link.
    await hostile.must(
      `until mvm guest status --json 2>/dev/null | grep -q '"linked": *true'; do sleep 0.2; done`,
      {
        timeoutMs: 120_000,
      },
    )
    const { status, output } = await hostile.run("echo x | mvm guest send beta --quiet")
    expect({ status, output }).toEqual({ status: 4, output: expect.any(String) as string })
    await othersGoOn()
  }, 300_000)
})
