/**
 * @module guest/measurement-source
 *
 * Where the measurement log of this member comes from: the kernel (IMA) in a VM, or the agent itself on a local
 * endpoint, which writes the kernel's format and extends PCR 10 before anything it names is served. Verifiers
 * are told which of the two it is.
 */

import { closeSync, openSync, readSync } from "node:fs"
import { concat } from "../lib/bytes.ts"
import { sha256 } from "../lib/crypto.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { BOOT_AGGREGATE_PCRS, IMA_PCR } from "../tcb/measurement/quote.ts"
import { encodeImaEntry, type EncodedImaEntry } from "../tcb/measurement/ima-encode.ts"
import type { GuestVtpm } from "./vtpm.ts"

/** The firmware's event log, as the kernel hands it on. */
export const EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"

export const KERNEL_LOG = "/sys/kernel/security/ima/binary_runtime_measurements"

/** One VM's log can be this long at most; beyond it evidence is refused rather than memory filled. */
const MAX_LOG_BYTES = 64 * 1024 * 1024

export interface MeasurementSource {
  readonly kind: "kernel" | "agent"
  /** The log's bytes from `offset` to its present end. */
  read(offset: number): Uint8Array
  /** The firmware's event log; empty where there is none. */
  readEvents(): Uint8Array
  /** The program is about to be served: on a local endpoint it enters the log first. */
  measure(path: string, digest: Uint8Array): Promise<void>
}

/** The kernel's IMA log. @throws MvmError `setup` when this kernel keeps none. */
export function kernelLog(path = KERNEL_LOG, eventPath = EVENT_LOG): MeasurementSource {
  const read = (offset: number): Uint8Array => {
    let fd: number
    try {
      fd = openSync(path, "r")
    } catch (error) {
      throw new MvmError("setup", `cannot read the IMA log ${path}`, {
        cause: error,
        hint: "boot a kernel with IMA, mount securityfs, and run the agent as root",
      })
    }
    try {
      return readFrom(fd, offset)
    } finally {
      closeSync(fd)
    }
  }
  const readEvents = (): Uint8Array => {
    let fd: number
    try {
      fd = openSync(eventPath, "r")
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return new Uint8Array(0)
      throw new MvmError("setup", `cannot read the event log ${eventPath}`, { cause: error })
    }
    try {
      return readFrom(fd, 0)
    } finally {
      closeSync(fd)
    }
  }
  return { kind: "kernel", read, readEvents, measure: async () => {} }
}

function readFrom(fd: number, offset: number): Uint8Array {
  const parts: Uint8Array[] = []
  let at = offset
  for (;;) {
    const part = new Uint8Array(65536)
    const got = readSync(fd, part, 0, part.length, at)
    if (got === 0) return concat(...parts)
    parts.push(part.subarray(0, got))
    at += got
    if (at - offset > MAX_LOG_BYTES) throw new MvmError("too_large", "the measurement log is too long")
  }
}

/** The log of a local endpoint, begun with boot_aggregate as the kernel begins its own. */
export async function agentLog(vtpm: GuestVtpm): Promise<MeasurementSource> {
  const entries: Uint8Array[] = []
  const known = new Set<string>()
  let chain: Promise<void> = Promise.resolve()
  const append = async (entry: EncodedImaEntry): Promise<void> => {
    await vtpm.pcrExtend(IMA_PCR, entry.extendDigest)
    entries.push(entry.bytes)
  }
  const aggregate = sha256(...(await vtpm.pcrRead(BOOT_AGGREGATE_PCRS)))
  await append(encodeImaEntry({ path: "boot_aggregate", sha256: aggregate }))
  return {
    kind: "agent",
    read: (offset) => concat(...entries).slice(offset),
    readEvents: () => new Uint8Array(0),
    measure: (path, digest) => {
      const key = `${digest.toHex()} ${path}`
      const next = chain.then(async () => {
        if (known.has(key)) return
        known.add(key)
        await append(encodeImaEntry({ path, sha256: digest }))
      })
      chain = next.catch(() => {})
      return next
    },
  }
}
