/**
 * @module bench/vm-cipher
 *
 * Runs inside a VM: one thread of AES-256-GCM of this runtime over records of the bulk size. Prints bytes a second.
 */

import { createCipheriv } from "node:crypto"

const RECORD_BYTES = 256 * 1024 - 64
const RECORDS = Number(process.argv[2] ?? 128)
const key = new Uint8Array(32)
const nonce = new Uint8Array(12)
const aad = new Uint8Array(16)
const plaintext = new Uint8Array(RECORD_BYTES)

seal(8)
const start = performance.now()
seal(RECORDS)
console.log(String(Math.round((RECORDS * RECORD_BYTES) / ((performance.now() - start) / 1000))))

function seal(records: number): void {
  for (let record = 0; record < records; record += 1) {
    const cipher = createCipheriv("aes-256-gcm", key, nonce)
    cipher.setAAD(aad)
    cipher.update(plaintext)
    cipher.final()
    cipher.getAuthTag()
  }
}
