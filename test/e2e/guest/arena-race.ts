/**
 * @module test/e2e/guest/arena-race
 *
 * Runs as root in a VM that has nothing to do with a transfer, and writes into the region of one that runs, as fast
 * as it can: random words anywhere, the cursors in its header, its records, or the marks alone. Prints one JSON object:
 * how many writes, and how long after the first the region was given up.
 *
 *   bun arena-race.js RESOURCE RING-BYTES random|header|records|marks SECONDS
 */

const PAGE = 4096
const WAIT_MS = 90_000
/** Words of the header page: cursors, wake-up requests and closed marks of both rings. */
const CURSORS = [0, 1].flatMap((ring) => [0, 1, 2, 3].map((block) => 64 + ring * 160 + block * 32))
const TAILS = [64, 224]
const MARKS = [32, 64 + 128, 224 + 128]
const VERSION_WORD = 0

const [resource = "", ringText = "", mode = "", secondsText = ""] = process.argv.slice(2)
const regionBytes = PAGE + 2 * Number(ringText)
const words = new Int32Array(Bun.mmap(resource, { shared: true }).buffer, 0, regionBytes / 4)

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
