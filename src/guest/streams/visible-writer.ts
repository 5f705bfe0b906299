/**
 * @module guest/streams/visible-writer
 *
 * What a peer wrote, on the way to a terminal: text stays, line ends and tabs stay, and every other control character
 * becomes visible, so that no peer steers the terminal of who reads.
 */

import { printable } from "../../lib/log.ts"
import { utf8 } from "../../lib/bytes.ts"
import type { ByteWriter } from "./descriptor-duplex.ts"

/** Makes bytes that come piece by piece visible. */
export class VisibleBytes {
  readonly #decoder = new TextDecoder()
  /** A carriage return that was the last character: alone it is shown, before a line end it is part of that. */
  #heldReturn = ""

  /** Trust: the bytes are the peer's. @returns what a terminal may be given; nothing while a character is incomplete */
  of(bytes: Uint8Array): Uint8Array {
    const text = this.#heldReturn + this.#decoder.decode(bytes, { stream: true })
    this.#heldReturn = text.endsWith("\r") ? "\r" : ""
    return utf8(visible(text.slice(0, text.length - this.#heldReturn.length)))
  }
}

export class VisibleWriter implements ByteWriter {
  readonly #to: ByteWriter
  readonly #visible = new VisibleBytes()

  constructor(to: ByteWriter) {
    this.#to = to
  }

  async write(bytes: Uint8Array): Promise<void> {
    const shown = this.#visible.of(bytes)
    if (shown.length > 0) await this.#to.write(shown)
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
