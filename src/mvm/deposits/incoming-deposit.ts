/**
 * @module mvm/deposits/incoming-deposit
 *
 * A deposit while its depositor fills it. The MVM hashes what it was given itself, from a copy of its own, and keeps
 * it only if the depositor's identity key signed exactly that hash and its software is trusted.
 *
 * ```
 *   filling --DEPOSIT_FINISH--> finishing --file and row on disk--> kept
 *      |                          |
 *      └── CLOSE, link's end, silence, a wrong claim ──> dropped
 * ```
 *
 * Trust: all that its depositor sends is hostile; who the depositor is, its link says.
 */

import { depositMessage } from "../../channel/deposit.ts"
import { encodeStatement } from "../../channel/deposit-statement.ts"
import { equalBytes, toHex } from "../../lib/bytes.ts"
import { p256Verify, random, Sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"
import { formatSize } from "../../lib/units.ts"
import { requestBinding } from "../../tcb/binding.ts"
import type { Fields } from "../../wire/link.ts"
import { decisionEnd } from "../channels/decision-end.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import { uuidBytes, type Session } from "../session.ts"
import type { VmRecord } from "../state/registry.ts"
import type { DepositFile } from "./deposit-files.ts"
import type { DepositRegion } from "./deposit-region.ts"
import type { Deposit } from "./deposit-table.ts"

/** Of a deposit that has a limit, records may take this much more: heads and tags. */
const OVERHEAD = 1.01
const OVERHEAD_BYTES = 64 * 1024

/** What was decided before the first byte. */
export interface Admission {
  readonly member: Member
  readonly session: Session
  readonly target: VmRecord
  readonly asked: Fields<"DEPOSIT">
  /** The rule, for people */
  readonly rule: string
  readonly maxBytes: number | undefined
  readonly lifetimeMs: number
}

export class IncomingDeposit {
  /** 16 bytes */
  readonly id = random(16)
  readonly key = toHex(this.id)
  readonly admission: Admission
  readonly #nonce = random(32)
  readonly #file: DepositFile
  readonly region: DepositRegion
  readonly #hash = new Sha256()
  #bytes = 0
  #isFilling = true
  /** performance.now() of its last message. */
  heardMs = performance.now()

  constructor(admission: Admission, parts: { begin(key: string): DepositFile; region: DepositRegion }) {
    this.admission = admission
    this.region = parts.region
    this.#file = parts.begin(this.key)
  }

  /** What it occupies so far. */
  get bytes(): number {
    return this.#bytes
  }

  /** What the depositor is told. */
  offer(): Fields<"DEPOSITING"> {
    const { member, session, target, maxBytes } = this.admission
    return {
      depositId: this.id,
      nonce: this.#nonce,
      targetUuid: uuidBytes(target.uuid),
      targetName: target.name,
      targetKey: target.keys.sealing,
      sealed: this.region.seal(session, this.id, this.#nonce),
      logOffset: member.verifier.nextOffset,
      maxBytes,
    }
  }

  /** The part that a message brings or names, as a private copy. @throws MvmError `protocol`, `denied` */
  take({ offset, lengthBytes, part }: Fields<"DEPOSIT_DATA">): Uint8Array {
    this.heardMs = performance.now()
    if (!this.#isFilling || offset !== this.#bytes) throw new MvmError("protocol", "DEPOSIT_DATA: not now")
    const most = part ? part.length : this.region.lengthBytes
    if (lengthBytes === 0 || lengthBytes > most || (part && part.length !== lengthBytes)) {
      throw new MvmError("protocol", "DEPOSIT_DATA.lengthBytes: not what there is")
    }
    const { maxBytes } = this.admission
    if (maxBytes !== undefined && this.#bytes + lengthBytes > maxBytes * OVERHEAD + OVERHEAD_BYTES) {
      throw new MvmError("denied", `max_bytes of ${this.admission.rule}: ${formatSize(maxBytes)}`)
    }
    return part ?? this.region.read(lengthBytes)
  }

  /** @param bytes as {@link take} gave them @throws MvmError `io`, `no_space` */
  append(bytes: Uint8Array): void {
    this.#file.append(bytes)
    this.#hash.update(bytes)
    this.#bytes += bytes.length
  }

  /**
   * Holds the depositor's claim against what was stored and judges its software: steps 5, 6 and 8 of the method.
   *
   * @returns the row to keep, once the file is on disk
   * @throws MvmError `integrity`, `signature`, `denied`, `aborted`, or why the software is not trusted
   */
  async finish(
    context: MvmContext,
    fields: Fields<"DEPOSIT_FINISH">,
  ): Promise<Omit<Deposit, "state" | "memory">> {
    if (!this.#isFilling) throw new MvmError("protocol", "DEPOSIT_FINISH: not now")
    this.#isFilling = false
    const { member, session, target, asked, maxBytes } = this.admission
    if (member.session !== session) throw new MvmError("aborted", "the link changed meanwhile")
    const { lengthBytes, storedBytes, records, hash, sealedKey, signature } = fields
    const found = this.#hash.digest()
    if (storedBytes !== this.#bytes || !equalBytes(found, hash)) {
      throw new MvmError("integrity", "what was stored is not what the depositor's hash says")
    }
    if (lengthBytes > storedBytes)
      throw new MvmError("protocol", "DEPOSIT_FINISH.lengthBytes: more than was stored")
    if (maxBytes !== undefined && lengthBytes > maxBytes) {
      throw new MvmError("denied", `max_bytes of ${this.admission.rule}: ${formatSize(maxBytes)}`)
    }
    const targetUuid = uuidBytes(target.uuid)
    const { epoch } = session
    const message = depositMessage({
      depositId: this.id,
      laddress: this.region.laddress,
      targetUuid,
      service: asked.service,
      lengthBytes,
      storedBytes,
      records,
      hash,
      sealedKey,
      nonce: this.#nonce,
      epoch,
      program: asked.program,
    })
    if (!p256Verify(member.record.keys.identity, message, signature)) {
      throw new MvmError(
        "signature",
        `the deposit of ${member.record.name} is not signed with its identity key`,
      )
    }
    const facts = member.verifier.appraise(session, {
      purpose: "request",
      nonce: this.#nonce,
      binding: requestBinding(message),
      quote: fields.quote,
    })
    await this.#file.commit()
    const timeMs = Date.now()
    const expiresMs = timeMs + this.admission.lifetimeMs
    const statement = encodeStatement({
      depositId: this.id,
      timeMs,
      expiresMs,
      source: decisionEnd(member, session, asked.program, facts),
      targetUuid,
      targetName: target.name,
      service: asked.service,
      rule: this.admission.rule,
      lengthBytes,
      storedBytes,
      records,
      hash,
      nonce: this.#nonce,
      epoch,
      programUid: asked.program.uid,
      sourceSignature: signature,
      mvmMeasurement: context.measurement,
    })
    return {
      key: this.key,
      source: member.record.uuid,
      target: target.uuid,
      service: asked.service,
      bytes: storedBytes,
      createdMs: timeMs,
      expiresMs,
      sealedKey,
      statement,
      signature: context.identity.sign(statement),
    }
  }

  /** Nothing of it stays but what was kept. The region is its owner's to free. */
  close(): void {
    this.#isFilling = false
    this.#file.discard()
    this.#bytes = 0
  }
}
