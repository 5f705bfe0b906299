/**
 * @module wire/bulk-queue
 *
 * What goes out on a link in bulk: the relayed records of many channels, and the words that steer them. Everything
 * else is written to the stream at once, so the stream itself must never hold much: records wait here, each channel
 * in a line of its own, and are handed on while the stream has little to write.
 *
 * ```
 *    control ──────────────────────────────────────────┐
 *    CREDIT, RESUME  (the newest of a channel) ──┐      ├──► stream ──► socket or port
 *    RECORD  channel 1 ─┐                        ├──────┘
 *            channel 2 ─┴─ least sent goes first ┘
 * ```
 *
 * The stream is not all: socket, QEMU and the guest's kernel hold most of a MiB that nobody has read. An end that knows
 * of that has the other one say how much it read, and is never further ahead of it than a limit, so that what is no
 * bulk finds little before it all the way.
 *
 * Not here: how much may wait in a line. The window (channel/record-queue) bounds it, and who does not trust the
 * other end to keep it looks at {@link BulkQueue.heldBytes}.
 */

import type { Fields } from "./link.ts"

/** The stream gets more while less than this waits in it. */
export const STREAM_LOW_BYTES = 16 * 1024

/** Records that are out and were not read yet: two frames and a part, so that the way never runs dry. */
export const UNREAD_BYTES = 128 * 1024

/** The reader of a link says how far it is after this much more. */
export const READ_STEP_BYTES = 32 * 1024

/** What any frame costs the link beside its record, however short that is. */
const FRAME_COST_BYTES = 512

export type MarkName = "CREDIT" | "RESUME"
export type BulkName = MarkName | "RECORD"

/** The link that bulk goes out on. */
export interface BulkWriter {
  /** Whether the link is up and its stream has little to write. */
  ready(): boolean
  send<N extends BulkName>(name: N, fields: Fields<N>): void
}

interface Line {
  readonly marks: { [N in MarkName]?: Fields<N> }
  readonly records: Fields<"RECORD">[]
  heldBytes: number
  /** What this line has sent, on the scale of {@link BulkQueue.#clock}. */
  sentBytes: number
}

export class BulkQueue {
  readonly #writer: BulkWriter
  /** By channel */
  readonly #lines = new Map<string, Line>()
  /** Where the line that was served last stood: a new one begins there, with no claim for the time before. */
  #clock = 0
  readonly #mostUnread: number
  #sentBytes = 0
  #readBytes = 0

  /** @param mostUnread how far it may be ahead of what the other end of the link read, see {@link read} */
  constructor(writer: BulkWriter, mostUnread = Infinity) {
    this.#writer = writer
    this.#mostUnread = mostUnread
  }

  /**
   * The other end read so many bytes of records since the link began.
   *
   * Trust: the number is the other end's, and what it says harms itself.
   */
  read(bytes: number): void {
    this.#readBytes = Math.max(this.#readBytes, Math.min(bytes, this.#sentBytes))
    this.pump()
  }

  /** Bytes of records that wait in `line`. */
  heldBytes(line: string): number {
    return this.#lines.get(line)?.heldBytes ?? 0
  }

  record(line: string, fields: Fields<"RECORD">): void {
    const of = this.#lineOf(line)
    of.records.push(fields)
    of.heldBytes += fields.record.length
    this.pump()
  }

  /** Only the newest of each name is sent: each says all that those before it said. */
  mark<N extends MarkName>(line: string, name: N, fields: Fields<N>): void {
    const marks: { [K in MarkName]?: Fields<K> } = this.#lineOf(line).marks
    marks[name] = fields as never
    this.pump()
  }

  /** Records of `line` that wait are not sent. */
  dropRecords(line: string): void {
    const of = this.#lines.get(line)
    if (!of) return
    of.records.length = 0
    of.heldBytes = 0
  }

  drop(line: string): void {
    this.#lines.delete(line)
  }

  /** The link began anew: nothing that waited belongs to it. */
  clear(): void {
    this.#lines.clear()
    this.#sentBytes = 0
    this.#readBytes = 0
  }

  /** Hands on what the stream takes now. To be called whenever that may be more than before. */
  pump(): void {
    while (this.#lines.size > 0 && this.#writer.ready()) {
      if (!this.#sendMark() && !this.#sendRecord()) return
    }
  }

  #sendMark(): boolean {
    for (const [key, { marks, records }] of this.#lines) {
      for (const name of ["RESUME", "CREDIT"] as const) {
        const fields = marks[name]
        if (!fields) continue
        delete marks[name]
        if (records.length === 0 && !marks.CREDIT) this.#lines.delete(key)
        this.#writer.send(name, fields as never)
        return true
      }
    }
    return false
  }

  #sendRecord(): boolean {
    if (this.#sentBytes - this.#readBytes >= this.#mostUnread) return false
    let least: [string, Line] | undefined
    for (const entry of this.#lines) {
      if (entry[1].records.length > 0 && (!least || entry[1].sentBytes < least[1].sentBytes)) least = entry
    }
    const fields = least?.[1].records.shift()
    if (!least || !fields) return false
    const [key, line] = least
    this.#clock = line.sentBytes
    line.sentBytes += fields.record.length + FRAME_COST_BYTES
    line.heldBytes -= fields.record.length
    this.#sentBytes += fields.record.length
    if (line.records.length === 0) this.#lines.delete(key)
    this.#writer.send("RECORD", fields)
    return true
  }

  #lineOf(key: string): Line {
    let line = this.#lines.get(key)
    if (!line) {
      line = { marks: {}, records: [], heldBytes: 0, sentBytes: this.#clock }
      this.#lines.set(key, line)
    }
    return line
  }
}
