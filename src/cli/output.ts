/**
 * @module cli/output
 *
 * The one writer of stdout and stderr. Data goes to stdout, everything else to stderr; what a peer or a VM wrote
 * reaches a terminal only with its control characters made visible.
 */

import { writeSync } from "node:fs"
import { isatty } from "node:tty"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { printable } from "../lib/log.ts"
import { formatDuration, formatSize } from "../lib/units.ts"

/** @throws MvmError `sink` when the reader of stdout has gone. */
export function print(text: string): void {
  writeAll(1, `${text}\n`)
}

/** Bytes as they are: for a console, where the user asked for exactly that. */
export function writeRaw(bytes: Uint8Array): void {
  writeAll(1, bytes)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? item.toString() : item)))
}

export function note(text: string): void {
  try {
    writeAll(2, `mvm: ${printable(text)}\n`)
  } catch {
    // Nobody to tell.
  }
}

/** The one form of an error: what, and on a second line what to do. */
export function printError(error: MvmError): void {
  note(error.message)
  if (error.hint) note(`hint: ${error.hint}`)
}

/** Rows as aligned columns, or "none" on stderr when there are no rows. */
export function printTable(headings: readonly string[], rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) return note("none")
  const cells = [headings, ...rows].map((row) => row.map((cell) => printable(cell)))
  const widths = headings.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)))
  for (const row of cells) {
    print(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
  }
}

/** Progress on stderr while it is a terminal; nothing otherwise. */
export class ProgressLine {
  readonly #label: string
  readonly #totalBytes: number | undefined
  readonly #startedMs = performance.now()
  #shownMs = 0
  readonly #isTerminal: boolean

  constructor(label: string, totalBytes: number | undefined, quiet: boolean) {
    this.#label = label
    this.#totalBytes = totalBytes
    this.#isTerminal = !quiet && isatty(2)
  }

  update(bytes: number): void {
    if (!this.#isTerminal) return
    const now = performance.now()
    if (now - this.#shownMs < 200) return
    this.#shownMs = now
    this.#show(bytes, now)
  }

  end(bytes: number): void {
    if (!this.#isTerminal) return
    this.#show(bytes, performance.now())
    tryWrite("\n")
  }

  #show(bytes: number, now: number): void {
    const seconds = Math.max(0.001, (now - this.#startedMs) / 1000)
    const rate = bytes / seconds
    const parts = [`${formatSize(bytes)}`, `${formatSize(rate)}/s`]
    if (this.#totalBytes) {
      parts.unshift(`${Math.floor((bytes / this.#totalBytes) * 100)} %`)
      if (rate > 0) parts.push(`${formatDuration(((this.#totalBytes - bytes) / rate) * 1000)} left`)
    }
    const columns = process.stderr.columns ?? 80
    tryWrite(`\r\u001b[K${`${this.#label}: ${parts.join(", ")}`.slice(0, Math.max(1, columns - 1))}`)
  }
}

function tryWrite(text: string): void {
  try {
    writeAll(2, text)
  } catch {
    // Progress is never worth a failure.
  }
}

function writeAll(fd: number, content: string | Uint8Array): void {
  const bytes = typeof content === "string" ? Buffer.from(content) : content
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at)
    } catch (error) {
      if (errnoOf(error) === "EAGAIN") {
        Bun.sleepSync(1)
        continue
      }
      throw new MvmError("sink", `cannot write to ${fd === 1 ? "stdout" : "stderr"}: ${errnoOf(error)}`, {
        cause: error,
      })
    }
  }
}
