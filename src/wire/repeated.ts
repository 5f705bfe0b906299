/**
 * @module wire/repeated
 *
 * What is said over and over on one stream, a KICK above all, is taken apart and put together once. A stream that
 * slept runs this code cold, where each step that is not taken is most of what a wake-up costs.
 */

/** Longer messages are not repeated, and not worth keeping. */
const MAX_KEPT_BYTES = 64

export class Repeated<M> {
  readonly #encoded = new WeakMap<object, Uint8Array>()
  #payload: Buffer = Buffer.alloc(0)
  #message: M | undefined

  /** The bytes made of `fields` before, or what `encode` makes now: for an object that is sent again unchanged. */
  encoded(fields: object, encode: () => Uint8Array): Uint8Array {
    let payload = this.#encoded.get(fields)
    if (!payload) this.#encoded.set(fields, (payload = encode()))
    return payload
  }

  /**
   * The message in `payload`: the last one again where it came in the same bytes, else what `decode` makes of them.
   *
   * Trust: decoding depends on nothing but the bytes, so the same bytes are the same message.
   */
  decoded(payload: Uint8Array, decode: () => M): M {
    if (this.#message && this.#payload.equals(payload)) return this.#message
    const message = decode()
    if (payload.length <= MAX_KEPT_BYTES) {
      this.#payload = Buffer.from(payload)
      this.#message = message
    }
    return message
  }
}
