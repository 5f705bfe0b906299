/**
 * @module tcb/measurement/ima-log
 *
 * The kernel's binary measurement log (binary_runtime_measurements), little-endian:
 *
 *     u32 pcr | 20 bytes SHA-1(template data) | u32, template name | u32, template data
 *
 * and template data is fields of `u32 length, bytes`: d-ng `"sha256:" 00 digest`, n-ng path and NUL, then for
 * ima-sig a signature and for ima-buf the measured buffer. Only the template data is under PCR 10: pcr, template
 * name and the SHA-1 are checked because nothing else vouches for them. Of a violation nothing is: its template
 * data never enters the PCR, so its path is what the guest says.
 *
 * Not here: the legacy `ima` template, ima-modsig, evm-sig, big-endian logs, PCRs other than 10.
 *
 * @spec Linux Documentation/security/IMA-templates.rst, security/integrity/ima/ima_fs.c
 */

import { createHash } from "node:crypto"
import { ByteReader, equalBytes, fromUtf8, isZero, toHex } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { pathText } from "./measured-path.ts"

// Specification.
const SHA1_BYTES = 20
const IMA_LOG_PCR = 10

/** Fields of a template behind d-ng and n-ng. */
const TEMPLATES: ReadonlyMap<string, "none" | "signature" | "buffer"> = new Map([
  ["ima-ng", "none"],
  ["ima-sig", "signature"],
  ["ima-buf", "buffer"],
])

/** Digest sizes by the kernel's name of the algorithm. */
const DIGEST_BYTES: ReadonlyMap<string, number> = new Map([
  ["sha1", 20],
  ["sha256", 32],
  ["sha384", 48],
  ["sha512", 64],
])

/** 32 bytes of ones: what a violation extends, so that no log can pass it by. */
export const VIOLATION_EXTEND = new Uint8Array(32).fill(0xff)

// Implementation.
/** PATH_MAX, without the NUL. */
export const MAX_PATH_BYTES = 4096
export const MAX_ENTRY_BYTES = 16 * 1024
const MAX_TEMPLATE_NAME_BYTES = 16

/** "sha256:" and its like, with the NUL. */
const MAX_ALGORITHM_BYTES = 16
const HEADER_BYTES = 4 + SHA1_BYTES + 4

export interface FileDigest {
  /** The kernel's name: "sha256", "sha1", "sha384", "sha512". */
  readonly algorithm: string
  readonly hex: string
}

export interface ImaEntry {
  /** Where in the log it starts, bytes. */
  readonly offset: number
  readonly lengthBytes: number
  readonly pcr: number
  /** 20 bytes; zero for a violation. */
  readonly templateDigestSha1: Uint8Array
  readonly templateName: string
  readonly templateData: Uint8Array
  /** 32 bytes that went into the sha256 bank. */
  readonly extendDigest: Uint8Array
  /** Zero for a violation. */
  readonly fileDigest: FileDigest
  /** In text form, see measured-path. */
  readonly path: string
  /** ToMToU or open writers: the kernel could not say what was read. */
  readonly violation: boolean
  readonly signature?: Uint8Array
}

/**
 * Parses whole entries from `bytes`, which start at `baseOffset` of the log. With `more` an incomplete last entry
 * is left over for the next chunk; without, it is an error.
 *
 * Trust: the bytes come from a guest; entries are views into them.
 *
 * @throws MvmError `evidence_malformed`, or `evidence_log_template` for an unknown template or a SHA-1 that does
 *   not fit its data, both with the offset.
 */
export function parseImaEntries(
  bytes: Uint8Array,
  baseOffset: number,
  { more = false }: { more?: boolean } = {},
): { entries: ImaEntry[]; consumedBytes: number } {
  const entries: ImaEntry[] = []
  let consumedBytes = 0
  while (consumedBytes < bytes.length) {
    const entry = parseImaEntry(bytes.subarray(consumedBytes), baseOffset + consumedBytes)
    if (entry === undefined) {
      if (more) break
      throw malformed(baseOffset + consumedBytes, "entry: incomplete")
    }
    entries.push(entry)
    consumedBytes += entry.lengthBytes
  }
  return { entries, consumedBytes }
}

/**
 * The entry at the start of `bytes`, or undefined when more bytes are needed. A length that is out of bounds is
 * refused as soon as it can be read.
 *
 * @throws MvmError as {@link parseImaEntries}
 */
export function parseImaEntry(bytes: Uint8Array, offset: number): ImaEntry | undefined {
  if (bytes.length < HEADER_BYTES) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const nameBytes = view.getUint32(HEADER_BYTES - 4, true)
  if (nameBytes > MAX_TEMPLATE_NAME_BYTES) {
    throw malformed(offset, `template name: ${nameBytes} bytes, at most ${MAX_TEMPLATE_NAME_BYTES}`)
  }
  const dataAt = HEADER_BYTES + nameBytes + 4
  if (bytes.length < dataAt) return undefined
  const dataBytes = view.getUint32(dataAt - 4, true)
  const lengthBytes = dataAt + dataBytes
  if (lengthBytes > MAX_ENTRY_BYTES) {
    throw malformed(offset, `template data: ${dataBytes} bytes, an entry has at most ${MAX_ENTRY_BYTES}`)
  }
  if (bytes.length < lengthBytes) return undefined
  const pcr = view.getUint32(0, true)
  if (pcr !== IMA_LOG_PCR) throw malformed(offset, `pcr: ${pcr}, ${IMA_LOG_PCR} expected`)
  return decodeEntry({
    offset,
    lengthBytes,
    templateDigestSha1: bytes.subarray(4, 4 + SHA1_BYTES),
    nameText: bytes.subarray(HEADER_BYTES, HEADER_BYTES + nameBytes),
    templateData: bytes.subarray(dataAt, lengthBytes),
  })
}

/** 20-byte SHA-1: the kernel's own index of an entry. It carries no trust here. */
export function templateDigestSha1(templateData: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha1").update(templateData).digest())
}

interface RawEntry {
  offset: number
  lengthBytes: number
  templateDigestSha1: Uint8Array
  nameText: Uint8Array
  templateData: Uint8Array
}

function decodeEntry(raw: RawEntry): ImaEntry {
  const { offset, templateData } = raw
  const templateName = asciiOf(raw.nameText)
  const rest = TEMPLATES.get(templateName)
  if (rest === undefined) throw template(offset, `template: ${JSON.stringify(templateName)} is not known`)
  const violation = isZero(raw.templateDigestSha1)
  if (!violation && !equalBytes(templateDigestSha1(templateData), raw.templateDigestSha1)) {
    throw template(offset, "template digest: not the sha-1 of the template data")
  }
  const reader = new ByteReader(templateData, `ima entry at ${offset}`, "evidence_malformed")
  const { fileDigest, digest } = readDigest(reader, violation)
  const path = readPath(reader)
  const last = rest === "none" ? undefined : reader.bytes(reader.u32le(rest), rest)
  reader.end()
  if (
    rest === "buffer" &&
    !violation &&
    !(fileDigest.algorithm === "sha256" && equalBytes(sha256(last!), digest))
  ) {
    throw template(offset, "buffer: its digest is another")
  }
  return {
    offset,
    lengthBytes: raw.lengthBytes,
    pcr: IMA_LOG_PCR,
    templateDigestSha1: raw.templateDigestSha1,
    templateName,
    templateData,
    extendDigest: violation ? VIOLATION_EXTEND : sha256(templateData),
    fileDigest,
    path,
    violation,
    ...(rest === "signature" && last!.length > 0 ? { signature: last! } : {}),
  }
}

/** d-ng: algorithm, colon, NUL, digest. */
function readDigest(reader: ByteReader, violation: boolean): { fileDigest: FileDigest; digest: Uint8Array } {
  const field = reader.bytes(reader.u32le("d-ng"), "d-ng")
  const nul = field.subarray(0, MAX_ALGORITHM_BYTES).indexOf(0)
  if (nul < 2 || field[nul - 1] !== 0x3a) throw reader.error("d-ng", "no algorithm")
  const algorithm = asciiOf(field.subarray(0, nul - 1))
  const expectedBytes = DIGEST_BYTES.get(algorithm)
  if (expectedBytes === undefined)
    throw reader.error("d-ng", `algorithm ${JSON.stringify(algorithm)} is not known`)
  const digest = field.subarray(nul + 1)
  if (violation) {
    // Older kernels leave room for a SHA-1 whatever the algorithm.
    if (!isZero(digest) || (digest.length !== expectedBytes && digest.length !== SHA1_BYTES)) {
      throw reader.error("d-ng", "a violation has a zero digest")
    }
  } else if (digest.length !== expectedBytes) {
    throw reader.error("d-ng", `${digest.length} bytes of ${algorithm}, ${expectedBytes} expected`)
  }
  return { fileDigest: { algorithm, hex: toHex(digest) }, digest }
}

/** n-ng: the path and one NUL. */
function readPath(reader: ByteReader): string {
  const field = reader.bytes(reader.u32le("n-ng"), "n-ng")
  const lengthBytes = field.length - 1
  if (lengthBytes < 1 || lengthBytes > MAX_PATH_BYTES) {
    throw reader.error("n-ng", `${field.length} bytes, 2 to ${MAX_PATH_BYTES + 1} expected`)
  }
  if (field.indexOf(0) !== lengthBytes) throw reader.error("n-ng", "not one nul at its end")
  return pathText(field.subarray(0, lengthBytes))
}

/** Text of bytes that should be plain; anything else is shown, never matched. */
function asciiOf(bytes: Uint8Array): string {
  try {
    return fromUtf8(bytes)
  } catch {
    return toHex(bytes)
  }
}

function malformed(offset: number, problem: string): MvmError {
  return new MvmError("evidence_malformed", `ima entry at ${offset}: ${problem}`)
}

function template(offset: number, problem: string): MvmError {
  return new MvmError("evidence_log_template", `ima entry at ${offset}: ${problem}`)
}
