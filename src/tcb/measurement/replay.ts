/**
 * @module tcb/measurement/replay
 *
 * The verifier's copy of one boot of one VM: the running PCR 10 and how far into the log it reaches. The log itself
 * is not kept, only what it was found to contain.
 *
 *       matched (forgotten)          pending               not yet asked for
 *     |------------------------|---------------------|
 *     0                  matchedOffset          nextOffset
 *
 * A quote is made before the log is read, so the log may hold entries past it: they stay pending, and their turn
 * comes with a later quote. That quote must be reached by a prefix of what is pending; otherwise the evidence is
 * broken, which is another thing than a program that is not allowed.
 *
 * Each entry is parsed and hashed once, as it comes: a quote then only looks for its value among those that PCR 10 had
 * after each pending entry. What a guest sends costs time where it is received, in small pieces, and little memory.
 */

import { equalBytes, grown, utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { type FileDigest, type ImaEntry, parseImaEntry } from "./ima-log.ts"

const PCR_BYTES = 32

const LATIN1 = /^[\u0000-\u00ff]*$/

/** What may wait for a quote: some 30,000 entries. After a restart the MVM reads a whole boot's log at once. */
const MAX_PENDING_BYTES = 4 * 1024 * 1024

/** Distinct (path, digest) pairs of one boot. A guest makes them at will, so there is an end. */
const MAX_SEEN = 32_768

/** What their paths may take in all, bytes. */
const MAX_SEEN_PATH_BYTES = 2 * 1024 * 1024

/** One entry as it is judged: the same object wherever path and digest are the same. */
export interface MatchedEntry {
  /** In text form, see measured-path. */
  readonly path: string
  readonly fileDigest: FileDigest
  readonly violation: boolean
  readonly templateName: string
  /** Offset of the first entry. */
  readonly offset: number
}

/** One (path, digest) pair of the log, in the order first seen. */
export interface SeenMeasurement extends MatchedEntry {
  readonly count: number
}

interface Tally {
  readonly entry: MatchedEntry
  /** Entries that a quote proved; 0 while the first one waits. */
  count: number
}

export class MeasurementLog {
  #pcr10: Uint8Array = new Uint8Array(PCR_BYTES)
  #matchedOffset = 0
  /** One buffer that grows, so that a log sent byte by byte costs no more than one sent whole. */
  #buffer = new Uint8Array(0)
  #pendingBytes = 0
  /** Of what is pending: whole entries, how far they reach, and PCR 10 after each. */
  #pending: Tally[] = []
  #ends: number[] = []
  #pcrs = new Uint8Array(0)
  /** What is wrong with the entry behind those, and so with all that follows: it counts once a quote leads there. */
  #broken: MvmError | undefined
  #entries = 0
  #seenCount = 0
  #seenPathBytes = 0
  /** More was measured than is kept: there is no way on in this boot, and no work is done for it. */
  #isFull = false
  readonly #seen = new Map<string, Tally>()
  readonly #onProven: ((bytes: Uint8Array, offset: number) => void) | undefined

  /** @param onProven gets the log piece by piece, as quotes prove it; the bytes are a view for the call alone */
  constructor(onProven?: (bytes: Uint8Array, offset: number) => void) {
    this.#onProven = onProven
  }

  /** Where the next chunk should start, bytes. */
  get nextOffset(): number {
    return this.#matchedOffset + this.#pendingBytes
  }

  /** Up to where the log is proven by a quote, bytes. */
  get matchedOffset(): number {
    return this.#matchedOffset
  }

  /** 32 bytes: PCR 10 after the matched entries. */
  get pcr10(): Uint8Array {
    return this.#pcr10
  }

  /** Entries matched so far. */
  get entryCount(): number {
    return this.#entries
  }

  /** Distinct measurements matched so far, first seen first. */
  get seen(): IterableIterator<SeenMeasurement> {
    return this.#seen
      .values()
      .filter(({ count }) => count > 0)
      .map(({ entry, count }) => ({ ...entry, count }))
  }

  get seenCount(): number {
    return this.#seenCount
  }

  /**
   * Takes a piece of the log. What is already matched is skipped; what is already pending must be the same. A piece
   * costs time by its length alone.
   *
   * Trust: any bytes; they mean nothing until a quote is matched.
   *
   * @throws MvmError `evidence_log_offset` for a gap, `evidence_log_mismatch` for bytes that differ from those sent
   *   before, `evidence_malformed` when too much is pending.
   */
  add(untrustedChunk: Uint8Array, chunkOffset: number): void {
    if (this.#isFull) throw tooMany()
    if (!Number.isSafeInteger(chunkOffset) || chunkOffset < 0 || chunkOffset > this.nextOffset) {
      throw new MvmError(
        "evidence_log_offset",
        `log.offset: ${chunkOffset}, the log is known up to ${this.nextOffset}`,
      )
    }
    const fresh = this.#skipKnown(untrustedChunk, chunkOffset)
    if (fresh.length === 0) return
    if (this.#pendingBytes + fresh.length > MAX_PENDING_BYTES) {
      this.dropPending()
      throw new MvmError(
        "evidence_malformed",
        `log: more than ${MAX_PENDING_BYTES} bytes past the last quote`,
      )
    }
    this.#append(fresh)
    this.#parse()
  }

  /**
   * Advances to the quoted value; returns the entries that led there, none when the value is the present one.
   * Bytes beyond stay pending. On failure what is pending is dropped, so that the log is asked for again from the
   * last point that was proven.
   *
   * Trust: `quotedPcr10` must come from a verified quote.
   *
   * @throws MvmError `evidence_log_mismatch` when no prefix leads there, and as parseImaEntries
   */
  match(quotedPcr10: Uint8Array): MatchedEntry[] {
    if (this.#isFull) throw tooMany()
    if (equalBytes(this.#pcr10, quotedPcr10)) return []
    const last = this.#find(quotedPcr10)
    if (last >= 0) return this.#prove(last + 1)
    const problem = this.#broken ?? this.#mismatch()
    this.#isFull = problem instanceof TooMany
    this.dropPending()
    throw problem
  }

  /** {@link add} and {@link match} in one. */
  advance(untrustedChunk: Uint8Array, chunkOffset: number, quotedPcr10: Uint8Array): MatchedEntry[] {
    this.add(untrustedChunk, chunkOffset)
    return this.match(quotedPcr10)
  }

  /** Forget what no quote has proven. */
  dropPending(): void {
    this.#buffer = new Uint8Array(0)
    this.#pendingBytes = 0
    this.#pcrs = new Uint8Array(0)
    this.#ends = []
    this.#broken = undefined
    if (this.#pending.length === 0) return
    this.#pending = []
    for (const [key, { entry, count }] of this.#seen) {
      if (count > 0) continue
      this.#seen.delete(key)
      this.#seenPathBytes -= pathBytes(entry.path)
    }
  }

  /** Reads the whole entries among what has come, each once. */
  #parse(): void {
    if (this.#broken) return
    const bytes = this.#buffer.subarray(0, this.#pendingBytes)
    try {
      for (;;) {
        const at = this.#ends.at(-1) ?? 0
        const entry = parseImaEntry(bytes.subarray(at), this.#matchedOffset + at)
        if (entry === undefined) return
        const tally = this.#tally(entry)
        const count = this.#pending.push(tally)
        this.#ends.push(at + entry.lengthBytes)
        this.#pcrs = grown(this.#pcrs, count * PCR_BYTES, MAX_PENDING_BYTES)
        const before = count > 1 ? this.#pcrAfter(count - 1) : this.#pcr10
        this.#pcrs.set(sha256(before, entry.extendDigest), (count - 1) * PCR_BYTES)
      }
    } catch (error) {
      this.#broken = asMvmError(error)
    }
  }

  /** Which pending entry leads to the value, or -1. */
  #find(pcr: Uint8Array): number {
    const values = Buffer.from(this.#pcrs.buffer, 0, this.#pending.length * PCR_BYTES)
    let at = values.indexOf(pcr)
    while (at >= 0 && at % PCR_BYTES !== 0) at = values.indexOf(pcr, at + 1)
    return at < 0 ? -1 : at / PCR_BYTES
  }

  #prove(count: number): MatchedEntry[] {
    const proven = this.#pending.slice(0, count)
    const at = this.#ends[count - 1]!
    this.#onProven?.(this.#buffer.subarray(0, at), this.#matchedOffset)
    for (const tally of proven) {
      if (tally.count === 0) this.#seenCount += 1
      tally.count += 1
    }
    this.#entries += count
    this.#pcr10 = this.#pcrAfter(count).slice()
    this.#matchedOffset += at
    this.#buffer = this.#buffer.slice(at, this.#pendingBytes)
    this.#pendingBytes = this.#buffer.length
    this.#pcrs = this.#pcrs.slice(count * PCR_BYTES, this.#pending.length * PCR_BYTES)
    this.#pending = this.#pending.slice(count)
    this.#ends = this.#ends.slice(count).map((end) => end - at)
    return proven.map(({ entry }) => entry)
  }

  /** PCR 10 after so many of the pending entries, at least one; a view. */
  #pcrAfter(count: number): Uint8Array {
    return this.#pcrs.subarray((count - 1) * PCR_BYTES, count * PCR_BYTES)
  }

  /** @throws TooMany */
  #tally({ path, fileDigest, violation, templateName, offset }: ImaEntry): Tally {
    const { algorithm, hex } = fileDigest
    const key = sha256(utf8(`${violation ? "!" : ""}${algorithm}:${hex} ${path}`))
    const text = Buffer.from(key.buffer, key.byteOffset, key.length).toString("latin1")
    let tally = this.#seen.get(text)
    if (!tally) {
      this.#seenPathBytes += pathBytes(path)
      if (this.#seen.size >= MAX_SEEN || this.#seenPathBytes > MAX_SEEN_PATH_BYTES) {
        this.#seenPathBytes -= pathBytes(path)
        throw tooMany()
      }
      tally = { entry: { path, fileDigest, violation, templateName, offset }, count: 0 }
      this.#seen.set(text, tally)
    }
    return tally
  }

  /** @returns what of `chunk` is new */
  #skipKnown(chunk: Uint8Array, chunkOffset: number): Uint8Array {
    const unmatched = chunk.subarray(Math.max(0, this.#matchedOffset - chunkOffset))
    const at = Math.max(0, chunkOffset - this.#matchedOffset)
    const known = this.#buffer.subarray(at, Math.min(this.#pendingBytes, at + unmatched.length))
    if (!equalBytes(known, unmatched.subarray(0, known.length))) {
      this.dropPending()
      throw new MvmError("evidence_log_mismatch", "log: differs from what was sent before")
    }
    return unmatched.subarray(known.length)
  }

  #append(fresh: Uint8Array): void {
    const neededBytes = this.#pendingBytes + fresh.length
    this.#buffer = grown(this.#buffer, neededBytes, MAX_PENDING_BYTES)
    this.#buffer.set(fresh, this.#pendingBytes)
    this.#pendingBytes = neededBytes
  }

  #mismatch(): MvmError {
    const leftBytes = this.#pendingBytes - (this.#ends.at(-1) ?? 0)
    const left = leftBytes > 0 ? ` and ${leftBytes} bytes of an incomplete one` : ""
    return new MvmError(
      "evidence_log_mismatch",
      `log: ${this.#pending.length} entries from offset ${this.#matchedOffset}${left} do not lead to the quoted pcr 10`,
      {
        hint: "the log and the tpm disagree: an entry was changed, dropped, added or reordered, or the kernel was replaced without a reset",
      },
    )
  }
}

/** What the runtime takes to keep it. */
function pathBytes(path: string): number {
  return LATIN1.test(path) ? path.length : 2 * path.length
}

class TooMany extends MvmError {}

function tooMany(): TooMany {
  return new TooMany("evidence_malformed", "log: too many distinct measurements")
}
