/**
 * @module channel/sealer
 *
 * The sealing end of one direction. What it seals is in private memory before and after: the ciphertext reaches
 * shared memory by one copy (the sink's), so the cipher never reads or writes what another VM can change.
 */

import { discardOutput, finishSeal, GCM_NONCE_BYTES, prepareSeal, type PreparedSeal } from "../lib/crypto.ts"
import { DigestChain } from "./digest-chain.ts"
import { DirectionKey } from "./keys.ts"
import {
  AAD_BYTES,
  bindSequence,
  HEAD_WORDS,
  KIND,
  kindWordOf,
  tagBytesOf,
  type Kind,
  type RecordSink,
} from "./record.ts"

export class Sealer {
  /** Covers every record sealed so far. */
  readonly chain = new DigestChain()

  readonly #sink: RecordSink
  readonly #key: DirectionKey
  #sequence = 0
  #prepared: PreparedSeal | undefined
  #plaintextBytes = 0
  readonly #head = new Uint32Array(HEAD_WORDS)
  readonly #tag = tagBytesOf(this.#head)
  readonly #aad = new Uint8Array(AAD_BYTES)
  readonly #aadView = new DataView(this.#aad.buffer)
  readonly #aadWords = new Uint32Array(this.#aad.buffer)
  readonly #nonce = new Uint8Array(GCM_NONCE_BYTES)
  readonly #nonceView = new DataView(this.#nonce.buffer)

  /** @param key 32 bytes, this direction's alone */
  constructor(key: Uint8Array, sink: RecordSink) {
    this.#key = new DirectionKey(key)
    this.#sink = sink
  }

  /** The longest plaintext one record can hold. */
  get maxPlaintextBytes(): number {
    return this.#sink.maxPayloadBytes
  }

  /** Bytes of DATA sealed so far. */
  get plaintextBytes(): number {
    return this.#plaintextBytes
  }

  /** How much of `waitingBytes` the next record should take; 0 or less: no room now. */
  room(waitingBytes: number): number {
    return this.#sink.room(waitingBytes)
  }

  /**
   * Seals `plaintext` as one record. False: no room now, and nothing happened. The other end sees it after
   * {@link flush}.
   *
   * @param stream 0 to 65535; which one it belongs to, in a channel that has streams
   * @throws RangeError for a plaintext longer than {@link maxPlaintextBytes}; MvmError `protocol` from a broken ring.
   */
  trySeal(kind: Kind, plaintext: Uint8Array, stream = 0): boolean {
    if (plaintext.length > this.#sink.maxPayloadBytes) throw new RangeError("longer than a record")
    if (!this.#sink.claim(plaintext.length)) return false
    const cipher = this.#prepared ?? this.#prepare()
    this.#prepared = undefined
    const head = this.#head
    head[0] = plaintext.length
    head[1] = kindWordOf(kind, stream)
    this.#aadWords[0] = head[0]!
    this.#aadWords[1] = head[1]!
    bindSequence(this.#sequence, this.#aadView, this.#nonceView)
    // Used up here: whatever happens below, no second record is sealed under this number.
    this.#sequence++
    const { ciphertext, tag } = finishSeal(cipher, this.#aad, plaintext)
    this.#tag.set(tag)
    this.#sink.put(head, ciphertext)
    discardOutput(ciphertext)
    this.chain.add(head)
    if (kind === KIND.DATA) this.#plaintextBytes += plaintext.length
    return true
  }

  /** Nothing more is sealed: the key is forgotten. */
  wipe(): void {
    this.#key.wipe()
    this.#prepared = undefined
  }

  /** Shows all sealed records to the other end. */
  flush(): void {
    this.#sink.publish()
    // After the other end can see the records, and while it works on them.
    if (!this.#key.isWiped) this.#prepared ??= this.#prepare()
  }

  /** The cipher for the next sequence number, under the key that number is due. */
  #prepare(): PreparedSeal {
    bindSequence(this.#sequence, this.#aadView, this.#nonceView)
    return prepareSeal(this.#key.at(this.#sequence), this.#nonce)
  }
}
