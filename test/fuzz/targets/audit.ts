/**
 * @module test/fuzz/targets/audit
 *
 * The audit log as it comes back: an export from elsewhere, and the MVM's own file of its head, torn.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fromUtf8, utf8 } from "../../../src/lib/bytes.ts"
import { p256PublicKey, p256Sign, sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import {
  canonicalBody,
  exportLine,
  GENESIS,
  headMessage,
  rowHash,
  verifyExport,
} from "../../../src/mvm/state/audit-chain.ts"
import { AuditHeadFile } from "../../../src/mvm/state/audit-head.ts"
import { mutateJson } from "../json.ts"
import type { Random } from "../random.ts"
import { promise, type Target } from "../target.ts"

const PRIVATE = sha256(new Uint8Array(1))
const KEY = p256PublicKey(PRIVATE)
const HEX = "ab".repeat(32)

function textOf(input: Uint8Array): string {
  try {
    return fromUtf8(input)
  } catch (cause) {
    throw new MvmError("config", "not utf-8", { cause })
  }
}

/** A chain that holds, under a key that is known here; then some of its lines changed. */
function auditLines(random: Random): Uint8Array {
  const lines: string[] = []
  let previous = GENESIS
  for (let sequence = 1; sequence <= 1 + random.below(4); sequence++) {
    const body = canonicalBody({
      pid: random.below(9),
      text: random.pick(["", "a\nb", "\u2028"]),
      list: [1, null],
    })
    const row = { sequence, timeMs: sequence, kind: "mvm_start", body }
    const hash = rowHash(previous, row)
    const signature = p256Sign(PRIVATE, headMessage(sequence, hash))
    const line = exportLine({ ...row, hash, signature }, previous)
    lines.push(random.once(3) ? (JSON.stringify(mutateJson(random, JSON.parse(line))) ?? "null") : line)
    previous = hash
  }
  return utf8(lines.join("\n"))
}

const auditExport: Target = {
  name: "audit-export",
  taken: /^[1-3] rows, holds/,
  generate: auditLines,
  words: ["\n", '"sequence":2', "null", "1e999", '"body":', "{}", '"__proto__":{}', "\\ud800", "[", '{"a":'],
  run: (input) => {
    const lines = textOf(input).split("\n")
    const { ok, rows } = verifyExport(lines, KEY, { sequence: 3, hash: GENESIS })
    promise(!ok, "an export without the known row held")
    const alone = verifyExport(lines, KEY)
    promise(!alone.ok || alone.rows === lines.filter((line) => line !== "").length, "a line was passed over")
    return `${Math.min(rows, 3)} rows, ${alone.firstBad?.reason ?? "holds"}`
  },
}

const folder = mkdtempSync(join(tmpdir(), "mvm-fuzz-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const auditHead: Target = {
  name: "audit-head",
  taken: /^head$/,
  seeds: () => [utf8(`{"sequence":5,"hash":"${HEX}","signature":"${HEX}${HEX}"}`.padEnd(511) + "\n")],
  run: (input) => {
    const path = join(folder, "audit.head")
    writeFileSync(path, input)
    const head = new AuditHeadFile(path).read()
    return typeof head === "string" ? head : "head"
  },
}

export const AUDIT_TARGETS: readonly Target[] = [auditExport, auditHead]
