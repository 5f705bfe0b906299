/**
 * @module tcb/grant
 *
 * The sealed grant: the pseudo-address (LAddress) and where it points, encrypted to the recipient's vTPM key and
 * bound to the channel, the recipient, its link's epoch and the decision (or, for the asker, the nonce) it belongs to.
 *
 * The key is encapsulated once for an epoch: a vTPM takes half a millisecond for each, and what it would protect one by
 * one is no better off, since whoever can use the vTPM opens them all.
 *
 * @spec RFC 9180 §5 (base mode)
 */

import { ByteReader, concat, fromUtf8, putU64be } from "../lib/bytes.ts"
import { decodeFields, encodeFields } from "../lib/encoding.ts"
import { MvmError } from "../lib/errors.ts"
import { hpkeSetupRecipient, hpkeSetupSender, type HpkeContext, type Recipient } from "./hpke.ts"

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

/** The member whose grants these are, in one life of its link. */
export interface GrantRecipient {
  readonly recipientUuid: Uint8Array
  readonly epoch: Uint8Array
}

/** What one grant belongs to. */
export interface GrantContext {
  readonly channelId: Uint8Array
  /** 32 bytes */
  readonly context: Uint8Array
}

const LABEL = "mvm region v2"
const NAMES = ["laddress", "tag", "path", "offset", "lengthBytes", "ringBytes"] as const
const LADDRESS_BYTES = 16
const TAG_BYTES = 16
const SEQUENCE_BYTES = 8
const MAX_PATH_BYTES = 512

/** Seals the grants of one recipient: `sequence (u64) || ciphertext`. */
export class GrantSealer {
  /** 65 bytes: what {@link GrantOpener} begins with */
  readonly enc: Uint8Array
  readonly #hpke: HpkeContext
  #sequence = 0

  /** @param recipientKey 65-byte P-256 point @throws MvmError `signature` when it is none */
  constructor(recipientKey: Uint8Array, recipient: GrantRecipient) {
    const { enc, context } = hpkeSetupSender(recipientKey, infoOf(recipient))
    this.enc = enc
    this.#hpke = context
  }

  /** @throws MvmError `aborted` after {@link wipe} */
  seal(about: GrantContext, grant: Grant): Uint8Array {
    const head = new Uint8Array(SEQUENCE_BYTES)
    putU64be(head, 0, this.#sequence)
    return concat(head, this.#hpke.seal(this.#sequence++, aadOf(about), encodeGrant(grant)))
  }

  /** The link's life is over. */
  wipe(): void {
    this.#hpke.wipe()
  }
}

/**
 * Opens what its {@link GrantSealer} sealed, with a key that only the vTPM of the recipient could work out.
 *
 * Trust: `sealed` came over the link; HPKE in base mode says nothing of its sender, the link's authentication
 * and the decision's signature do. That a grant is not taken twice is for the nonce or decision it is bound to.
 */
export class GrantOpener {
  readonly #hpke: HpkeContext

  private constructor(hpke: HpkeContext) {
    this.#hpke = hpke
  }

  /** @throws MvmError `integrity` when `enc` is no point of the curve; what the vTPM throws passes through */
  static async begin(key: Recipient, recipient: GrantRecipient, enc: Uint8Array): Promise<GrantOpener> {
    return new GrantOpener(await hpkeSetupRecipient(key, infoOf(recipient), enc))
  }

  /** @throws MvmError `integrity`, `protocol`, `aborted` after {@link wipe} */
  open(about: GrantContext, sealed: Uint8Array): Grant {
    const reader = new ByteReader(sealed, "grant.sealed", "integrity")
    const sequence = reader.u64be("sequence")
    if (sequence > BigInt(Number.MAX_SAFE_INTEGER)) throw reader.error("sequence", "too large")
    return decodeGrant(this.#hpke.open(Number(sequence), aadOf(about), sealed.subarray(SEQUENCE_BYTES)))
  }

  wipe(): void {
    this.#hpke.wipe()
  }
}

function infoOf({ recipientUuid, epoch }: GrantRecipient): Uint8Array {
  return encodeFields("mvm grants v2", [recipientUuid, epoch])
}

function aadOf({ channelId, context }: GrantContext): Uint8Array {
  return encodeFields("mvm grant v2", [channelId, context])
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
