/**
 * @module channel/digest-chain
 *
 * The digest of a direction: SHA-256 over the heads of all its records in order, that is, over each record's
 * length, kind and tag. A tag authenticates its record's ciphertext under the channel's key, so two ends that hold
 * the key and agree on this digest agree on the encrypted content. It costs 24 hashed bytes a record; hashing the
 * content itself costs more than sealing it.
 */

import { Sha256 } from "../lib/crypto.ts"
import { HEAD_WORDS } from "./record.ts"

const BATCH_WORDS = 512 * HEAD_WORDS

export class DigestChain {
  readonly #hash = new Sha256()
  readonly #batch = new Uint32Array(BATCH_WORDS)
  #filledWords = 0
  #records = 0
  #digest: Uint8Array | undefined

  /** Records added so far. */
  get records(): number {
    return this.#records
  }

  /** Adds a record's head ({@link HEAD_WORDS} words). */
  add(head: Uint32Array): void {
    if (this.#digest !== undefined) throw new RangeError("the direction has ended")
    const at = this.#filledWords
    for (let word = 0; word < HEAD_WORDS; word++) this.#batch[at + word] = head[word]!
    this.#filledWords = at + HEAD_WORDS
    this.#records++
    if (this.#filledWords === BATCH_WORDS) this.#flush()
  }

  /** The 32-byte digest. Nothing can be added afterwards. */
  digest(): Uint8Array {
    if (this.#digest === undefined) {
      this.#flush()
      this.#digest = this.#hash.digest()
    }
    return this.#digest
  }

  #flush(): void {
    // The words are in the machine's order, which is the format's: every supported processor is little-endian.
    this.#hash.update(new Uint8Array(this.#batch.buffer, 0, this.#filledWords * 4))
    this.#filledWords = 0
  }
}
