/**
 * @module guest/streams/visible-writer
 *
 * What a peer wrote, on the way to a terminal: text stays, line ends and tabs stay, and every other control character
 * becomes visible, so that no peer steers the terminal of who reads.
 */

import { printable } from "../../lib/log.ts"
import { utf8 } from "../../lib/bytes.ts"
import type { ByteWriter } from "./descriptor-duplex.ts"

export class VisibleWriter implements ByteWriter {
  readonly #to: ByteWriter
  readonly #decoder = new TextDecoder()
  /** A carriage return that was the last character: alone it is shown, before a line end it is part of that. */
  #heldReturn = ""

  constructor(to: ByteWriter) {
    this.#to = to
  }

  /** Trust: the bytes are the peer's. */
  async write(bytes: Uint8Array): Promise<void> {
    const text = this.#heldReturn + this.#decoder.decode(bytes, { stream: true })
    this.#heldReturn = text.endsWith("\r") ? "\r" : ""
    const shown = visible(text.slice(0, text.length - this.#heldReturn.length))
    if (shown !== "") await this.#to.write(utf8(shown))
  }

  end(): void {
    this.#to.end()
  }
}

/** `text` with every control character but tabs and line ends shown as an escape. */
function visible(text: string): string {
  return text
    .split(/(\r?\n|\t)/)
    .map((part, index) => (index % 2 === 1 ? part : printable(part)))
    .join("")
}
