/**
 * @module mvm/evidence/bundle
 *
 * Evidence as one file for somebody outside: JSON with the records as a text that the MVM signed, and beside it the
 * logs and reference values that the records name. Nothing else is needed to judge it again.
 *
 * Not here: a chain from the MVM's key to anything. Who verifies must know that key.
 */

import { fromHex, toHex } from "../../lib/bytes.ts"
import { encodeFields } from "../../lib/encoding.ts"
import { MvmError } from "../../lib/errors.ts"
import type { ChannelEvidence, EvidenceRecord } from "./record.ts"
import type { EvidenceStore } from "./store.ts"
import type { MvmIdentity } from "../state/state-dir.ts"

const FORMAT = "mvm evidence 1"

/** An exported file may hold two logs of the greatest size, in base64. */
export const MAX_BUNDLE_BYTES = 64 * 1024 * 1024

/** What the MVM signs: a decision about a channel, or the last appraisal of one VM. */
export type EvidenceBody = Omit<ChannelEvidence, "channel"> & { readonly channel: string | null }

interface BundleFile {
  readonly format: typeof FORMAT
  readonly mvmKey: string
  /** Over the text of `body`. */
  readonly signature: string
  /** JSON of an {@link EvidenceBody}. */
  readonly body: string
  /** For each end, in their order. */
  readonly logs: readonly { readonly measurements: string; readonly events: string | null }[]
  /** Reference files by SHA-256. */
  readonly references: Readonly<Record<string, string>>
}

export interface Bundle {
  /** 65-byte point, as the file says. */
  readonly mvmKey: Uint8Array
  /** 64 bytes */
  readonly signature: Uint8Array
  readonly bodyText: string
  readonly logs: readonly { readonly measurements: Uint8Array; readonly events: Uint8Array | undefined }[]
  readonly references: ReadonlyMap<string, Uint8Array>
}

/** What the signature of a bundle is over. */
export function bundleMessage(bodyText: string): Uint8Array {
  return encodeFields("mvm evidence record v1", [bodyText])
}

/** The file's text. @throws MvmError `not_found` when a log it needs is no longer kept. */
export function exportBundle(body: EvidenceBody, store: EvidenceStore, identity: MvmIdentity): string {
  const bodyText = JSON.stringify(body)
  const references: Record<string, string> = {}
  for (const { reference } of body.ends) {
    if (reference !== null) references[reference] = store.readReference(reference).toBase64()
  }
  const file: BundleFile = {
    format: FORMAT,
    mvmKey: toHex(identity.publicKey),
    signature: toHex(identity.sign(bundleMessage(bodyText))),
    body: bodyText,
    logs: body.ends.map((end) => ({
      measurements: store.readLog(end, end.logBytes).toBase64(),
      events: end.hasEvents ? store.readEvents(end).toBase64() : null,
    })),
    references,
  }
  return JSON.stringify(file)
}

/** The last appraisal of one VM as the body of a bundle. */
export function vmBody(record: EvidenceRecord): EvidenceBody {
  const { timeMs } = record
  return { channel: null, timeMs, decision: null, decisionSignature: null, refused: null, ends: [record] }
}

/**
 * Reads the frame of a bundle; what the body says is for {@link parseBody} once its signature is checked.
 *
 * Trust: the file comes from anywhere.
 *
 * @throws MvmError `evidence_malformed` naming the field.
 */
export function parseBundle(text: string): Bundle {
  if (text.length > MAX_BUNDLE_BYTES) throw malformed("file", `longer than ${MAX_BUNDLE_BYTES} bytes`)
  const file = object(json(text, "file"), "file")
  if (file["format"] !== FORMAT) throw malformed("format", `not ${FORMAT}`)
  const logs = array(file["logs"], "logs").map((entry, index) => {
    const log = object(entry, `logs[${index}]`)
    const events = log["events"]
    return {
      measurements: base64(log["measurements"], `logs[${index}].measurements`),
      events: events === null ? undefined : base64(events, `logs[${index}].events`),
    }
  })
  const references = new Map<string, Uint8Array>()
  for (const [digest, value] of Object.entries(object(file["references"], "references"))) {
    references.set(digest, base64(value, `references.${digest.slice(0, 64)}`))
  }
  return {
    mvmKey: hex(file["mvmKey"], 65, "mvmKey"),
    signature: hex(file["signature"], 64, "signature"),
    bodyText: string(file["body"], "body"),
    logs,
    references,
  }
}

/** Trust: call it on a body whose signature is the MVM's. @throws MvmError `evidence_malformed` */
export function parseBody(bodyText: string): EvidenceBody {
  const body = object(json(bodyText, "body"), "body")
  const ends = array(body["ends"], "body.ends")
  if (ends.length < 1 || ends.length > 2) throw malformed("body.ends", `${ends.length} ends`)
  for (const [index, end] of ends.entries()) {
    const at = `body.ends[${index}]`
    const record = object(end, at)
    for (const field of ["vm", "uuid", "kind", "bootId", "purpose", "verdict"]) {
      string(record[field], `${at}.${field}`)
    }
    const quote = object(record["quote"], `${at}.quote`)
    for (const value of array(quote["pcrs"], `${at}.quote.pcrs`)) string(value, `${at}.quote.pcrs`)
    array(record["failed"], `${at}.failed`)
  }
  return body as unknown as EvidenceBody
}

/** Bytes of a hex field of a record. @throws MvmError `evidence_malformed` */
export function hex(value: unknown, lengthBytes: number | undefined, field: string): Uint8Array {
  const text = string(value, field)
  let bytes: Uint8Array
  try {
    bytes = fromHex(text)
  } catch {
    throw malformed(field, "not hexadecimal")
  }
  if (lengthBytes !== undefined && bytes.length !== lengthBytes) {
    throw malformed(field, `${bytes.length} bytes, ${lengthBytes} expected`)
  }
  return bytes
}

function base64(value: unknown, field: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(string(value, field))
  } catch (error) {
    if (error instanceof MvmError) throw error
    throw malformed(field, "not base64")
  }
}

function string(value: unknown, field: string): string {
  if (typeof value === "string") return value
  throw malformed(field, "text expected")
}

function array(value: unknown, field: string): unknown[] {
  if (Array.isArray(value)) return value
  throw malformed(field, "a list expected")
}

function object(value: unknown, field: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>
  }
  throw malformed(field, "an object expected")
}

function json(text: string, field: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new MvmError("evidence_malformed", `evidence ${field}: not json`, { cause })
  }
}

function malformed(field: string, problem: string): MvmError {
  return new MvmError("evidence_malformed", `evidence ${field}: ${problem}`)
}
