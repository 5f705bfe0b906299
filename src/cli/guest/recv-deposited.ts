/**
 * @module cli/guest/recv-deposited
 *
 * `recv --deposited`: what was left for this machine, on standard output or, whole or not at all, in a file.
 */

import { basename, dirname } from "node:path"
import { AgentClient } from "../../guest/agent-client.ts"
import { Partial } from "../../guest/copy/partial.ts"
import { DepositClient } from "../../guest/deposits/deposit-client.ts"
import { CollectedContent } from "../../guest/deposits/deposit-content.ts"
import { outputOf } from "../../guest/sink.ts"
import { fromHex, toHex, utf8 } from "../../lib/bytes.ts"
import { MvmError, asMvmError, errnoOf, type ErrorCode } from "../../lib/errors.ts"
import { formatSize } from "../../lib/units.ts"
import { Folder } from "../../platform/folder.ts"
import type { Call } from "../command.ts"
import { agentSocket } from "../connect.ts"
import { ProgressLine, WaitingLine, note } from "../output.ts"

const STDOUT = 1
const LOOK_MS = 1000
const READ_WRITE_ALL = 0o666
/** Nothing waits, or whoever knows is not there now. */
const PASSING: ReadonlySet<ErrorCode> = new Set(["unreachable", "no_mvm", "no_agent", "aborted", "timeout"])

export interface Wanted {
  readonly source: string | undefined
  readonly service: string
  /** hex of a deposit's id */
  readonly again: string | undefined
  readonly waitMs: number
  /** A file, in place of standard output */
  readonly output: string | undefined
  readonly keep: boolean
}

/** @throws MvmError as the agent or the MVM said */
export async function receiveDeposited(call: Call, wanted: Wanted): Promise<void> {
  const again = wanted.again === undefined ? undefined : idOf(wanted.again)
  const deadline = performance.now() + wanted.waitMs
  for (let count = 0; ; count += 1) {
    try {
      await takeOne(call, wanted, { again, deadline })
    } catch (error) {
      // All that waited is taken: that was the wish.
      if (wanted.keep && count > 0 && asMvmError(error).code === "unreachable") return
      throw error
    }
    if (!wanted.keep) return
  }
}

async function takeOne(
  call: Call,
  wanted: Wanted,
  { again, deadline }: { again: Uint8Array | undefined; deadline: number },
): Promise<void> {
  const { service, source } = wanted
  const { client, collected } = await awaitDeposit(call, { service, source, again }, deadline)
  const line = new ProgressLine(`from ${source ?? "anybody"}`, undefined, call.flag("quiet"))
  try {
    const content = await CollectedContent.fetch(client, collected, (bytes) => line.update(bytes))
    try {
      if (wanted.output === undefined) await toStdout(client, content, call.flag("raw"))
      else await toFile(client, content, wanted.output)
    } finally {
      content.close()
    }
    line.end()
    report(call, content)
  } finally {
    line.end()
    client.agent.close()
  }
}

/** Looks again and again until something waits, or the time is over; the MVM and an agent that was there may restart. */
async function awaitDeposit(
  call: Call,
  asked: Parameters<DepositClient["collect"]>[0],
  deadline: number,
): Promise<{ client: DepositClient; collected: Awaited<ReturnType<DepositClient["collect"]>> }> {
  const isWaiting = deadline > performance.now() && !call.flag("quiet")
  const line = isWaiting ? new WaitingLine(`waiting for a deposit, service ${asked.service}`) : undefined
  try {
    for (let hadAgent = false; ;) {
      let agent: AgentClient | undefined
      try {
        agent = await AgentClient.connect(agentSocket(call))
        hadAgent = true
        const client = new DepositClient(agent)
        return { client, collected: await client.collect(asked) }
      } catch (error) {
        agent?.close()
        const isPassing = hadAgent && PASSING.has(asMvmError(error).code)
        if (!isPassing || performance.now() >= deadline) throw error
      }
      await Bun.sleep(Math.min(LOOK_MS, Math.max(0, deadline - performance.now())))
    }
  } finally {
    line?.end()
  }
}

/** Nobody can take back what a pipe has: that it was begun is remembered before the first byte. */
async function toStdout(client: DepositClient, content: CollectedContent, isRaw: boolean): Promise<void> {
  const { agent } = client
  const sink = outputOf(STDOUT, { agent, check: () => agent.check() }, isRaw)
  try {
    await client.tell("begun")
    await content.release((bytes) => sink.write(bytes))
    await client.tell("delivered")
  } finally {
    sink.close()
  }
}

/** Under its name only when all of it is on disk. */
async function toFile(client: DepositClient, content: CollectedContent, path: string): Promise<void> {
  const name = basename(path)
  try {
    const folder = Folder.open(dirname(path))
    try {
      const partial = Partial.open(folder, utf8(name))
      try {
        let offset = 0
        partial.keep(0)
        await content.release(async (bytes) => {
          partial.write(bytes, offset)
          offset += bytes.length
        })
        const now = Date.now()
        const modified = { seconds: Math.floor(now / 1000), nanoseconds: (now % 1000) * 1_000_000 }
        await partial.commit(offset, { mode: READ_WRITE_ALL & ~process.umask(), modified })
      } finally {
        partial.discard()
      }
      folder.sync()
    } finally {
      folder.close()
    }
  } catch (cause) {
    if (cause instanceof MvmError) throw cause
    throw new MvmError("sink", `cannot write ${path}: ${errnoOf(cause) ?? "failed"}`, { cause })
  }
  await client.tell("delivered")
}

function report(call: Call, { statement }: CollectedContent): void {
  const { depositId, source, service, rule, lengthBytes, hash, timeMs } = statement
  const depositedAt = new Date(timeMs).toISOString()
  if (call.flag("json")) {
    const facts = {
      deposit: toHex(depositId),
      peer: source.name,
      peerVerdict: source.verdict,
      peerMeasurement: source.kind,
      peerBoot: toHex(source.bootId),
      peerProgram: source.program.path,
      peerProgramDigest: toHex(source.program.digest),
      service,
      rule,
      bytes: lengthBytes,
      hash: toHex(hash),
      depositedAt,
    }
    process.stderr.write(`${JSON.stringify(facts)}\n`)
  } else if (!call.flag("quiet")) {
    note(
      `${formatSize(lengthBytes)} that ${source.name} left at ${depositedAt}; it was ${source.verdict} then ` +
        `(${source.program.path}), the hash agrees`,
    )
  }
}

function idOf(text: string): Uint8Array {
  if (/^[0-9a-f]{32}$/.test(text)) return fromHex(text)
  throw new MvmError("usage", `--again: ${text} is not the id of a deposit`, {
    hint: "32 hex digits, as mvm guest status and mvm deposit list show them",
  })
}
