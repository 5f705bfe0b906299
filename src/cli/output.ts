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

const DEFAULT_COLUMNS = 80
const DEFAULT_ROWS = 24
const PROGRESS_MS = 200
const CLEAR_LINE = "\r\u001b[K"

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

export function note(text: string, prefix = "mvm: "): void {
  tryWrite(`${prefix}${printable(text)}\n`)
}

/** What to do next, for a person at a terminal; nothing in a script's log. */
export function suggest(text: string): void {
  if (isatty(2)) note(text)
}

/** The width to wrap text at. @param fd 1 or 2 */
export function columnsOf(fd: 1 | 2): number {
  return windowOf(fd).columns
}

/** The size of the terminal, or a usual one. @param fd 1 or 2 */
export function windowOf(fd: 1 | 2): { columns: number; rows: number } {
  // Asking for the size of what is no terminal would make a pipe non-blocking.
  const { columns = 0, rows = 0 } = isatty(fd) ? (fd === 1 ? process.stdout : process.stderr) : {}
  return { columns: columns > 0 ? columns : DEFAULT_COLUMNS, rows: rows > 0 ? rows : DEFAULT_ROWS }
}

/** The one form of an error: what, and on a second line what to do. */
export function printError(error: MvmError): void {
  note(error.message)
  if (error.hint) note(`hint: ${error.hint}`)
}

/** "1 rule", "2 rules" */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`
}

/** Rows as aligned columns, or "none" on stderr when there are no rows. */
export function printTable(headings: readonly string[], rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) return note("none")
  for (const line of tableLines(headings, rows)) print(line)
}

/** The same as lines, the headings first. */
export function tableLines(headings: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const cells = [headings, ...rows].map((row) => row.map((cell) => printable(cell)))
  const widths = headings.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)))
  return cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  )
}

/** Puts `text`, as much of it as fits, in the place of the last line on a terminal's stderr. */
export function showLine(text: string): void {
  tryWrite(CLEAR_LINE + fitting(printable(text), columnsOf(2) - 1))
}

/** Makes room for what is said next. */
export function clearLine(): void {
  tryWrite(CLEAR_LINE)
}

/** The beginning of `text` that takes at most `columns` (at least one) of a terminal: some characters take two. */
function fitting(text: string, columns: number): string {
  let cut = text.slice(0, Math.max(1, columns))
  while (cut.length > 1 && Bun.stringWidth(cut) > columns) cut = cut.slice(0, -1)
  return cut
}

/** Progress on stderr while it is a terminal; nothing otherwise. */
export class ProgressLine {
  readonly #label: string
  readonly #totalBytes: number | undefined
  readonly #startedMs = performance.now()
  readonly #timer: ReturnType<typeof setInterval> | undefined
  #bytes = 0
  #shownMs = 0

  constructor(label: string, totalBytes: number | undefined, quiet: boolean) {
    this.#label = label
    this.#totalBytes = totalBytes
    if (quiet || !isatty(2)) return
    // Of a transfer that stands still, too, the last amount is shown, and a rate that falls.
    this.#timer = setInterval(() => {
      if (this.#bytes > 0) this.#show(performance.now())
    }, PROGRESS_MS)
    this.#timer.unref()
  }

  update(bytes: number): void {
    this.#bytes = bytes
    if (!this.#timer) return
    const now = performance.now()
    // A loop that never waits runs no timers.
    if (now - this.#shownMs >= PROGRESS_MS) this.#show(now)
  }

  /** Makes room for what is said of the whole. */
  end(): void {
    clearInterval(this.#timer)
    if (this.#shownMs > 0) clearLine()
  }

  #show(now: number): void {
    this.#shownMs = now
    const seconds = Math.max(0.001, (now - this.#startedMs) / 1000)
    const rate = this.#bytes / seconds
    const parts = [`${formatSize(this.#bytes)}`, `${formatSize(rate)}/s`]
    if (this.#totalBytes) {
      parts.unshift(`${Math.floor((this.#bytes / this.#totalBytes) * 100)} %`)
      if (rate > 0) parts.push(`${formatDuration(((this.#totalBytes - this.#bytes) / rate) * 1000)} left`)
    }
    showLine(`${this.#label}: ${parts.join(", ")}`)
  }
}

/** What is waited for and for how long, on stderr while it is a terminal; nothing otherwise. */
export class WaitingLine {
  readonly #startedMs = performance.now()
  readonly #timer: ReturnType<typeof setInterval> | undefined
  #what: string

  constructor(what: string) {
    this.#what = what
    if (!isatty(2)) return
    this.#show()
    this.#timer = setInterval(() => this.#show(), 1000)
  }

  update(what: string): void {
    this.#what = what
    if (this.#timer) this.#show()
  }

  /** Clears the line, and leaves `done` in its place. */
  end(done?: string): void {
    if (!this.#timer) return
    clearInterval(this.#timer)
    clearLine()
    if (done !== undefined) note(`${done} after ${formatDuration(performance.now() - this.#startedMs)}`)
  }

  #show(): void {
    const seconds = Math.floor((performance.now() - this.#startedMs) / 1000)
    showLine(`mvm: ${this.#what}, ${seconds} s`)
  }
}

function tryWrite(text: string): void {
  try {
    writeAll(2, text)
  } catch {
    // Nobody to tell; and no message is worth a failure.
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
