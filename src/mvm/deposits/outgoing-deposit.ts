/**
 * @module mvm/deposits/outgoing-deposit
 *
 * A deposit while its target collects it: the records go out as they were stored, through the region or over the
 * link, in whatever order they are asked for.
 */

import { random } from "../../lib/crypto.ts"
import { fromHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { DEPOSIT_PART_BYTES } from "../../wire/fields.ts"
import type { Fields } from "../../wire/link.ts"
import type { Member } from "../member.ts"
import type { Session } from "../session.ts"
import type { DepositFiles } from "./deposit-files.ts"
import type { DepositRegion } from "./deposit-region.ts"
import type { Deposit } from "./deposit-table.ts"

export class OutgoingDeposit {
  readonly member: Member
  readonly deposit: Deposit
  readonly #files: DepositFiles
  readonly #region: DepositRegion
  /** performance.now() of its last message. */
  heardMs = performance.now()

  constructor(member: Member, deposit: Deposit, parts: { files: DepositFiles; region: DepositRegion }) {
    this.member = member
    this.deposit = deposit
    this.#files = parts.files
    this.#region = parts.region
  }

  get key(): string {
    return this.deposit.key
  }

  /** What the collector is told. */
  offer(session: Session): Fields<"COLLECTED"> {
    const { key, statement, signature, sealedKey } = this.deposit
    const depositId = fromHex(key)
    const nonce = random(32)
    return {
      depositId,
      nonce,
      statement,
      statementSignature: signature,
      sealedKey,
      sealed: this.#region.seal(session, depositId, nonce),
    }
  }

  /** @throws MvmError `protocol` for a part that is none, `io` */
  read({ offset, lengthBytes }: Fields<"DEPOSIT_DATA">): Fields<"DEPOSIT_BYTES"> {
    this.heardMs = performance.now()
    const isMapped = this.#region.lengthBytes > 0
    const most = isMapped ? this.#region.lengthBytes : DEPOSIT_PART_BYTES
    if (lengthBytes === 0 || lengthBytes > most || offset > this.deposit.bytes) {
      throw new MvmError("protocol", "DEPOSIT_DATA: not a part of the deposit")
    }
    const part = this.#files.read(this.key, offset, Math.min(lengthBytes, this.deposit.bytes - offset))
    if (!isMapped) return { lengthBytes: part.length, part }
    this.#region.write(part)
    return { lengthBytes: part.length }
  }

  close(): void {
    // Its collector only reads there: whatever it reads later fails its hash.
    this.#region.free()
  }
}
