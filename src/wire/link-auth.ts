/**
 * @module wire/link-auth
 *
 * Authentication of each frame of a link, under two keys and an epoch that both ends derived when the link was
 * set up (not here). A sealed message is
 *
 * ```
 *  0            8           40
 *  +------------+-----------+---------+
 *  | seq        | MAC       | message |
 *  +------------+-----------+---------+
 *    u64 BE       32 bytes
 * ```
 *
 * with MAC = HMAC-SHA-256(key of the direction, encodeFields("mvm link frame v1", [epoch, seq, message])). The
 * stream is reliable within an epoch, so the only number accepted is the next one: a frame that is lost, repeated,
 * out of order or of another epoch ends the link, and a new epoch begins with a new set-up. Not supported:
 * confidentiality.
 *
 * @spec RFC 2104
 */

import { createHmac, createSecretKey, type KeyObject } from "node:crypto"
import { equalBytes, putU64be } from "../lib/bytes.ts"
import { encodeFields } from "../lib/encoding.ts"
import { MvmError } from "../lib/errors.ts"
import { MAX_FRAME_PAYLOAD_BYTES } from "./frame.ts"

export const LINK_KEY_BYTES = 32
export const EPOCH_BYTES = 16
export const SEAL_BYTES = 40
export const MAX_SEALED_MESSAGE_BYTES = MAX_FRAME_PAYLOAD_BYTES - SEAL_BYTES

const LABEL = "mvm link frame v1"
const MAC_OFFSET = 8

export interface LinkKeys {
  /** 32 bytes for what this end sends; the other end's `receiveKey`. */
  readonly sendKey: Uint8Array
  /** 32 bytes for what this end receives. */
  readonly receiveKey: Uint8Array
  /** 16 bytes, fresh for each set-up of the link. */
  readonly epoch: Uint8Array
}

/** Seals and opens the frames of one end of a link in one epoch. */
export class FrameAuthenticator {
  readonly #sendKey: KeyObject
  readonly #receiveKey: KeyObject
  readonly #prefix: Buffer
  /** Counts from 0, and never reach 2^53, where the numbers would stop being exact. */
  #sendSeq = 0
  #receiveSeq = 0

  /** @throws RangeError for a wrong length, or for one key in both directions, which would let frames be reflected. */
  constructor({ sendKey, receiveKey, epoch }: LinkKeys) {
    if (sendKey.length !== LINK_KEY_BYTES || receiveKey.length !== LINK_KEY_BYTES) {
      throw new RangeError(`a link key has ${LINK_KEY_BYTES} bytes`)
    }
    if (equalBytes(sendKey, receiveKey)) throw new RangeError("each direction needs a link key of its own")
    if (epoch.length !== EPOCH_BYTES) throw new RangeError(`an epoch has ${EPOCH_BYTES} bytes`)
    this.#sendKey = createSecretKey(sendKey)
    this.#receiveKey = createSecretKey(receiveKey)
    // Encoded once; seq and the message's length, its last 8+4+4 bytes, are filled in for each frame.
    this.#prefix = Buffer.from(encodeFields(LABEL, [epoch, 0, new Uint8Array(0)]))
  }

  /**
   * The payload of an authenticated frame around `message` (up to 65480 bytes); takes one sequence number.
   *
   * @throws MvmError `frame` for a message that does not fit.
   */
  seal(message: Uint8Array): Uint8Array {
    if (message.length > MAX_SEALED_MESSAGE_BYTES) {
      throw new MvmError("frame", `message: ${message.length} bytes, at most ${MAX_SEALED_MESSAGE_BYTES}`)
    }
    const seq = this.#sendSeq++
    const payload = new Uint8Array(SEAL_BYTES + message.length)
    putU64be(payload, 0, seq)
    payload.set(this.#mac(this.#sendKey, seq, message), MAC_OFFSET)
    payload.set(message, SEAL_BYTES)
    return payload
  }

  /**
   * The message in `payload`, as a view of it.
   *
   * Trust: `payload` is hostile until the MAC agreed, which is compared in constant time. A refused payload
   * changes nothing here.
   *
   * @throws MvmError `frame`.
   */
  open(payload: Uint8Array): Uint8Array {
    if (payload.length < SEAL_BYTES) throw new MvmError("frame", "seal: too short")
    const seq = this.#receiveSeq
    const expected = new Uint8Array(MAC_OFFSET)
    putU64be(expected, 0, seq)
    if (!equalBytes(expected, payload.subarray(0, MAC_OFFSET))) {
      throw new MvmError("frame", `seal.seq: not the expected ${seq}`)
    }
    const message = payload.subarray(SEAL_BYTES)
    const mac = this.#mac(this.#receiveKey, seq, message)
    if (!equalBytes(mac, payload.subarray(MAC_OFFSET, SEAL_BYTES))) {
      throw new MvmError("frame", "seal.mac: does not match")
    }
    this.#receiveSeq++
    return message
  }

  #mac(key: KeyObject, seq: number, message: Uint8Array): Uint8Array {
    const prefix = this.#prefix
    putU64be(prefix, prefix.length - 12, seq)
    prefix.writeUInt32BE(message.length, prefix.length - 4)
    return createHmac("sha256", key).update(prefix).update(message).digest()
  }
}
