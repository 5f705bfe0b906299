/**
 * @module test/soak/vms
 *
 * Two VMs that pass data of all sizes back and forth for a while: every digest right, memory flat in the MVM and in
 * the agents of both.
 */

import type { Console } from "../e2e/console.ts"
import { Background, Managed } from "../e2e/managed.ts"
import { anonymousBytes, flatness, type Flatness } from "./memory.ts"

export interface VmResult {
  readonly transfers: number
  readonly bytes: number
  readonly errors: readonly string[]
  readonly mvm: Flatness
  readonly agents: Flatness
}

const FILE = "/usr/bin/mvm"
const SIZES = [0, 1, 4096, 100_000, 1_000_000, 8_000_000]

export async function soakVms(minutes: number, note: (line: string) => void): Promise<VmResult> {
  const mvm = await Managed.start()
  try {
    await mvm.vm("alpha")
    await mvm.vm("beta")
    await mvm.linked("alpha", "beta")
    await mvm.learn("alpha", "beta")
    await mvm.allow("alpha beta", "beta alpha")
    const vms = { alpha: await mvm.console("alpha"), beta: await mvm.console("beta") }
    note("two VMs are up")
    return await soakBetween(mvm, vms, minutes)
  } finally {
    await mvm.stop()
  }
}

/** The same between two VMs that are there, of these names, and may send to each other. */
export async function soakBetween(
  mvm: Managed,
  vms: Readonly<Record<"alpha" | "beta", Console>>,
  minutes: number,
): Promise<VmResult> {
  const untilMs = Date.now() + minutes * 60_000
  const errors: string[] = []
  const samples = { mvm: [] as number[], agents: [] as number[] }
  let [transfers, bytes] = [0, 0]
  // However slow the machine, each size once; each round begins in the other direction than the one before.
  while (Date.now() < untilMs || transfers < SIZES.length) {
    const turn = transfers + Math.floor(transfers / SIZES.length)
    const [from, to] = turn % 2 === 0 ? (["alpha", "beta"] as const) : (["beta", "alpha"] as const)
    const size = SIZES[transfers % SIZES.length]!
    const wrong = await pass(vms[from], vms[to], { from, to, size, number: transfers })
    if (wrong) errors.push(wrong)
    transfers += 1
    bytes += size
    samples.mvm.push(anonymousBytes(mvm.servePid))
    samples.agents.push((await agentBytes(vms.alpha)) + (await agentBytes(vms.beta)))
  }
  return { transfers, bytes, errors, mvm: flatness(samples.mvm), agents: flatness(samples.agents) }
}

/** @returns what was wrong with it */
async function pass(
  sender: Console,
  receiver: Console,
  { from, to, size, number }: { from: string; to: string; size: number; number: number },
): Promise<string | undefined> {
  const receiving = await Background.start(
    receiver,
    `soak${number}`,
    `mvm guest recv ${from} --quiet | sha256sum`,
  )
  const sent = await sender.run(`head -c ${size} ${FILE} | mvm guest send ${to} --wait 60s --quiet`, {
    timeoutMs: 180_000,
  })
  if (sent.status !== 0) return `transfer ${number} ended with status ${sent.status}: ${sent.output}`
  const expected = await sender.must(`head -c ${size} ${FILE} | sha256sum`)
  const { output } = await receiving.end({ timeoutMs: 180_000 })
  await receiver.must(`rm -f /tmp/background-soak${number}.*`)
  return output.trim() === expected.trim() ? undefined : `transfer ${number} arrived as ${output}`
}

async function agentBytes(vm: Console): Promise<number> {
  const kilobytes = await vm.must(
    "for p in $(pidof mvm); do grep -q agent /proc/$p/cmdline && grep RssAnon /proc/$p/status | tr -dc 0-9; done",
  )
  return Number(kilobytes) * 1024
}
