/**
 * @module test/e2e/guest/arena-race
 *
 * Runs as root in a VM that has nothing to do with a transfer, and writes into the region of one that runs, as fast
 * as it can: random words anywhere, the cursors in its header, its records, or the marks alone. Prints one JSON object:
 * how many writes, and how long after the first the region was given up.
 *
 *   bun arena-race.js RING-BYTES random|header|records|marks SECONDS
 */

import { findIvshmem } from "../../../src/platform/ivshmem.ts"
import { WAYS, mappingOf } from "../../../src/platform/mapping.ts"
import { mapShared } from "../../../src/platform/mmap.ts"

const PAGE = 4096
const WAIT_MS = 90_000
/** Words of the header page: cursors, wake-up requests and closed marks of both rings. */
const CURSORS = [0, 1].flatMap((ring) => [0, 1, 2, 3].map((block) => 64 + ring * 160 + block * 32))
const TAILS = [64, 224]
const MARKS = [32, 64 + 128, 224 + 128]
const VERSION_WORD = 0

const [ringText = "", mode = "", secondsText = ""] = process.argv.slice(2)
const regionBytes = PAGE + 2 * Number(ringText)
const words = mapArena()

/** In whatever way the kernel lets: while one process maps the memory in one, it refuses the others. */
function mapArena(): Int32Array {
  const device = findIvshmem()[0]!
  for (const way of WAYS) {
    try {
      const { path, offsetBytes } = mappingOf(device, way)
      const { bytes } = mapShared(path, { offsetBytes, lengthBytes: regionBytes })
      return new Int32Array(bytes.buffer, bytes.byteOffset, regionBytes / 4)
    } catch {
      // Not this one.
    }
  }
  throw new Error("the arena cannot be mapped")
}

const isActive = (): boolean => TAILS.some((word) => Atomics.load(words, word) !== 0)
const random = (below: number): number => Math.floor(Math.random() * below)

function strike(): void {
  const value = random(2) === 0 ? random(2 ** 31) : random(256)
  if (mode === "marks") for (const mark of MARKS) Atomics.store(words, mark, 1)
  else if (mode === "header") Atomics.store(words, CURSORS[random(CURSORS.length)]!, value)
  else if (mode === "records") Atomics.store(words, PAGE / 4 + random(words.length - PAGE / 4), value)
  else Atomics.store(words, 1 + random(words.length - 1), value)
}

const waitUntil = performance.now() + WAIT_MS
while (!isActive() && performance.now() < waitUntil) Bun.sleepSync(1)
const begun = performance.now()
let writes = 0
let givenUpMs: number | null = null
if (isActive()) {
  while (givenUpMs === null && performance.now() - begun < Number(secondsText) * 1000) {
    for (let burst = 0; burst < 256; burst++) strike()
    writes += 256
    // The MVM zeroes a region when both its ends let go of it, and its header's version with it.
    if (givenUpMs === null && Atomics.load(words, VERSION_WORD) === 0) givenUpMs = performance.now() - begun
  }
}
console.log(JSON.stringify({ mode, writes, givenUpMs }))
