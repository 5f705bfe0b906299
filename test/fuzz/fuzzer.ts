/**
 * @module test/fuzz/fuzzer
 *
 * One target's search. Inputs are made by the target's grammar or by changing one from the pool; an input whose
 * outcome is new joins the pool. Decoders name the field they refuse, so new outcomes are new paths: a guide that
 * costs nothing, where the runtime counts no branches.
 */

import { mutate } from "./mutate.ts"
import type { Random } from "./random.ts"
import { corpusFiles, outcomeOf, type Target } from "./target.ts"

const POOL_LIMIT = 400
const MINIMISE_TRIES = 1500

export interface Finding {
  readonly target: string
  readonly what: string
  readonly stack: string
  readonly input: Uint8Array
}

export class Fuzzer {
  readonly target: Target
  tried = 0
  readonly #random: Random
  readonly #seeds: Uint8Array[]
  readonly #pool: Uint8Array[] = []
  readonly #outcomes = new Set<string>()
  readonly #found = new Set<string>()

  constructor(target: Target, random: Random) {
    this.target = target
    this.#random = random
    this.#seeds = [
      ...(target.seeds?.() ?? []),
      ...corpusFiles("seeds", target.name).map(({ bytes }) => bytes),
    ]
    this.#seeds = this.#seeds.map((bytes) => bytes.slice())
    if (this.#seeds.length === 0 && target.generate) {
      for (let i = 0; i < 8; i++) this.#seeds.push(target.generate(random))
    }
    if (this.#seeds.length === 0) this.#seeds.push(new Uint8Array(0))
  }

  /** Outcomes told apart so far. */
  get outcomes(): number {
    return this.#outcomes.size
  }

  /** Tries one input. `begins` hears of it before anything is done with it. */
  async step(begins: (input: Uint8Array) => void): Promise<Finding | undefined> {
    const input = this.#next()
    begins(input)
    this.tried += 1
    const { signature, error } = await outcomeOf(this.target, input.slice())
    if (!this.#outcomes.has(signature)) {
      this.#outcomes.add(signature)
      this.#keep(input)
    }
    if (!error || this.#found.has(signature)) return undefined
    this.#found.add(signature)
    const small = await this.#minimise(input, signature)
    return { target: this.target.name, what: signature, stack: error.stack ?? "", input: small }
  }

  #next(): Uint8Array {
    const random = this.#random
    if (this.tried < this.#seeds.length) return this.#seeds[this.tried]!
    const { generate, words = [] } = this.target
    if (generate && random.once(2)) return generate(random)
    const other = (): Uint8Array =>
      this.#pool.length > 0 && !random.once(3) ? random.pick(this.#pool) : random.pick(this.#seeds)
    return mutate(random, other(), { other, words })
  }

  #keep(input: Uint8Array): void {
    if (this.#pool.length < POOL_LIMIT) this.#pool.push(input.slice())
    else this.#pool[this.#random.below(POOL_LIMIT)] = input.slice()
  }

  /** The same finding with less: pieces are cut out as long as it stays what it is. */
  async #minimise(input: Uint8Array, signature: string): Promise<Uint8Array> {
    let best = input.slice()
    let tries = 0
    for (let size = best.length >> 1; size >= 1; size >>= 1) {
      for (let at = 0; at + size <= best.length && tries < MINIMISE_TRIES;) {
        const shorter = new Uint8Array([...best.subarray(0, at), ...best.subarray(at + size)])
        tries += 1
        if ((await outcomeOf(this.target, shorter.slice())).signature === signature) best = shorter
        else at += size
      }
    }
    return best
  }
}
