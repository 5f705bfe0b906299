/**
 * @module cli/guest/copy-progress
 *
 * What a copy shows while it runs: a bar on a terminal, else a line for each file; or events as JSON, one a line, on
 * standard output, which a copy has no other use for.
 */

import { isatty } from "node:tty"
import { shown } from "../../guest/copy/names.ts"
import type { CopyObserver, CopySummary, EntryReport } from "../../guest/copy/tally.ts"
import { formatDuration, formatSize } from "../../lib/units.ts"
import { clearLine, columnsOf, counted, note, printJson, showLine } from "../output.ts"

const SHOW_MS = 200
/** Events of progress, for programs. */
const EVENT_MS = 1000
const BAR_COLUMNS = 24
/** A narrower window has no room for the bar. */
const BAR_FROM_COLUMNS = 72

export class CopyProgress implements CopyObserver {
  readonly #json: boolean
  readonly #quiet: boolean
  readonly #isTerminal: boolean
  readonly #startedMs = performance.now()
  readonly #timer: ReturnType<typeof setInterval> | undefined
  #shownMs = 0
  #totalBytes: number | undefined
  #totalEntries = 0
  #entries = 0
  #lengthBytes = 0
  #sentBytes = 0
  #path = ""

  constructor({ json, quiet }: { json: boolean; quiet: boolean }) {
    this.#json = json
    this.#quiet = quiet
    this.#isTerminal = !json && !quiet && isatty(2)
    if (!this.#isTerminal) return
    // Of a copy that stands still, too, the last amount is shown, and a rate that falls.
    this.#timer = setInterval(() => this.#show(), SHOW_MS)
    this.#timer.unref()
  }

  /** Whether it is worth counting first what there is to do. */
  get wantsTotals(): boolean {
    return this.#isTerminal || this.#json
  }

  total(entries: number, lengthBytes: number): void {
    this.#totalEntries += entries
    this.#totalBytes = (this.#totalBytes ?? 0) + lengthBytes
    if (this.#json) printJson({ event: "total", entries, bytes: lengthBytes })
  }

  progress(lengthBytes: number, sentBytes: number): void {
    this.#lengthBytes = lengthBytes
    this.#sentBytes = sentBytes
    const now = performance.now()
    // A loop that never waits runs no timers.
    if (now - this.#shownMs < (this.#json ? EVENT_MS : SHOW_MS)) return
    if (this.#json) {
      this.#shownMs = now
      printJson({ event: "progress", entries: this.#entries, bytes: lengthBytes, sent: sentBytes })
    } else if (this.#isTerminal) {
      this.#show()
    }
  }

  entry(report: EntryReport): void {
    this.#entries += 1
    this.#path = shown(report.path)
    if (this.#json) return printJson(eventOf(report))
    if (this.#quiet && report.outcome !== "refused") return
    if (report.outcome === "refused" || (!this.#isTerminal && report.outcome !== "same")) {
      if (report.kind === "directory" && report.outcome !== "refused") return
      if (this.#isTerminal) clearLine()
      note(lineOf(report))
    }
  }

  /** The last word. */
  end(summary: CopySummary): void {
    this.stop()
    const milliseconds = Math.round(performance.now() - this.#startedMs)
    const { entries, files, lengthBytes, sentBytes, same, refused } = summary
    if (this.#json) {
      printJson({
        event: "end",
        entries,
        files,
        bytes: lengthBytes,
        sent: sentBytes,
        same,
        refused,
        milliseconds,
      })
      return
    }
    if (this.#quiet) return
    const there = same > 0 ? `; ${same} of ${entries} were there already` : ""
    note(
      `${counted(files, "file")}, ${formatSize(lengthBytes)}; ${formatSize(sentBytes)} sent in ` +
        `${formatDuration(milliseconds)}${there}`,
    )
  }

  /** Makes room for an error. */
  stop(): void {
    clearInterval(this.#timer)
    if (this.#isTerminal && this.#shownMs > 0) clearLine()
  }

  #show(): void {
    const now = performance.now()
    this.#shownMs = now
    const seconds = Math.max(0.001, (now - this.#startedMs) / 1000)
    const parts: string[] = []
    const total = this.#totalBytes
    if (total !== undefined) {
      const done = this.#fraction(total)
      if (columnsOf(2) >= BAR_FROM_COLUMNS) parts.push(bar(done))
      parts.push(`${Math.floor(done * 100)} %`)
    }
    parts.push(formatSize(this.#lengthBytes), `${formatSize(this.#sentBytes / seconds)}/s`)
    const left = total === undefined ? 0 : this.#fraction(total)
    if (left > 0 && left < 1) parts.push(`${formatDuration((seconds / left - seconds) * 1000)} left`)
    parts.push(this.#path)
    showLine(parts.join("  "))
  }

  /** By length, and by number where the files are empty. */
  #fraction(totalBytes: number): number {
    const done =
      totalBytes > 0 ? this.#lengthBytes / totalBytes : this.#entries / Math.max(1, this.#totalEntries)
    return Math.min(1, done)
  }
}

function bar(fraction: number): string {
  const filled = Math.round(fraction * BAR_COLUMNS)
  return `[${"#".repeat(filled)}${"-".repeat(BAR_COLUMNS - filled)}]`
}

function lineOf({ path, outcome, lengthBytes, sentBytes, error, kind }: EntryReport): string {
  const name = shown(path)
  if (outcome === "refused") return `${name}: ${error?.message ?? "not copied"}`
  if (kind === "symlink") return `${name}, a link`
  const resumed = outcome === "resumed" ? `, of it ${formatSize(sentBytes)} sent` : ""
  return `${name}, ${formatSize(lengthBytes)}${resumed}`
}

function eventOf({ path, kind, outcome, lengthBytes, sentBytes, error }: EntryReport): object {
  const text = shown(path)
  return {
    event: "entry",
    path: text,
    // A name that is no UTF-8 is shown with replacements.
    ...(text.includes("\ufffd") ? { pathHex: path.toHex() } : {}),
    kind,
    outcome,
    bytes: lengthBytes,
    sent: sentBytes,
    ...(error ? { code: error.code, message: error.message } : {}),
  }
}
