/**
 * @module mvm/evidence/store
 *
 * The evidence behind the decisions of the last time, in the state directory:
 *
 * ```
 * evidence/decisions-N.jsonl      a ChannelEvidence a line, SEGMENT_RECORDS a file, the last SEGMENTS files
 * evidence/boots/UUID-RESETS.ima  the measurement log of one boot, as far as quotes proved it
 * evidence/boots/UUID-RESETS.events
 * evidence/references/SHA256      reference values, as text
 * ```
 *
 * All of it is bounded, and none of it is needed to decide anything: a write that fails is said and passed over, and
 * nothing here waits for the disk.
 */

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { appendFile } from "node:fs/promises"
import { join } from "node:path"
import { utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError, asMvmError, errnoOf } from "../../lib/errors.ts"
import type { Log } from "../../lib/log.ts"
import type { ChannelEvidence } from "./record.ts"

const SEGMENT_RECORDS = 500
const SEGMENTS = 3
/** A longer log is not kept, and evidence of its boot not exported: what waits for a quote is bounded the same. */
export const MAX_KEPT_LOG_BYTES = 16 * 1024 * 1024
/** Of one VM, and of all, those removed included. */
const KEPT_BOOTS = 16
const KEPT_BOOTS_TOTAL = 1024
const KEPT_REFERENCES = 64
const SEGMENT = /^decisions-(\d+)\.jsonl$/

export class EvidenceStore {
  readonly #directory: string
  readonly #boots: string
  readonly #references: string
  readonly #log: Log
  #segment: number
  #records: number
  #recorded: ChannelEvidence[] = []
  #writing: Promise<void> = Promise.resolve()

  /** @throws MvmError `io` when the directory cannot be used. */
  constructor(directory: string, log: Log) {
    this.#directory = directory
    this.#boots = join(directory, "boots")
    this.#references = join(directory, "references")
    this.#log = log
    try {
      for (const path of [this.#boots, this.#references]) mkdirSync(path, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw new MvmError("io", `${directory}: ${errnoOf(cause) ?? "cannot be made"}`, { cause })
    }
    const last = this.#segments().at(-1)
    this.#segment = last ?? 1
    this.#records = last === undefined ? 0 : linesOf(this.#segmentPath(last)).length
    // Nothing is written behind a line that a crash cut off.
    if (last !== undefined && !endsWithLine(this.#segmentPath(last))) this.#records = SEGMENT_RECORDS
  }

  /** Keeps the evidence of one decision; on disk some time later. */
  record(evidence: ChannelEvidence): void {
    this.#recorded.push(evidence)
    if (this.#recorded.length === 1) setImmediate(() => void this.flush())
  }

  /** Resolves when what was recorded is written. */
  flush(): Promise<void> {
    const recorded = this.#recorded
    if (recorded.length > 0) {
      this.#recorded = []
      const lines = recorded.map((evidence) => `${JSON.stringify(evidence)}\n`)
      this.#writing = this.#writing.then(() => this.#append(lines)).catch((error) => this.#failed(error))
    }
    return this.#writing
  }

  /**
   * The evidence of the channel whose id begins with `prefix` (lower-case hex), newest first looked for.
   *
   * @throws MvmError `not_found`, also when several channels begin so.
   */
  async find(prefix: string): Promise<ChannelEvidence> {
    await this.flush()
    let found: ChannelEvidence | undefined
    for (const segment of this.#segments().reverse()) {
      for (const line of linesOf(this.#segmentPath(segment)).reverse()) {
        // An end of the file that a crash cut off is no line of JSON.
        const evidence = parseLine(line)
        if (!evidence?.channel.startsWith(prefix) || found?.channel === evidence.channel) continue
        if (found) throw new MvmError("not_found", `more than one channel begins with ${prefix}`)
        found = evidence
      }
    }
    if (found) return found
    throw new MvmError("not_found", `no evidence of a channel ${prefix} is kept`, {
      hint: `the last ${SEGMENT_RECORDS * (SEGMENTS - 1)} decisions are kept; mvm audit list names their channels`,
    })
  }

  /** Keeps a proven piece of a boot's log. Pieces come in order; what is there already is the same. */
  addLog(boot: BootName, offset: number, bytes: Uint8Array): void {
    if (offset + bytes.length > MAX_KEPT_LOG_BYTES) return
    this.#attempt(() => {
      const path = this.#bootPath(boot, "ima")
      const isNew = !existsSync(path)
      // A restarted MVM reads the log of a running boot again.
      if (!isNew && statSync(path).size < offset) return
      const fd = openSync(path, isNew ? "w" : "r+", 0o600)
      try {
        for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, offset + at)
      } finally {
        closeSync(fd)
      }
      if (isNew) this.#pruneBoots(boot.uuid)
    })
  }

  addEvents(boot: BootName, bytes: Uint8Array): void {
    this.#attempt(() => writeFileSync(this.#bootPath(boot, "events"), bytes, { mode: 0o600 }))
  }

  /** Keeps reference values; their SHA-256 as hex. */
  addReference(text: string): string {
    const bytes = utf8(text)
    const digest = sha256(bytes).toHex()
    this.#attempt(() => {
      const path = join(this.#references, digest)
      const now = new Date()
      if (existsSync(path)) return utimesSync(path, now, now)
      writeFileSync(`${path}.new`, bytes, { mode: 0o600 })
      renameSync(`${path}.new`, path)
      pruneOldest(this.#references, readdirSync(this.#references), KEPT_REFERENCES)
    })
    return digest
  }

  /** The first `lengthBytes` of a boot's log. @throws MvmError `not_found` when they are not kept. */
  readLog(boot: BootName, lengthBytes: number): Uint8Array {
    const bytes = this.#read(this.#bootPath(boot, "ima"), "measurement log")
    if (bytes.length < lengthBytes) throw gone("measurement log")
    return bytes.subarray(0, lengthBytes)
  }

  /** @throws MvmError `not_found` */
  readEvents(boot: BootName): Uint8Array {
    return this.#read(this.#bootPath(boot, "events"), "event log")
  }

  /** @throws MvmError `not_found` */
  readReference(digest: string): Uint8Array {
    return this.#read(join(this.#references, digest), "reference values")
  }

  async #append(lines: readonly string[]): Promise<void> {
    if (this.#records >= SEGMENT_RECORDS) {
      this.#segment += 1
      this.#records = 0
      for (const old of this.#segments()) {
        if (old <= this.#segment - SEGMENTS) rmSync(this.#segmentPath(old), { force: true })
      }
    }
    this.#records += lines.length
    await appendFile(this.#segmentPath(this.#segment), lines.join(""), { mode: 0o600 })
  }

  #segments(): number[] {
    return readdirSync(this.#directory)
      .map((name) => Number(SEGMENT.exec(name)?.[1] ?? NaN))
      .filter((number) => Number.isSafeInteger(number))
      .toSorted((a, b) => a - b)
  }

  #segmentPath(number: number): string {
    return join(this.#directory, `decisions-${number}.jsonl`)
  }

  #bootPath({ uuid, resetCount }: BootName, extension: "ima" | "events"): string {
    return join(this.#boots, `${uuid}-${resetCount}.${extension}`)
  }

  #pruneBoots(uuid: string): void {
    const all = readdirSync(this.#boots)
    const own = all.filter((name) => name.startsWith(`${uuid}-`))
    pruneOldest(this.#boots, all, 2 * KEPT_BOOTS_TOTAL)
    for (const extension of [".ima", ".events"]) {
      pruneOldest(
        this.#boots,
        own.filter((name) => name.endsWith(extension)),
        KEPT_BOOTS,
      )
    }
  }

  #read(path: string, what: string): Uint8Array {
    if (!existsSync(path)) throw gone(what)
    return new Uint8Array(readFileSync(path))
  }

  #attempt(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#failed(error)
    }
  }

  #failed(error: unknown): void {
    this.#log.error("evidence_write", { message: asMvmError(error).message })
  }
}

/** One boot of one VM's vTPM. */
export interface BootName {
  readonly uuid: string
  readonly resetCount: number
}

function gone(what: string): MvmError {
  return new MvmError("not_found", `the ${what} of that evidence is no longer kept`, {
    hint: "export evidence soon after the decision: mvm measure evidence CHANNEL >FILE",
  })
}

function pruneOldest(directory: string, names: readonly string[], kept: number): void {
  if (names.length <= kept) return
  const byAge = names
    .map((name) => ({
      name,
      mtimeMs: statSync(join(directory, name), { throwIfNoEntry: false })?.mtimeMs ?? 0,
    }))
    .toSorted((a, b) => b.mtimeMs - a.mtimeMs)
  for (const { name } of byAge.slice(kept)) rmSync(join(directory, name), { force: true })
}

function linesOf(path: string): string[] {
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").filter(Boolean) : []
}

function endsWithLine(path: string): boolean {
  const text = readFileSync(path, "utf8")
  return text === "" || text.endsWith("\n")
}

function parseLine(line: string): ChannelEvidence | undefined {
  try {
    return JSON.parse(line) as ChannelEvidence
  } catch {
    return undefined
  }
}
