/**
 * @module test/fuzz/target
 *
 * What is fuzzed: one decoder a target. A refusal is an MvmError; anything else that comes out is a finding.
 */

import { readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import type { Random } from "./random.ts"

export const CORPUS = join(import.meta.dir, "../corpus")

export interface Target {
  /** Also the name of its folders in test/corpus. */
  readonly name: string
  /** Good inputs, beside those captured in test/corpus/seeds. */
  readonly seeds?: () => readonly Uint8Array[]
  /** Makes an input from the format's own rules. */
  readonly generate?: (random: Random) => Uint8Array
  /** Results that mean the input was taken, where some mean that it was not. */
  readonly taken?: RegExp
  /** Words of the format. */
  readonly words?: readonly string[]
  /**
   * Decodes `input` and holds the result to what is promised of it. Returns a word for the kind of result.
   *
   * @throws MvmError for a refusal; anything else is a finding.
   */
  readonly run: (input: Uint8Array) => string | Promise<string>
}

/** A promise of a decoder that did not hold. */
export class Broken extends Error {
  override name = "Broken"
}

/** @throws Broken unless `holds`. */
export function promise(holds: boolean, what: string): void {
  if (!holds) throw new Broken(what)
}

/** The files of a target in a folder of test/corpus, sorted by name. */
export function corpusFiles(
  folder: "seeds" | "crashes",
  target: string,
): { path: string; bytes: Uint8Array }[] {
  const directory = join(CORPUS, folder, target)
  let names: string[]
  try {
    names = readdirSync(directory)
  } catch {
    return []
  }
  return names.sort().map((name) => {
    const path = join(directory, name)
    return { path, bytes: new Uint8Array(readFileSync(path)) }
  })
}

export interface Outcome {
  /** Kind of the result, without what differs from input to input: the feedback that steers the search. */
  readonly signature: string
  /** The decoder made something of it: what lies behind its checks was reached. */
  readonly isTaken: boolean
  /** Set for a finding. */
  readonly error?: Error
}

/** Runs one input. */
export async function outcomeOf(target: Target, input: Uint8Array): Promise<Outcome> {
  try {
    const result = target.run(input)
    const signature = typeof result === "string" ? result : await result
    return { signature, isTaken: target.taken?.test(signature) ?? true }
  } catch (error) {
    if (error instanceof MvmError)
      return { signature: `${error.code} ${generic(error.message)}`, isTaken: false }
    const thrown = error instanceof Error ? error : new Error(String(error))
    return { signature: `${thrown.name} ${generic(thrown.message)}`, isTaken: false, error: thrown }
  }
}

/** A message without its numbers and quoted words. Decoders name the field they refuse, so this tells paths apart. */
function generic(message: string): string {
  return message
    .replace(/"[^"]*"|`[^`]*`/g, "_")
    .replace(/0x[0-9a-f]+/g, "#")
    .replace(/[0-9a-f]{8,}|\d+/g, "#")
    .slice(0, 160)
}
