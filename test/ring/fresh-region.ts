import { regionLayout, regionOf, type Region } from "../../src/ring/layout.ts"

/** A region in ordinary memory, as the MVM hands it out. `shared` makes it usable from several threads. */
export function freshRegion(ringBytes: number, shared = false): { region: Region; memory: Uint8Array } {
  const { lengthBytes, header } = regionLayout(ringBytes)
  const memory = shared ? new Uint8Array(new SharedArrayBuffer(lengthBytes)) : new Uint8Array(lengthBytes)
  memory.set(header)
  return { region: regionOf(memory, ringBytes), memory }
}

/** A small deterministic generator, so that a failing seed can be run again. @returns [0, below) */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
