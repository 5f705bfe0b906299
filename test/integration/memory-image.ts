/**
 * @module test/integration/memory-image
 *
 * The memory of a process as somebody with its user's rights, or a core file of it, would have it.
 */

import { closeSync, openSync, readFileSync, readSync } from "node:fs"

const PAGE = 4096
const RUN_PAGES = 256
/** Bit 63 of an entry of pagemap. @spec Linux Documentation/admin-guide/mm/pagemap.rst */
const PRESENT = 0x80

/** Which of `secrets` (name to bytes) are in the private writable memory of `pid`. */
export function secretsInMemory(pid: number, secrets: ReadonlyMap<string, Uint8Array>): string[] {
  const memory = openSync(`/proc/${pid}/mem`, "r")
  const pages = openSync(`/proc/${pid}/pagemap`, "r")
  const found = new Set<string>()
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
      const [, from, to, access] = /^([0-9a-f]+)-([0-9a-f]+) (\S{4})/.exec(line) ?? []
      if (from === undefined || access !== "rw-p") continue
      for (const image of presentRuns(memory, pages, Number.parseInt(from, 16), Number.parseInt(to!, 16))) {
        for (const [name, secret] of secrets) if (image.includes(secret)) found.add(name)
      }
    }
  } finally {
    closeSync(memory)
    closeSync(pages)
  }
  return [...found].sort()
}

/** What of a mapping is there, in pieces that overlap by a page: a secret may lie across an end. */
function* presentRuns(memory: number, pages: number, from: number, to: number): Generator<Buffer> {
  const entries = Buffer.alloc(8 * RUN_PAGES)
  for (let at = from; at < to; at += (RUN_PAGES - 1) * PAGE) {
    const count = Math.min(RUN_PAGES, (to - at) / PAGE)
    const got = readSync(pages, entries, 0, count * 8, (at / PAGE) * 8)
    let isThere = false
    for (let entry = 7; entry < got; entry += 8) if ((entries[entry]! & PRESENT) !== 0) isThere = true
    if (!isThere) continue
    const image = Buffer.alloc(count * PAGE)
    try {
      yield image.subarray(0, readSync(memory, image, 0, image.length, at))
    } catch {
      // The mapping went away meanwhile.
    }
  }
}
