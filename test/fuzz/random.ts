/**
 * @module test/fuzz/random
 *
 * Repeatable randomness: the same seed gives the same inputs. @spec Chris Doty-Humphrey, PractRand: sfc32
 */

export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(seed: number) {
    this.#a = seed | 0
    this.#b = 0x9e3779b9 | 0
    this.#c = 0x243f6a88 | 0
    for (let round = 0; round < 12; round++) this.u32()
  }

  u32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    return sum >>> 0
  }

  /** 0 to `limit - 1`. */
  below(limit: number): number {
    return limit <= 0xffff_ffff ? this.u32() % limit : (this.u32() * 0x20_0000 + (this.u32() >>> 11)) % limit
  }

  /** True once in `of` times. */
  once(of: number): boolean {
    return this.u32() % of === 0
  }

  pick<T>(from: ArrayLike<T>): T {
    return from[this.below(from.length)] as T
  }

  /** Short lengths are likelier; 0 to `max`. */
  length(max: number): number {
    const cap = this.once(4) ? max : Math.min(max, this.pick([4, 16, 64, 256]))
    return this.below(cap + 1)
  }

  bytes(lengthBytes: number): Uint8Array {
    const out = new Uint8Array(lengthBytes)
    for (let at = 0; at < lengthBytes; at++) out[at] = this.u32() & 0xff
    return out
  }
}
