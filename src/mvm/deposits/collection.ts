/**
 * @module mvm/deposits/collection
 *
 * What has to hold before the key of a deposit leaves the MVM: the policy still allows it, and the target proves,
 * now, what software it runs.
 */

import { random } from "../../lib/crypto.ts"
import { toHex } from "../../lib/bytes.ts"
import { MvmError } from "../../lib/errors.ts"
import { NO_BINDING } from "../../tcb/binding.ts"
import type { Fields } from "../../wire/link.ts"
import { authorise, demandKind } from "../channels/admission.ts"
import type { MvmContext } from "../context.ts"
import type { Member } from "../member.ts"
import type { Session } from "../session.ts"
import type { DepositKeep } from "./deposit-keep.ts"
import { statementOf, type Deposit } from "./deposit-table.ts"

const MEASURE_MS = 10_000

export interface Collection {
  readonly member: Member
  readonly session: Session
  readonly deposit: Deposit
  readonly fields: Fields<"COLLECT">
}

/**
 * Resolves when the deposit is marked as handed out and the audit log has it.
 *
 * @throws MvmError `denied`, why the target's software is not trusted, `aborted`
 */
export async function handOut(
  context: MvmContext,
  keep: DepositKeep,
  { member, session, deposit, fields }: Collection,
): Promise<void> {
  const allowed = (): void => stillAllowed(context, deposit, member, session)
  allowed()
  await appraise(member, session)
  if (member.session !== session) throw new MvmError("aborted", "the link changed meanwhile")
  member.verifier.refuseDistrusted()
  allowed()
  await keep.taken(member.record, deposit, { memory: toHex(fields.memoryId), program: fields.program })
}

/** A fresh quote, as at the opening of a channel: nothing that was found earlier counts. */
async function appraise(member: Member, session: Session): Promise<void> {
  const nonce = random(32)
  await member.link.request("MEASURE", { nonce, logOffset: member.verifier.nextOffset }, "MEASURED", {
    timeoutMs: MEASURE_MS,
    // As it arrives: evidence is appraised in the order it was made in.
    onAnswer: ({ fields: { quote } }) => {
      member.verifier.appraise(session, { purpose: "periodic", nonce, binding: NO_BINDING, quote })
    },
  })
}

/** The rule of the day decides, for both ends. @throws MvmError `denied` */
function stillAllowed(context: MvmContext, deposit: Deposit, member: Member, session: Session): void {
  const { source, service } = statementOf(deposit)
  const record = context.registry.getVm(deposit.source)
  const asker = { record: record ?? { name: source.name, tags: [] } }
  const program = { path: source.program.path, digest: source.program.digest, uid: 0 }
  const { target, constraints } = authorise(context, asker, { target: member.record.name, service, program })
  if (!constraints.deposit || target !== member.record.name) {
    throw new MvmError("denied", `no rule allows the deposit of ${source.name} any more`)
  }
  demandKind(constraints, member, session)
  if (!constraints.measurement.includes(source.kind)) {
    throw new MvmError("denied", `policy does not accept the measurement log of ${source.name} any more`)
  }
}
