/**
 * @module tcb/measurement/event-log
 *
 * The firmware's event log (binary_bios_measurements), crypto-agile form, little-endian: one SHA-1 style event that
 * names the banks, then TCG_PCR_EVENT2 events. The log itself proves nothing; its replay has to give the quoted
 * PCRs, and only digests are under them, not the event data. Parsed for the sha256 bank.
 *
 * Not here: the SHA-1 only log of TPM 1.2.
 *
 * @spec TCG PC Client Platform Firmware Profile 1.05 §10 (event logging)
 */

import { ByteReader, equalBytes, toHex } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { TPM_ALG } from "../../tpm/constants.ts"

// Specification.
export const EV_NO_ACTION = 0x3
const SPEC_ID_SIGNATURE = "Spec ID Event03\0"
const STARTUP_LOCALITY = "StartupLocality\0"
const SHA1_BYTES = 20
const SHA256_BYTES = 32
const PCR_COUNT = 24

// Implementation.
const MAX_LOG_BYTES = 4 * 1024 * 1024
const MAX_EVENT_BYTES = 1024 * 1024
const MAX_EVENTS = 16_384
const MAX_ALGORITHMS = 8
const MAX_DIGEST_BYTES = 64

export interface FirmwareEvent {
  /** Where in the log it starts, bytes. */
  readonly offset: number
  readonly pcr: number
  /** @spec PC Client Firmware Profile §10.4.1 */
  readonly eventType: number
  /** 32 bytes, sha256 bank */
  readonly digest: Uint8Array
  /** Not covered by any PCR. */
  readonly data: Uint8Array
}

/**
 * The events behind the header.
 *
 * Trust: the bytes come from a guest; the events are views into them.
 *
 * @throws MvmError `evidence_event_log` with the event's number and offset.
 */
export function parseEventLog(bytes: Uint8Array): FirmwareEvent[] {
  if (bytes.length > MAX_LOG_BYTES) throw failure(`${bytes.length} bytes, at most ${MAX_LOG_BYTES}`)
  const reader = new ByteReader(bytes, "event log", "evidence_event_log")
  const digestBytes = readHeader(reader)
  const events: FirmwareEvent[] = []
  while (reader.remaining > 0) {
    if (events.length >= MAX_EVENTS) throw failure(`more than ${MAX_EVENTS} events`)
    events.push(readEvent(reader, events.length + 1, digestBytes))
  }
  return events
}

/**
 * The PCR values the events lead to, for every PCR they extend: 32 bytes each. PCRs that no event names are left
 * out; they are zero after a reset.
 *
 * @spec PC Client Firmware Profile §10.4.5.3 (startup locality)
 */
export function replayEventLog(events: readonly FirmwareEvent[]): Map<number, Uint8Array> {
  const pcrs = new Map<number, Uint8Array>()
  for (const { pcr, eventType, digest, data } of events) {
    if (eventType === EV_NO_ACTION) {
      const locality = startupLocality(data)
      if (pcr === 0 && locality !== undefined && !pcrs.has(0)) {
        const start = new Uint8Array(SHA256_BYTES)
        start[SHA256_BYTES - 1] = locality
        pcrs.set(0, start)
      }
      continue
    }
    pcrs.set(pcr, sha256(pcrs.get(pcr) ?? new Uint8Array(SHA256_BYTES), digest))
  }
  return pcrs
}

/**
 * Checks that the log explains the quoted PCRs 0-9 (value of PCR i at index i).
 *
 * @throws MvmError `evidence_event_log` naming the first PCR that differs.
 */
export function checkEventLog(events: readonly FirmwareEvent[], pcrs: readonly Uint8Array[]): void {
  const replayed = replayEventLog(events)
  for (let index = 0; index < 10; index += 1) {
    const expected = replayed.get(index) ?? new Uint8Array(SHA256_BYTES)
    const quoted = pcrs[index]
    if (quoted === undefined || !equalBytes(expected, quoted)) {
      const seen = quoted === undefined ? "not quoted" : toHex(quoted)
      throw failure(`replay gives pcr ${index} as ${toHex(expected)}, the tpm says ${seen}`)
    }
  }
}

/** TCG_PCClientPCREvent with TCG_EfiSpecIDEvent. @returns digest size by TPM_ALG_ID */
function readHeader(reader: ByteReader): Map<number, number> {
  const pcr = reader.u32le("header.pcrIndex")
  const eventType = reader.u32le("header.eventType")
  reader.bytes(SHA1_BYTES, "header.digest")
  if (pcr !== 0 || eventType !== EV_NO_ACTION) throw reader.error("header", "no specification id event")
  const spec = new ByteReader(readData(reader, "header.event"), "event log header", "evidence_event_log")
  if (latin1(spec.bytes(SPEC_ID_SIGNATURE.length, "signature")) !== SPEC_ID_SIGNATURE) {
    throw spec.error("signature", "not a crypto-agile log")
  }
  spec.u32le("platformClass")
  spec.u8("specVersionMinor")
  const major = spec.u8("specVersionMajor")
  if (major !== 2) throw spec.error("specVersionMajor", `${major}, 2 expected`)
  spec.u8("specErrata")
  spec.u8("uintnSize")
  const count = spec.u32le("numberOfAlgorithms")
  if (count < 1 || count > MAX_ALGORITHMS) {
    throw spec.error("numberOfAlgorithms", `${count}, 1 to ${MAX_ALGORITHMS} expected`)
  }
  const sizes = new Map<number, number>()
  for (let i = 0; i < count; i += 1) {
    const algorithm = spec.u16le(`algorithms[${i}].id`)
    const size = spec.u16le(`algorithms[${i}].digestSize`)
    if (sizes.has(algorithm)) throw spec.error(`algorithms[${i}].id`, "named twice")
    if (size < 1 || size > MAX_DIGEST_BYTES) throw spec.error(`algorithms[${i}].digestSize`, `${size} bytes`)
    sizes.set(algorithm, size)
  }
  if (sizes.get(TPM_ALG.SHA256) !== SHA256_BYTES) throw spec.error("algorithms", "no sha256 bank")
  spec.bytes(spec.u8("vendorInfoSize"), "vendorInfo")
  spec.end()
  return sizes
}

/** TCG_PCR_EVENT2 */
function readEvent(reader: ByteReader, number: number, sizes: ReadonlyMap<number, number>): FirmwareEvent {
  const name = `events[${number}]`
  const offset = reader.offset
  const pcr = reader.u32le(`${name}.pcrIndex`)
  const eventType = reader.u32le(`${name}.eventType`)
  if (pcr >= PCR_COUNT) throw reader.error(`${name}.pcrIndex`, `${pcr} is no pcr`)
  const count = reader.u32le(`${name}.digests.count`)
  if (count !== sizes.size) throw reader.error(`${name}.digests.count`, `${count}, ${sizes.size} expected`)
  let digest: Uint8Array | undefined
  const seen = new Set<number>()
  for (let i = 0; i < count; i += 1) {
    const algorithm = reader.u16le(`${name}.digests[${i}].algorithm`)
    const size = sizes.get(algorithm)
    if (size === undefined || seen.has(algorithm)) {
      throw reader.error(`${name}.digests[${i}].algorithm`, `0x${algorithm.toString(16)} unexpected`)
    }
    seen.add(algorithm)
    const value = reader.bytes(size, `${name}.digests[${i}].digest`)
    if (algorithm === TPM_ALG.SHA256) digest = value
  }
  const data = readData(reader, `${name}.event`)
  // The header demands the sha256 bank, and every event names all banks once.
  return { offset, pcr, eventType, digest: digest!, data }
}

function readData(reader: ByteReader, field: string): Uint8Array {
  const size = reader.u32le(`${field}Size`)
  if (size > MAX_EVENT_BYTES) throw reader.error(`${field}Size`, `${size} bytes, at most ${MAX_EVENT_BYTES}`)
  return reader.bytes(size, field)
}

function startupLocality(data: Uint8Array): number | undefined {
  if (data.length !== STARTUP_LOCALITY.length + 1) return undefined
  const locality = data[STARTUP_LOCALITY.length]!
  return latin1(data.subarray(0, STARTUP_LOCALITY.length)) === STARTUP_LOCALITY && locality <= 4
    ? locality
    : undefined
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes)
}

function failure(problem: string): MvmError {
  return new MvmError("evidence_event_log", `event log: ${problem}`)
}
