/**
 * @module guest/copy/tally
 *
 * What became of each entry, for whoever watches, and the sum of it.
 */

import { MvmError } from "../../lib/errors.ts"
import { shown } from "./names.ts"

export type EntryKind = "file" | "directory" | "symlink"

/** "same": it was there. "resumed": a part of it was. */
export type Outcome = "copied" | "resumed" | "same" | "refused"

export interface EntryReport {
  /** Below the target folder, or as it was asked for where it never came to that. */
  readonly path: Uint8Array
  readonly kind: EntryKind
  readonly outcome: Outcome
  readonly lengthBytes: number
  /** Content that travelled: no holes, and nothing that was there. */
  readonly sentBytes: number
  readonly error?: MvmError
}

/** Whoever watches a copy. */
export interface CopyObserver {
  /** How much there is to do, as of now: a hint. */
  total?(entries: number, lengthBytes: number): void
  /** So much of the lengths of all files is dealt with. */
  progress?(lengthBytes: number, sentBytes: number): void
  entry?(report: EntryReport): void
}

export interface CopySummary {
  readonly entries: number
  readonly files: number
  readonly lengthBytes: number
  readonly sentBytes: number
  readonly same: number
  readonly refused: number
}

export class Tally {
  readonly #observer: CopyObserver
  #entries = 0
  #files = 0
  #lengthBytes = 0
  #sentBytes = 0
  #same = 0
  #refused = 0
  #first: EntryReport | undefined

  constructor(observer: CopyObserver) {
    this.#observer = observer
  }

  total(entries: number, lengthBytes: number): void {
    this.#observer.total?.(entries, lengthBytes)
  }

  /** A file is under way. */
  progress(lengthBytes: number, sentBytes: number): void {
    this.#observer.progress?.(this.#lengthBytes + lengthBytes, this.#sentBytes + sentBytes)
  }

  add(report: EntryReport): void {
    this.#entries += 1
    if (report.kind === "file" && report.outcome !== "refused") this.#files += 1
    this.#lengthBytes += report.lengthBytes
    this.#sentBytes += report.sentBytes
    if (report.outcome === "same") this.#same += 1
    if (report.outcome === "refused") {
      this.#refused += 1
      this.#first ??= report
    }
    this.#observer.entry?.(report)
    this.#observer.progress?.(this.#lengthBytes, this.#sentBytes)
  }

  summary(): CopySummary {
    return {
      entries: this.#entries,
      files: this.#files,
      lengthBytes: this.#lengthBytes,
      sentBytes: this.#sentBytes,
      same: this.#same,
      refused: this.#refused,
    }
  }

  /** @throws MvmError with the code of the first entry that was not copied, if there is one. */
  requireAll(): void {
    const { error, path } = this.#first ?? {}
    if (!error || !path) return
    const others = this.#refused > 1 ? `, and ${this.#refused - 1} more were not copied` : ""
    throw new MvmError(error.code, `${shown(path)}: ${error.message}${others}`, {
      hint: this.#entries > this.#refused ? "everything else was copied" : error.hint,
      cause: error,
    })
  }
}
