/**
 * @module test/mvm/deposits/scripted-deposits
 *
 * What an honest depositor and an honest collector say, with every word open to change.
 */

import { depositMessage } from "../../../src/channel/deposit.ts"
import { receiptMessage } from "../../../src/channel/transcript.ts"
import { random, sha256 } from "../../../src/lib/crypto.ts"
import { requestBinding } from "../../../src/tcb/binding.ts"
import { sealDepositKey } from "../../../src/tcb/deposit-key.ts"
import type { Fields, NamedMessage } from "../../../src/wire/link.ts"
import { PROGRAM, type ScriptedMember } from "../scripted-member.ts"
import { ScriptedMvm, type Setting } from "../scripted.ts"

export const WAIT = { timeoutMs: 10_000 }
const MEMORY = new Uint8Array(16).fill(5)
export const POLICY = `[[rule]]\nservice = "@any"\nfrom = "@any"\nto = "@any"\naction = "allow"\nmeasurement = "agent"\ndeposit = true\n`
export const CONTENT = random(5000)
export const KEY = random(32)

export async function mvmWith(setting: Setting = {}): Promise<ScriptedMvm> {
  return ScriptedMvm.start({ policy: POLICY, ...setting })
}

export async function begin(
  member: ScriptedMember,
  target: string,
  change: Partial<Fields<"DEPOSIT">> = {},
): Promise<Fields<"DEPOSITING">> {
  const asked = { target, service: "pipe", lifetimeSeconds: 0, memory: false, program: PROGRAM, ...change }
  return (await member.client.link.request("DEPOSIT", asked, "DEPOSITING", WAIT)).fields
}

export function put(
  member: ScriptedMember,
  fields: Partial<Fields<"DEPOSIT_DATA">> & Pick<Fields<"DEPOSIT_DATA">, "depositId">,
): Promise<NamedMessage<"DONE">> {
  const part = { offset: 0, lengthBytes: CONTENT.length, part: CONTENT, ...fields }
  return member.client.link.request("DEPOSIT_DATA", part, "DONE", WAIT)
}

export interface Claim {
  /** What the signature says, where it differs from what is sent */
  readonly signed?: Partial<Parameters<typeof depositMessage>[0]>
  readonly sent?: Partial<Fields<"DEPOSIT_FINISH">>
  readonly signer?: ScriptedMember
  readonly quoter?: ScriptedMember
}

export async function finish(
  member: ScriptedMember,
  offered: Fields<"DEPOSITING">,
  { signed, sent, signer = member, quoter = member }: Claim = {},
): Promise<NamedMessage<"DONE">> {
  const { depositId, nonce, targetUuid, targetKey, sealed, logOffset } = offered
  const { laddress } = await member.openGrant(depositId, sha256(nonce), sealed)
  const place = { depositId, laddress, targetUuid, service: "pipe" }
  const sealedKey = await sealDepositKey(targetKey, place, { key: KEY, laddress })
  const size = { lengthBytes: 4900, storedBytes: CONTENT.length, records: 3 }
  const claim = { ...place, ...size, hash: sha256(CONTENT), sealedKey, nonce }
  const message = depositMessage({
    ...claim,
    epoch: member.membership.epoch,
    program: PROGRAM,
    ...signed,
  })
  member.sendLog(logOffset)
  const fields = {
    depositId,
    ...size,
    hash: claim.hash,
    sealedKey,
    signature: signer.sign(message),
    quote: quoter.quote({ purpose: "request", nonce, binding: requestBinding(message) }),
    ...sent,
  }
  return member.client.link.request("DEPOSIT_FINISH", fields, "DONE", WAIT)
}

export async function leave(member: ScriptedMember, target: string): Promise<Fields<"DEPOSITING">> {
  const offered = await begin(member, target)
  await put(member, { depositId: offered.depositId })
  await finish(member, offered)
  return offered
}

export function list(
  member: ScriptedMember,
  memoryId: Uint8Array = MEMORY,
): Promise<NamedMessage<"DEPOSITS">> {
  const fields = { memoryId, memory: false, program: PROGRAM }
  return member.client.link.request("COLLECT", fields, "DEPOSITS", WAIT)
}

/** Asks for a deposit and proves what runs there, if the MVM asks for that. */
export async function collect(
  member: ScriptedMember,
  depositId: Uint8Array,
  memoryId: Uint8Array = MEMORY,
): Promise<Fields<"COLLECTED">> {
  const fields = { depositId, memoryId, memory: false, program: PROGRAM }
  const collected = member.client.link.request("COLLECT", fields, "COLLECTED", WAIT)
  void member.measured().catch(() => {})
  return (await collected).fields
}

export function receipt(
  member: ScriptedMember,
  channelId: Uint8Array,
  change: Partial<Parameters<typeof receiptMessage>[0]> = {},
  signer = member,
): Promise<NamedMessage<"DONE">> {
  const size = { lengthBytes: 4900, records: 3, digest: sha256(CONTENT) }
  const said = { channelId, direction: 0, ...size, ...change }
  const signature = signer.sign(receiptMessage(said))
  return member.client.link.request("RECEIPT", { ...said, signature }, "DONE", WAIT)
}
