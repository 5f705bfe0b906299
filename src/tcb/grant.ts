/**
 * @module tcb/grant
 *
 * The sealed grant: the pseudo-address (LAddress) and where it points, encrypted to the recipient's vTPM key and
 * bound to the channel, the recipient and the decision (or, for the asker, the nonce) it belongs to.
 *
 * @spec RFC 9180 §6.1 (base mode, single shot)
 */

import { ByteReader, fromUtf8 } from "../lib/bytes.ts"
import { decodeFields, encodeFields } from "../lib/encoding.ts"
import { MvmError } from "../lib/errors.ts"
import { hpkeOpen, hpkeSeal } from "./hpke.ts"

/** Where a region lies, in the words of the end that is told. */
export interface Place {
  /** Empty: in the arena. Else 16 bytes that the memory of the channel alone holds where `tagOf` looks. */
  readonly tag: Uint8Array
  /** The memory's file, for a local endpoint; empty in a VM, which finds it on its PCI bus by the tag. */
  readonly path: string
  /** Bytes from the start of that memory */
  readonly offset: number
}

export interface Grant extends Place {
  /** 16 random bytes that stand for the region in everything signed */
  readonly laddress: Uint8Array
  readonly lengthBytes: number
  readonly ringBytes: number
}

export interface GrantContext {
  readonly channelId: Uint8Array
  readonly recipientUuid: Uint8Array
  /** 32 bytes */
  readonly context: Uint8Array
}

export interface SealGrant extends GrantContext {
  /** 65-byte P-256 point */
  readonly recipientKey: Uint8Array
  readonly grant: Grant
}

const LABEL = "mvm region v2"
const NAMES = ["laddress", "tag", "path", "offset", "lengthBytes", "ringBytes"] as const
const LADDRESS_BYTES = 16
const TAG_BYTES = 16
const MAX_PATH_BYTES = 512

export async function sealGrant(seal: SealGrant): Promise<Uint8Array> {
  return hpkeSeal(seal.recipientKey, grantInfo(seal), encodeGrant(seal.grant))
}

/**
 * Open a grant with the key that only the vTPM holds.
 *
 * Trust: `sealed` came over the link; HPKE in base mode says nothing of its sender, the link's authentication
 * and the decision's signature do.
 *
 * @param recipient `zgen` multiplies a 65-byte point with the sealing key and returns the 32-byte x-coordinate
 * @throws MvmError `integrity` or `protocol`
 */
export async function openGrant(
  recipient: { zgen: (point: Uint8Array) => Promise<Uint8Array>; recipientPublic65: Uint8Array },
  context: GrantContext,
  sealed: Uint8Array,
): Promise<Grant> {
  return decodeGrant(await hpkeOpen(recipient, grantInfo(context), sealed))
}

function grantInfo(context: GrantContext): Uint8Array {
  return encodeFields("mvm grant v1", [context.channelId, context.recipientUuid, context.context])
}

/** What is sealed. */
export function encodeGrant({ laddress, tag, path, offset, lengthBytes, ringBytes }: Grant): Uint8Array {
  return encodeFields(LABEL, [laddress, tag, path, offset, lengthBytes, ringBytes])
}

/** @throws MvmError `protocol` for anything but exactly one grant. */
export function decodeGrant(bytes: Uint8Array): Grant {
  const fields = decodeFields(bytes, LABEL, NAMES, { structure: "grant", code: "protocol" })
  const { laddress, tag } = fields
  if (laddress.length !== LADDRESS_BYTES) throw fault("laddress", "not 16 bytes")
  if (tag.length !== 0 && tag.length !== TAG_BYTES) throw fault("tag", "neither empty nor 16 bytes")
  return {
    laddress: laddress.slice(),
    tag: tag.slice(),
    path: path(fields.path),
    offset: number(fields.offset, "offset"),
    lengthBytes: number(fields.lengthBytes, "lengthBytes"),
    ringBytes: number(fields.ringBytes, "ringBytes"),
  }
}

function path(bytes: Uint8Array): string {
  if (bytes.length > MAX_PATH_BYTES) throw fault("path", `${bytes.length} bytes, at most ${MAX_PATH_BYTES}`)
  let text: string
  try {
    text = fromUtf8(bytes)
  } catch {
    throw fault("path", "not UTF-8")
  }
  if (text.includes("\0") || (text !== "" && !text.startsWith("/"))) throw fault("path", "not absolute")
  return text
}

function fault(field: string, problem: string): MvmError {
  return new MvmError("protocol", `grant.${field}: ${problem}`)
}

function number(bytes: Uint8Array, field: string): number {
  const reader = new ByteReader(bytes, `grant.${field}`, "protocol")
  const value = reader.u64be("value")
  reader.end()
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw reader.error("value", "too large")
  return Number(value)
}
