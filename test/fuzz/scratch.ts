/**
 * @module test/fuzz/scratch
 *
 * The file a worker and its watcher share: which input is being tried.
 *
 *     0  u32  number of the input, odd while one is tried
 *     4  u32  index of its target
 *     8  u32  its length
 *    12       its bytes
 */

import { closeSync, ftruncateSync, openSync } from "node:fs"
import { MAX_INPUT_BYTES } from "./mutate.ts"

const HEAD_BYTES = 12

export interface Trying {
  readonly number: number
  readonly target: number
  readonly input: Uint8Array
}

export class Scratch {
  readonly #words: Int32Array
  readonly #bytes: Uint8Array

  private constructor(memory: Uint8Array) {
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, 3)
    this.#bytes = memory.subarray(HEAD_BYTES)
  }

  static create(path: string): Scratch {
    const fd = openSync(path, "w+", 0o600)
    ftruncateSync(fd, HEAD_BYTES + MAX_INPUT_BYTES)
    closeSync(fd)
    return Scratch.open(path)
  }

  static open(path: string): Scratch {
    return new Scratch(Bun.mmap(path, { shared: true }))
  }

  /** Writes down each input before it is tried. */
  writerOf(target: number): (input: Uint8Array) => void {
    this.#words[1] = target
    return (input) => {
      this.#bytes.set(input.length > MAX_INPUT_BYTES ? input.subarray(0, MAX_INPUT_BYTES) : input)
      this.#words[2] = Math.min(input.length, MAX_INPUT_BYTES)
      this.#words[0] = ((this.#words[0]! | 1) + 2) | 0
    }
  }

  idle(): void {
    this.#words[0]! &= ~1
  }

  /** What is being tried, or undefined between two. */
  read(): Trying | undefined {
    const number = this.#words[0]!
    if ((number & 1) === 0) return undefined
    return { number, target: this.#words[1]!, input: this.#bytes.slice(0, this.#words[2]!) }
  }
}
