/**
 * @module wire/frame
 *
 * Frames on a byte stream that may begin in the middle and may lose bytes (a virtio-serial port whose guest
 * rebooted). Not supported: fragmentation, retransmission, ordering; those belong to the layers above. The CRC
 * finds damage, not attackers.
 *
 * ```
 *  0        4         5       6            8               12        16
 *  +--------+---------+-------+------------+---------------+---------+-----------------+
 *  | "MVM1" | version | flags | reserved 0 | payload bytes | CRC-32  | payload         |
 *  +--------+---------+-------+------------+---------------+---------+-----------------+
 *           u8        u8      u16          u32             u32         0 to 65520 bytes
 * ```
 *
 * Integers are big-endian. The CRC (zlib's) covers bytes 0-11 and the payload. Flag bit 0 says that the payload
 * is a sealed one of {@link module:wire/link-auth}; the other bits are zero.
 */

import { crc32 } from "node:zlib"
import { getU16be, getU32be, putU32be } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"

// Specification.
export const FRAME_HEADER_BYTES = 16
export const MAX_FRAME_BYTES = 65536
export const MAX_FRAME_PAYLOAD_BYTES = MAX_FRAME_BYTES - FRAME_HEADER_BYTES
const MAGIC = Buffer.from("MVM1", "latin1")
const MAGIC_WORD = 0x4d564d31
const VERSION = 1
const FLAG_AUTHENTICATED = 1
const CRC_OFFSET = 12

// Implementation.
const SMALL_BUFFER_BYTES = 4096
const LARGE_BUFFER_BYTES = 2 * MAX_FRAME_BYTES
const MAX_RESCAN_CREDIT_BYTES = 8 * MAX_FRAME_BYTES

export interface Frame {
  /** A copy of its own, never a view of what was pushed. */
  readonly payload: Uint8Array
  /** The flag as the peer wrote it: whether `payload` has to be opened by the link's authenticator. */
  readonly authenticated: boolean
}

export interface FrameOptions {
  /** Sets the "authenticated" flag; the payload must then be a sealed one. */
  readonly auth?: boolean | undefined
}

/**
 * One frame around `payload` (0 to 65520 bytes).
 *
 * @throws MvmError `frame` for a payload that does not fit.
 */
export function encodeFrame(payload: Uint8Array, options: FrameOptions = {}): Uint8Array {
  if (payload.length > MAX_FRAME_PAYLOAD_BYTES) {
    throw new MvmError("frame", `frame.payload: ${payload.length} bytes, at most ${MAX_FRAME_PAYLOAD_BYTES}`)
  }
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length)
  putU32be(frame, 0, MAGIC_WORD)
  frame[4] = VERSION
  frame[5] = options.auth === true ? FLAG_AUTHENTICATED : 0
  putU32be(frame, 8, payload.length)
  frame.set(payload, FRAME_HEADER_BYTES)
  putU32be(frame, CRC_OFFSET, frameCrc(frame))
  return frame
}

/**
 * Takes a byte stream apart into frames, and finds the next one again after garbage.
 *
 * Trust: everything pushed is hostile. A reader keeps less than 64 KiB between pushes. Its work is linear in the
 * bytes pushed: searching never revisits a byte, and a wrong CRC over n bytes is followed by a search inside
 * those n bytes only as long as a credit lasts that grows by one byte with each byte received; without credit the
 * n bytes are dropped whole. So a torn frame with good ones behind it is recovered, while nested false headers
 * cannot multiply the work.
 */
export class FrameReader {
  /** Bytes that belonged to no valid frame. */
  droppedBytes = 0
  #buffer: Buffer = Buffer.alloc(0)
  #start = 0
  #end = 0
  #rescanCredit = MAX_RESCAN_CREDIT_BYTES

  /** Bytes of an unfinished frame (or of what may become one). */
  get pendingBytes(): number {
    return this.#end - this.#start
  }

  /** The frames that `chunk` completes, in order. `chunk` is not kept. */
  push(chunk: Uint8Array): Frame[] {
    const whole = this.pendingBytes === 0 ? wholeFrame(chunk) : undefined
    if (whole) return [whole]
    const frames: Frame[] = []
    this.#rescanCredit = Math.min(this.#rescanCredit + chunk.length, MAX_RESCAN_CREDIT_BYTES)
    let at = 0
    while (at < chunk.length) {
      at += this.#append(chunk, at)
      this.#drain(frames)
    }
    this.#release()
    return frames
  }

  /**
   * Gives up the unfinished frame and returns the frames found behind its header. For a caller that knows that
   * the rest never comes: the peer restarted in the middle of a frame, or a time limit passed.
   */
  abandon(): Frame[] {
    const frames: Frame[] = []
    while (this.pendingBytes > 0) {
      this.#drop(Math.min(MAGIC.length, this.pendingBytes))
      this.#drain(frames)
    }
    this.#release()
    return frames
  }

  /** Copies as much of the chunk as there is room for; returns how much. After a drain there is always room. */
  #append(chunk: Uint8Array, at: number): number {
    const wanted = this.pendingBytes + chunk.length - at
    if (this.#end + chunk.length - at > this.#buffer.length) this.#compact(wanted)
    const take = Math.min(chunk.length - at, this.#buffer.length - this.#end)
    this.#buffer.set(chunk.subarray(at, at + take), this.#end)
    this.#end += take
    return take
  }

  /**
   * Moves what is pending to the front, of a larger buffer if `wanted` asks for it. At most 64 KiB move for each
   * doubling or for each 64 KiB appended, which keeps the copying linear.
   */
  #compact(wanted: number): void {
    let size = Math.max(this.#buffer.length, SMALL_BUFFER_BYTES)
    while (size < wanted && size < LARGE_BUFFER_BYTES) size *= 2
    if (size === this.#buffer.length) {
      this.#buffer.copyWithin(0, this.#start, this.#end)
    } else {
      const larger = Buffer.alloc(size)
      larger.set(this.#buffer.subarray(this.#start, this.#end))
      this.#buffer = larger
    }
    this.#end -= this.#start
    this.#start = 0
  }

  /** An idle reader holds no large buffer. */
  #release(): void {
    if (this.pendingBytes > 0) return
    this.#start = 0
    this.#end = 0
    if (this.#buffer.length > SMALL_BUFFER_BYTES) this.#buffer = Buffer.alloc(0)
  }

  #drain(frames: Frame[]): void {
    while (this.pendingBytes > 0 && this.#seekMagic() && this.pendingBytes >= FRAME_HEADER_BYTES) {
      const payloadBytes = this.#headerLength()
      if (payloadBytes === undefined) {
        this.#drop(MAGIC.length)
        continue
      }
      const frameBytes = FRAME_HEADER_BYTES + payloadBytes
      if (this.pendingBytes < frameBytes) return
      const bytes = this.#buffer.subarray(this.#start, this.#start + frameBytes)
      if (frameCrc(bytes) === bytes.readUInt32BE(CRC_OFFSET)) {
        frames.push({
          payload: new Uint8Array(bytes.subarray(FRAME_HEADER_BYTES)),
          authenticated: bytes[5] === FLAG_AUTHENTICATED,
        })
        this.#start += frameBytes
      } else if (frameBytes <= this.#rescanCredit) {
        this.#rescanCredit -= frameBytes
        this.#drop(MAGIC.length)
      } else {
        this.#drop(frameBytes)
      }
    }
  }

  /** Whether the buffer now begins with the whole magic; what cannot be its beginning is dropped. */
  #seekMagic(): boolean {
    if (this.pendingBytes >= MAGIC.length && this.#buffer.readUInt32BE(this.#start) === MAGIC_WORD)
      return true
    const pending = this.#buffer.subarray(this.#start, this.#end)
    const found = pending.indexOf(MAGIC)
    this.#drop(found >= 0 ? found : pending.length - magicPrefixBytes(pending))
    return found >= 0
  }

  /** The payload's length, or undefined where the header is none of ours. */
  #headerLength(): number | undefined {
    const at = this.#start
    const reserved = this.#buffer.readUInt16BE(at + 6)
    const payloadBytes = this.#buffer.readUInt32BE(at + 8)
    const valid =
      this.#buffer[at + 4] === VERSION &&
      (this.#buffer[at + 5]! & ~FLAG_AUTHENTICATED) === 0 &&
      reserved === 0 &&
      payloadBytes <= MAX_FRAME_PAYLOAD_BYTES
    return valid ? payloadBytes : undefined
  }

  /** No suffix of the magic begins the magic, so dropping all four of its bytes skips no frame. */
  #drop(lengthBytes: number): void {
    this.#start += lengthBytes
    this.droppedBytes += lengthBytes
  }
}

/** The frame that `chunk` is, where it is exactly one: the usual case, and nothing need be kept for it. */
function wholeFrame(chunk: Uint8Array): Frame | undefined {
  if (chunk.length < FRAME_HEADER_BYTES || chunk.length > MAX_FRAME_BYTES) return undefined
  const isFrame =
    getU32be(chunk, 0) === MAGIC_WORD &&
    chunk[4] === VERSION &&
    (chunk[5]! & ~FLAG_AUTHENTICATED) === 0 &&
    getU16be(chunk, 6) === 0 &&
    getU32be(chunk, 8) === chunk.length - FRAME_HEADER_BYTES &&
    getU32be(chunk, CRC_OFFSET) === frameCrc(chunk)
  if (!isFrame) return undefined
  return { payload: chunk.slice(FRAME_HEADER_BYTES), authenticated: chunk[5] === FLAG_AUTHENTICATED }
}

/** How many bytes at the end may be the beginning of the magic. */
function magicPrefixBytes(bytes: Buffer): number {
  for (let length = Math.min(MAGIC.length - 1, bytes.length); length > 0; length--) {
    if (bytes.subarray(bytes.length - length).equals(MAGIC.subarray(0, length))) return length
  }
  return 0
}

function frameCrc(frame: Uint8Array): number {
  return crc32(frame.subarray(FRAME_HEADER_BYTES), crc32(frame.subarray(0, CRC_OFFSET)))
}
