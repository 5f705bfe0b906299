/**
 * @module channel/opener
 *
 * The opening end of one direction. Nothing leaves it that was not authenticated, in order, and after the first
 * record proved who the sender is.
 */

import { finishOpen, GCM_NONCE_BYTES, prepareOpen, type PreparedOpen } from "../lib/crypto.ts"
import { MvmError } from "../lib/errors.ts"
import { DigestChain } from "./digest-chain.ts"
import { DirectionKey } from "./keys.ts"
import {
  AAD_BYTES,
  bindSequence,
  HEAD_WORDS,
  isKindWord,
  KIND,
  kindOf,
  streamOf,
  tagBytesOf,
  type Kind,
  type RecordSource,
} from "./record.ts"

export interface OpenerOptions {
  /** 32 bytes, this direction's alone */
  readonly key: Uint8Array
  readonly source: RecordSource
  /** Whether the first record's 64-byte signature is the peer's over the transcript; called once. */
  readonly verifyHandshake: (signature: Uint8Array) => boolean
  /** Whether records may belong to streams; without, every one is of the channel's one flow. */
  readonly hasStreams?: boolean
}

/** An authenticated record. `plaintext` is a private buffer the caller owns. */
export interface OpenedRecord {
  readonly kind: Kind
  /** 0 to 65535; 0 where the channel has no streams */
  readonly stream: number
  readonly plaintext: Uint8Array
}

type State = "unverified" | "open" | "ended"

const SIGNATURE_BYTES = 64

export class Opener {
  /** Covers every record opened so far. */
  readonly chain = new DigestChain()

  readonly #options: OpenerOptions
  readonly #hasStreams: boolean
  readonly #key: DirectionKey
  #sequence = 0
  #prepared: PreparedOpen | undefined
  #plaintextBytes = 0
  #state: State = "unverified"
  #failure: unknown
  readonly #head = new Uint32Array(HEAD_WORDS)
  readonly #tag = tagBytesOf(this.#head)
  readonly #aad = new Uint8Array(AAD_BYTES)
  readonly #aadView = new DataView(this.#aad.buffer)
  readonly #aadWords = new Uint32Array(this.#aad.buffer)
  readonly #nonce = new Uint8Array(GCM_NONCE_BYTES)
  readonly #nonceView = new DataView(this.#nonce.buffer)

  constructor(options: OpenerOptions) {
    this.#options = options
    this.#hasStreams = options.hasStreams ?? false
    this.#key = new DirectionKey(options.key)
  }

  /** Bytes of DATA opened so far. */
  get plaintextBytes(): number {
    return this.#plaintextBytes
  }

  /** Whether the sender proved who it is. */
  get verified(): boolean {
    return this.#state !== "unverified"
  }

  /** Whether the EOF record was opened. */
  get ended(): boolean {
    return this.#state === "ended"
  }

  /**
   * Opens the next record, or returns null when there is none now. A failure is for good: every later call throws
   * it again.
   *
   * Trust: everything the source yields is the peer's, or in the arena any VM's.
   *
   * @throws MvmError `record` for a record that does not authenticate or does not fit here, `signature` when the
   * first one does not prove the sender, `protocol` from a broken ring.
   */
  tryOpen(): OpenedRecord | null {
    if (this.#failure !== undefined) throw this.#failure
    try {
      return this.#open()
    } catch (error) {
      this.#failure = error
      throw error
    }
  }

  /** Nothing more is opened: the key is forgotten. */
  wipe(): void {
    this.#key.wipe()
    this.#prepared = undefined
  }

  #open(): OpenedRecord | null {
    const head = this.#head
    const untrustedPayload = this.#options.source.next(head)
    if (untrustedPayload === undefined) {
      // Nothing to do: the time to make ready for the next.
      if (!this.#key.isWiped) this.#prepared ??= this.#prepare()
      return null
    }
    const number = this.#sequence
    const untrustedKindWord = head[1]!
    if (!isKindWord(untrustedKindWord, this.#hasStreams)) {
      throw fault(number, `unknown kind word ${untrustedKindWord}`)
    }
    const kindWord = untrustedKindWord
    if (this.#state === "ended") throw fault(number, "after the end")
    if (head[0] !== untrustedPayload.length) throw fault(number, "length differs from its payload's")
    const decipher = this.#prepared ?? this.#prepare()
    this.#prepared = undefined
    this.#aadWords[0] = head[0]!
    this.#aadWords[1] = kindWord
    bindSequence(number, this.#aadView, this.#nonceView)
    const plaintext = finishOpen(decipher, this.#aad, {
      ciphertext: untrustedPayload,
      tag: this.#tag,
    })
    this.#options.source.release()
    if (plaintext === undefined) throw fault(number, "not authentic")
    this.#sequence++
    const kind = kindOf(kindWord)
    this.#admit(kind, plaintext)
    this.chain.add(head)
    return { kind, stream: streamOf(kindWord), plaintext }
  }

  /** The state machine of `channel/record`, over records that did authenticate. */
  #admit(kind: Kind, plaintext: Uint8Array): void {
    const number = this.#sequence - 1
    if ((kind === KIND.HANDSHAKE) !== (this.#state === "unverified")) {
      throw fault(number, kind === KIND.HANDSHAKE ? "a second handshake" : "before the handshake")
    }
    if (kind === KIND.HANDSHAKE) {
      if (plaintext.length !== SIGNATURE_BYTES || !this.#options.verifyHandshake(plaintext)) {
        throw new MvmError(
          "signature",
          "record 0: not signed by the peer's identity key over this transcript",
        )
      }
      this.#state = "open"
    } else if (kind === KIND.DATA) {
      this.#plaintextBytes += plaintext.length
    } else if (kind === KIND.EOF) {
      if (plaintext.length !== 0) throw fault(number, "an end with content")
      this.#state = "ended"
    }
  }

  /** The decipher for the next sequence number, under the key that number is due. */
  #prepare(): PreparedOpen {
    bindSequence(this.#sequence, this.#aadView, this.#nonceView)
    return prepareOpen(this.#key.at(this.#sequence), this.#nonce)
  }
}

function fault(sequence: number, problem: string): MvmError {
  return new MvmError("record", `record ${sequence}: ${problem}`)
}
