/**
 * @module cli/screen
 *
 * A terminal that is drawn again and again: the alternate screen, so that what stood there before comes back, with
 * each frame written over the last in one piece, so that nothing flickers. Lines are cut to the window.
 */

import { printable } from "../lib/log.ts"
import { windowOf, writeRaw } from "./output.ts"

const ENTER = "\u001b[?1049h\u001b[?25l"
const LEAVE = "\u001b[?25h\u001b[?1049l"
const HOME = "\u001b[H"
const CLEAR_TO_LINE_END = "\u001b[K"
const CLEAR_TO_SCREEN_END = "\u001b[J"

export class Screen {
  #lines: readonly string[] = []
  #isOpen = false
  readonly #redraw = (): void => this.#draw()

  open(): void {
    this.#isOpen = true
    write(ENTER)
    process.stdout.on("resize", this.#redraw)
  }

  /** What is to be seen from now on. */
  show(lines: readonly string[]): void {
    this.#lines = lines
    this.#draw()
  }

  /** The terminal is as it was. */
  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    process.stdout.off("resize", this.#redraw)
    write(LEAVE)
  }

  #draw(): void {
    const { columns, rows } = windowOf(1)
    const shown = fit(this.#lines, rows).map((line) => printable(line).slice(0, columns))
    const frame = shown.map((line) => `${line}${CLEAR_TO_LINE_END}`).join("\r\n")
    write(`${HOME}${frame}${CLEAR_TO_SCREEN_END}`)
  }
}

function write(text: string): void {
  writeRaw(Buffer.from(text))
}

/** No more than `rows` lines; the last one says how many there is no room for. */
function fit(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) return lines
  const kept = Math.max(0, rows - 1)
  return [...lines.slice(0, kept), `... ${lines.length - kept} more`]
}
