/**
 * @module test/e2e/guest/arena-watch
 *
 * Runs as root in a VM that has nothing to do with a transfer, and looks for it in the arena that every VM maps:
 * samples of the file that is sent, and every window of the memory tried as the key of a captured record. Both
 * searches are tried on planted finds first, so that "nothing" means something.
 *
 *   bun arena-watch.js RESOURCE RING-BYTES PLAINTEXT-FILE SECONDS
 *
 * SECONDS count from the first record seen.
 *
 * Prints one JSON object.
 */

import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto"
import { readFileSync } from "node:fs"

const PAGE = 4096
const UNIT = 64
const SAMPLE_BYTES = 24
const SAMPLES = 32

/** How long to wait for a transfer to begin. */
const WAIT_MS = 90_000

const [resource = "", ringText = "", plaintextFile = "", secondsText = ""] = process.argv.slice(2)
const ringBytes = Number(ringText)
const arena = Bun.mmap(resource, { shared: true })
const regionBytes = PAGE + 2 * ringBytes

interface CapturedRecord {
  ciphertext: Uint8Array
  tag: Uint8Array
  aad: Uint8Array
}

const samples = takeSamples(readFileSync(plaintextFile))
const watchMs = Number(secondsText) * 1000
let deadline = performance.now() + WAIT_MS
let first: Buffer | undefined
let record: CapturedRecord | undefined
let snapshots = 0
let plaintextHits = 0
while (performance.now() < deadline) {
  const copy = Buffer.from(arena.slice(0, regionBytes))
  record ??= firstRecord(copy)
  if (!record) continue
  if (!first) deadline = performance.now() + watchMs
  first ??= copy
  snapshots += 1
  plaintextHits += countSamples(copy)
}
const whole = Buffer.from(arena.slice())
plaintextHits += countSamples(whole)
const nonZero = whole.reduce((count, byte) => count + (byte === 0 ? 0 : 1), 0)
const { tried, hits } =
  record && first ? tryKeys(record, [first, whole.subarray(0, regionBytes)]) : { tried: 0, hits: 0 }
console.log(
  JSON.stringify({
    mappedBytes: arena.length,
    snapshots,
    bytesNotZero: nonZero,
    samples: samples.length,
    plaintextHits,
    keysTried: tried,
    keyHits: hits,
    detectorsWork: plantedFindsAreFound(),
  }),
)

/** Record 0 of the first direction, while it is still where it was written. */
function firstRecord(copy: Buffer): CapturedRecord | undefined {
  const lengthBytes = copy.readUInt32LE(PAGE)
  const kind = copy.readUInt32LE(PAGE + 4)
  if (lengthBytes !== 64 || kind !== 1) return undefined
  const aad = Buffer.alloc(16)
  copy.copy(aad, 0, PAGE, PAGE + 8)
  return {
    ciphertext: copy.subarray(PAGE + UNIT, PAGE + UNIT + lengthBytes),
    tag: copy.subarray(PAGE + 16, PAGE + 32),
    aad,
  }
}

function takeSamples(content: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 4096; found.length < SAMPLES && at + SAMPLE_BYTES < content.length; at += 65_521) {
    const sample = content.subarray(at, at + SAMPLE_BYTES)
    // A sample that could be there by chance would say nothing.
    if (new Set(sample).size >= 12) found.push(Buffer.from(sample))
  }
  return found
}

function countSamples(memory: Buffer): number {
  return samples.filter((sample) => memory.includes(sample)).length
}

/** Every aligned 32-byte window that is not all zero, as the AES-256-GCM key of the captured record. */
function tryKeys(captured: CapturedRecord, memories: Buffer[]): { tried: number; hits: number } {
  let tried = 0
  let hits = 0
  for (const memory of memories) {
    for (let at = 0; at + 32 <= memory.length; at += 8) {
      const key = memory.subarray(at, at + 32)
      if (key.readBigUInt64LE(0) === 0n && key.readBigUInt64LE(24) === 0n) continue
      tried += 1
      if (opens(captured, key)) hits += 1
    }
  }
  return { tried, hits }
}

function opens({ ciphertext, tag, aad }: CapturedRecord, key: Uint8Array): boolean {
  const decipher = createDecipheriv("aes-256-gcm", key, Buffer.alloc(12))
  decipher.setAAD(aad)
  decipher.setAuthTag(tag)
  decipher.update(ciphertext)
  try {
    decipher.final()
    return true
  } catch {
    return false
  }
}

function plantedFindsAreFound(): boolean {
  const memory = Buffer.alloc(PAGE)
  const key = randomBytes(32)
  key.copy(memory, 1024)
  samples[0]?.copy(memory, 77)
  const aad = Buffer.alloc(16, 1)
  const cipher = createCipheriv("aes-256-gcm", key, Buffer.alloc(12))
  cipher.setAAD(aad)
  const ciphertext = Buffer.concat([cipher.update(Buffer.alloc(64, 7)), cipher.final()])
  const planted = { ciphertext, tag: cipher.getAuthTag(), aad }
  return countSamples(memory) === 1 && tryKeys(planted, [memory]).hits === 1
}
