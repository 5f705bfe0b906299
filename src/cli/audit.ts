/** @module cli/audit */

import { fromHex } from "../lib/bytes.ts"
import { MvmError, STATUS } from "../lib/errors.ts"
import { printable } from "../lib/log.ts"
import { verifyExport } from "../mvm/state/audit-chain.ts"
import { parseDuration } from "../lib/units.ts"
import type { Call, CommandSpec } from "./command.ts"
import type { Params } from "../platform/json-rpc.ts"
import { JSON_OPTION, STATE_OPTION, ask, withMvm } from "./connect.ts"
import { readLines } from "./input.ts"
import { counted, note, print, printJson, printTable } from "./output.ts"
import { parsePublicKey } from "./public-key.ts"

interface AuditView {
  sequence: number
  time: string
  kind: string
  hash: string
  [field: string]: unknown
}

interface Verification {
  ok: boolean
  rows: number
  head: { sequence: number; hash: string } | undefined
  firstBad?: { sequence: number; reason: string }
  breaks?: { sequence: number; reason: string }[]
}

const FOLLOW_MS = 500
/** In half a second. */
const MAX_FOLLOWED = 100_000

const COMMON = new Set(["sequence", "time", "kind", "hash"])

export const auditList: CommandSpec = {
  usage: "audit list",
  summary: "show the audit log, newest last",
  options: [
    STATE_OPTION,
    { flags: "--kind <word>", description: "only rows of this kind (grant, refused, receipt, ...)" },
    { flags: "--vm <name>", description: "only rows about this VM" },
    {
      flags: "--channel <id>",
      description: "only rows about this channel (the beginning of its id is enough)",
    },
    { flags: "--since <time>", description: "only the last so long, or since a date" },
    { flags: "--until <time>", description: "only until so long ago, or until a date" },
    { flags: "--limit <n>", description: "the newest so many (default 100)" },
    { flags: "--follow", description: "go on with rows as they come" },
    JSON_OPTION,
  ],
  examples: [
    "audit list",
    "audit list --kind receipt --since 1h --json",
    "audit list --vm web --since 2026-11-01 --until 2026-12-01",
    "audit list --follow --kind refused",
  ],
  async run(call) {
    const filter = {
      kind: call.text("kind"),
      vm: call.text("vm"),
      channel: call.text("channel"),
      sinceMs: timeOf(call, "since"),
      untilMs: timeOf(call, "until"),
      limit: call.integer("limit", 100, { min: 1, max: 1_000_000 }),
    }
    if (call.flag("follow")) return follow(call, filter)
    const rows = await ask<AuditView[]>(call, "audit.list", filter)
    if (call.flag("json")) return printJson(rows)
    printTable(
      ["SEQ", "TIME", "KIND", "FACTS"],
      rows.map((row) => [String(row.sequence), row.time, row.kind, facts(row)]),
    )
  },
}

export const auditVerify: CommandSpec = {
  usage: "audit verify [file]",
  summary: "check the hash chain and every signature, of the live log or, without an MVM, of an export",
  options: [
    STATE_OPTION,
    {
      flags: "--key <key>",
      description: "with a file: the MVM's public key, 65 bytes in hex, or a file with them",
    },
    {
      flags: "--head <head>",
      description: "with a file: a row that was noted, as N:HASH, which must be in it",
    },
    JSON_OPTION,
  ],
  examples: [
    "audit verify",
    "audit verify export.jsonl --key 04ab...",
    "audit verify export.jsonl --key mvm.pem --head 812:9c04...",
  ],
  async run(call) {
    const [file] = call.args
    if (file === undefined) {
      for (const option of ["key", "head"]) {
        if (call.given(option))
          throw new MvmError("usage", `--${option} goes with a file`, { hint: "mvm audit verify FILE" })
      }
    }
    const result = file === undefined ? await ask<Verification>(call, "audit.verify") : verifyFile(call, file)
    if (call.flag("json")) printJson(result)
    else if (result.ok) {
      print(
        `${counted(result.rows, "row")}, chain and signatures hold, head ${result.head?.sequence ?? 0}:${result.head?.hash ?? ""}`,
      )
    } else {
      const problems = result.firstBad ? [result.firstBad] : (result.breaks ?? [])
      for (const { sequence, reason } of problems) note(`row ${sequence}: ${reason}`)
    }
    return result.ok ? STATUS.ok : STATUS.integrity
  },
}

export const auditExport: CommandSpec = {
  usage: "audit export",
  summary: "write all rows as JSON lines, for audit verify elsewhere",
  options: [STATE_OPTION],
  examples: ["audit export >audit.jsonl"],
  async run(call) {
    const { mvmPublicKey, head } = await ask<{ mvmPublicKey: string; head: string }>(
      call,
      "audit.export",
      {},
      (line) => print(String(line)),
    )
    note(`verify with: mvm audit verify FILE --key ${mvmPublicKey} --head ${head}`)
  },
}

/** Rows as they come, until the daemon goes or this command is ended. */
async function follow(call: Call, filter: Params): Promise<void> {
  const show = (row: AuditView): void => {
    if (call.flag("json")) printJson(row)
    else print(printable(`${row.sequence}  ${row.time}  ${row.kind}  ${facts(row)}`))
  }
  await withMvm(call, async (client) => {
    let rows = await client.call<AuditView[]>("audit.list", filter)
    let after = 0
    for (;;) {
      for (const row of rows) show(row)
      after = rows.at(-1)?.sequence ?? after
      await Bun.sleep(FOLLOW_MS)
      rows = await client.call<AuditView[]>("audit.list", { ...filter, after, limit: MAX_FOLLOWED })
    }
  })
}

/** "1h" is an hour ago; "2026-11-01" and "2026-11-01T12:00:00Z" are dates. */
function timeOf(call: Call, option: "since" | "until"): number | undefined {
  const text = call.text(option)
  if (text === undefined) return undefined
  const date = Date.parse(text)
  return /^\d{4}-/.test(text) && !Number.isNaN(date) ? date : Date.now() - parseDuration(text, `--${option}`)
}

function facts(row: AuditView): string {
  return Object.entries(row)
    .filter(([field, value]) => !COMMON.has(field) && value !== null)
    .map(([field, value]) => `${field}=${short(value)}`)
    .join(" ")
}

function short(value: unknown): string {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value)
  return /^[0-9a-f]{32,}$/.test(text) ? `${text.slice(0, 12)}...` : text
}

function verifyFile(call: Call, path: string): Verification {
  const key = call.text("key")
  if (key === undefined)
    throw new MvmError("usage", "a file needs --key", { hint: "mvm audit export shows the key" })
  const { head, ...result } = verifyExport(readLines(path), parsePublicKey(key), headOf(call))
  return { ...result, head: head && { sequence: head.sequence, hash: head.hash.toHex() } }
}

function headOf(call: Call): { sequence: number; hash: Uint8Array } | undefined {
  const text = call.text("head")
  if (text === undefined) return undefined
  const [, sequence, hash] = /^(\d{1,15}):([0-9a-fA-F]{64})$/.exec(text) ?? []
  if (sequence !== undefined && hash !== undefined) return { sequence: Number(sequence), hash: fromHex(hash) }
  throw new MvmError("usage", `--head: ${text} is no head`, { hint: "N:HASH, as mvm audit verify shows it" })
}
