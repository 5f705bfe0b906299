/**
 * @module mvm/state/audit-head
 *
 * The newest signed head of the audit log, in a file beside the database. Two slots of one disk sector each are
 * written in turn and in place: a power cut leaves each slot whole, old or new. Nothing is flushed, because a head
 * that lags is no harm (the rows after it are signed too), and a flush would double the cost of every commit.
 */

import { closeSync, constants, openSync, writeSync } from "node:fs"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { P256_SIGNATURE_BYTES, SHA256_BYTES } from "../../lib/crypto.ts"
import { errnoOf, MvmError } from "../../lib/errors.ts"
import { readWhole, writeDurably } from "../../platform/durable-file.ts"

const SLOT_BYTES = 512
const SLOTS = 2

export interface SignedHead {
  readonly sequence: number
  /** 32 bytes. */
  readonly hash: Uint8Array
  /** 64 bytes; whoever reads it checks it. */
  readonly signature: Uint8Array
}

export class AuditHeadFile {
  readonly path: string
  #slot = 0

  constructor(path: string) {
    this.path = path
  }

  /** The newest head in the file; `absent` or `damaged` where there is none. */
  read(): SignedHead | "absent" | "damaged" {
    let bytes: Uint8Array | undefined
    try {
      bytes = readWhole(this.path, { maxBytes: SLOT_BYTES * SLOTS })
    } catch {
      return "damaged"
    }
    if (!bytes) return "absent"
    let newest: SignedHead | undefined
    for (let slot = 0; slot < SLOTS; slot++) {
      const head = parseSlot(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES))
      if (!head || (newest && head.sequence < newest.sequence)) continue
      newest = head
      this.#slot = (slot + 1) % SLOTS
    }
    return newest ?? "damaged"
  }

  /** Makes the file anew with `head` in it. @throws MvmError `no_space`, `io`. */
  create(head: SignedHead): void {
    const slot = slotBytes(head)
    const bytes = new Uint8Array(SLOT_BYTES * SLOTS)
    bytes.set(slot)
    bytes.set(slot, SLOT_BYTES)
    writeDurably(this.path, bytes)
  }

  /** Puts `head` in place of the older of the two. @throws MvmError `io`. */
  write(head: SignedHead): void {
    try {
      const fd = openSync(this.path, constants.O_WRONLY | constants.O_CREAT, 0o600)
      try {
        writeSync(fd, slotBytes(head), 0, SLOT_BYTES, this.#slot * SLOT_BYTES)
      } finally {
        closeSync(fd)
      }
    } catch (cause) {
      throw new MvmError("io", `${this.path}: cannot be written (${errnoOf(cause) ?? "unknown"})`, { cause })
    }
    this.#slot = (this.#slot + 1) % SLOTS
  }
}

function slotBytes({ sequence, hash, signature }: SignedHead): Uint8Array {
  const line = JSON.stringify({ sequence, hash: toHex(hash), signature: toHex(signature) })
  return new TextEncoder().encode(`${line.padEnd(SLOT_BYTES - 1)}\n`)
}

function parseSlot(bytes: Uint8Array): SignedHead | undefined {
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>
    const sequence = value["sequence"]
    const hash = fromHex(String(value["hash"]))
    const signature = fromHex(String(value["signature"]))
    if (typeof sequence !== "number" || !Number.isSafeInteger(sequence) || sequence < 0) return undefined
    if (hash.length !== SHA256_BYTES || signature.length !== P256_SIGNATURE_BYTES) return undefined
    return { sequence, hash, signature }
  } catch {
    return undefined
  }
}
