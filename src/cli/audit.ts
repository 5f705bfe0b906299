/** @module cli/audit */

import { fromHex } from "../lib/bytes.ts"
import { MvmError, STATUS } from "../lib/errors.ts"
import { verifyExport } from "../mvm/state/audit-chain.ts"
import { parseDuration } from "../lib/units.ts"
import type { Call, CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { readInput } from "./input.ts"
import { note, print, printJson, printTable } from "./output.ts"

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
  head: { sequence: number; hash: string }
  firstBad?: { sequence: number; reason: string }
  breaks: { sequence: number; reason: string }[]
}

const COMMON = new Set(["sequence", "time", "kind", "hash"])

export const auditList: CommandSpec = {
  usage: "audit list",
  summary: "show the audit log, newest last",
  options: [
    STATE_OPTION,
    { flags: "--kind <word>", description: "only rows of this kind (grant, refused, receipt, ...)" },
    { flags: "--vm <name>", description: "only rows about this VM" },
    { flags: "--since <time>", description: "only the last so long, or since a date" },
    { flags: "--limit <n>", description: "at most so many (default 100)" },
    JSON_OPTION,
  ],
  examples: ["audit list", "audit list --kind receipt --since 1h --json"],
  async run(call) {
    const rows = await ask<AuditView[]>(call, "audit.list", {
      kind: call.text("kind"),
      vm: call.text("vm"),
      sinceMs: sinceMs(call),
      limit: call.integer("limit", 100, { min: 1, max: 1_000_000 }),
    })
    if (call.flag("json")) return printJson(rows)
    printTable(
      ["SEQ", "TIME", "KIND", "FACTS"],
      rows.map((row) => [String(row.sequence), row.time, row.kind, facts(row)]),
    )
  },
}

export const auditVerify: CommandSpec = {
  usage: "audit verify [file]",
  summary: "check the hash chain and every signature, of the live log or of an export",
  options: [
    STATE_OPTION,
    { flags: "--key <hex>", description: "with a file: the MVM's public key, 65 bytes in hex" },
    JSON_OPTION,
  ],
  examples: ["audit verify", "audit verify export.jsonl --key 04ab..."],
  async run(call) {
    const result = call.args[0]
      ? verifyFile(call.args[0], call.text("key"))
      : await ask<Verification>(call, "audit.verify")
    if (call.flag("json")) printJson(result)
    else if (result.ok) print(`${result.rows} rows, chain and signatures hold, head ${result.head.hash}`)
    else {
      const problems = result.firstBad ? [result.firstBad] : result.breaks
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
    const { mvmPublicKey } = await ask<{ mvmPublicKey: string }>(call, "audit.export", {}, (line) =>
      print(String(line)),
    )
    note(`verify with: mvm audit verify FILE --key ${mvmPublicKey}`)
  },
}

function sinceMs(call: Call): number | undefined {
  const since = call.text("since")
  if (since === undefined) return undefined
  const date = Date.parse(since)
  return /^\d{4}-/.test(since) && !Number.isNaN(date) ? date : Date.now() - parseDuration(since, "--since")
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

function verifyFile(path: string, key: string | undefined): Verification {
  if (key === undefined)
    throw new MvmError("usage", "a file needs --key", { hint: "mvm audit export shows the key" })
  const lines = readInput(path).split("\n").filter(Boolean)
  return verifyExport(lines, fromHex(key)) as unknown as Verification
}
