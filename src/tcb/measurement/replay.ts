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
 */

import { equalBytes } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { type FileDigest, type ImaEntry, parseImaEntry } from "./ima-log.ts"

const PCR_BYTES = 32

/** What may wait for a quote: about 100,000 entries. After a restart the MVM reads a whole boot's log at once. */
const MAX_PENDING_BYTES = 16 * 1024 * 1024

const FIRST_PENDING_BYTES = 64 * 1024

/** Distinct (path, digest) pairs of one boot. A guest makes them at will, so there is an end. */
const MAX_SEEN = 100_000

/** What their paths may take in all, in UTF-16 units; a path has up to 4096. */
const MAX_SEEN_PATHS = 16 * 1024 * 1024

/** One (path, digest) pair of the log, in the order first seen. */
export interface SeenMeasurement {
  /** In text form, see measured-path. */
  readonly path: string
  readonly fileDigest: FileDigest
  readonly violation: boolean
  readonly templateName: string
  /** Offset of the first entry. */
  readonly offset: number
  count: number
}

export class MeasurementLog {
  #pcr10: Uint8Array = new Uint8Array(PCR_BYTES)
  #matchedOffset = 0
  /** One buffer that grows, so that a log sent byte by byte costs no more than one sent whole. */
  #buffer = new Uint8Array(0)
  #pendingBytes = 0
  #entries = 0
  #seenPaths = 0
  /** More was measured than is kept: there is no way on in this boot, and no work is done for it. */
  #isFull = false
  readonly #seen = new Map<string, SeenMeasurement>()
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
    return this.#seen.values()
  }

  get seenCount(): number {
    return this.#seen.size
  }

  /**
   * Takes a piece of the log. What is already matched is skipped; what is already pending must be the same.
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
  match(quotedPcr10: Uint8Array): ImaEntry[] {
    if (this.#isFull) throw tooMany()
    if (equalBytes(this.#pcr10, quotedPcr10)) return []
    try {
      return this.#match(quotedPcr10)
    } catch (error) {
      this.dropPending()
      throw error
    }
  }

  /** {@link add} and {@link match} in one. */
  advance(untrustedChunk: Uint8Array, chunkOffset: number, quotedPcr10: Uint8Array): ImaEntry[] {
    this.add(untrustedChunk, chunkOffset)
    return this.match(quotedPcr10)
  }

  /** Forget what no quote has proven. */
  dropPending(): void {
    this.#buffer = new Uint8Array(0)
    this.#pendingBytes = 0
  }

  #match(quotedPcr10: Uint8Array): ImaEntry[] {
    const bytes = this.#buffer.subarray(0, this.#pendingBytes)
    const entries: ImaEntry[] = []
    let pcr = this.#pcr10
    let at = 0
    for (;;) {
      const entry = parseImaEntry(bytes.subarray(at), this.#matchedOffset + at)
      if (entry === undefined) throw this.#mismatch(entries.length, bytes.length - at)
      entries.push(entry)
      at += entry.lengthBytes
      pcr = sha256(pcr, entry.extendDigest)
      if (equalBytes(pcr, quotedPcr10)) break
    }
    this.#remember(entries)
    this.#onProven?.(bytes.subarray(0, at), this.#matchedOffset)
    this.#pcr10 = pcr
    this.#matchedOffset += at
    this.#entries += entries.length
    // The entries are views into the old buffer.
    this.#buffer = bytes.slice(at)
    this.#pendingBytes = this.#buffer.length
    return entries
  }

  #remember(entries: readonly ImaEntry[]): void {
    for (const entry of entries) {
      const { path, fileDigest, violation, templateName, offset } = entry
      const key = `${violation ? "!" : ""}${fileDigest.algorithm}:${fileDigest.hex} ${path}`
      const known = this.#seen.get(key)
      if (known !== undefined) {
        known.count += 1
        continue
      }
      this.#seenPaths += path.length
      if (this.#seen.size >= MAX_SEEN || this.#seenPaths > MAX_SEEN_PATHS) {
        this.#isFull = true
        throw tooMany()
      }
      this.#seen.set(key, { path, fileDigest, violation, templateName, offset, count: 1 })
    }
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
    if (neededBytes > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(neededBytes, FIRST_PENDING_BYTES, 2 * this.#buffer.length))
      grown.set(this.#buffer.subarray(0, this.#pendingBytes))
      this.#buffer = grown
    }
    this.#buffer.set(fresh, this.#pendingBytes)
    this.#pendingBytes = neededBytes
  }

  #mismatch(entries: number, leftBytes: number): MvmError {
    const left = leftBytes > 0 ? ` and ${leftBytes} bytes of an incomplete one` : ""
    return new MvmError(
      "evidence_log_mismatch",
      `log: ${entries} entries from offset ${this.#matchedOffset}${left} do not lead to the quoted pcr 10`,
      {
        hint: "the log and the tpm disagree: an entry was changed, dropped, added or reordered, or the kernel was replaced without a reset",
      },
    )
  }
}

function tooMany(): MvmError {
  return new MvmError("evidence_malformed", "log: too many distinct measurements")
}
