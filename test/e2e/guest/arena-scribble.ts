/**
 * @module test/e2e/guest/arena-scribble
 *
 * Runs as root in a VM that has nothing to do with a transfer: looks for anything in the arena that every VM maps, and
 * then writes noise over all of it, again and again.
 *
 *   bun arena-scribble.js RESOURCE SECONDS
 *
 * Prints one JSON object.
 */

import { randomFillSync } from "node:crypto"

/** Where the probes of every VM write. */
const SCRATCH = 64 * 1024

const [resource = "", seconds = ""] = process.argv.slice(2)
const arena = Bun.mmap(resource, { shared: true })
const regions = arena.subarray(0, arena.length - SCRATCH)
const copy = Buffer.from(regions.slice())
const isEmpty = copy.equals(Buffer.alloc(copy.length))
const noise = randomFillSync(Buffer.alloc(1 << 20))
const deadline = performance.now() + Number(seconds) * 1000
let rounds = 0
while (performance.now() < deadline || rounds === 0) {
  for (let at = 0; at < regions.length; at += noise.length) {
    regions.set(noise.subarray(0, Math.min(noise.length, regions.length - at)), at)
  }
  rounds += 1
}
// What it wrote is there: the arena is what it wrote to.
const isOverwritten = Buffer.from(regions.slice(0, noise.length)).equals(noise)
console.log(JSON.stringify({ mappedBytes: arena.length, isEmpty, rounds, isOverwritten }))
