/** @module mvm/control/measure */

import { MvmError } from "../../lib/errors.ts"
import type { Handler } from "../../platform/json-rpc.ts"
import { parseDecision } from "../../channel/decision.ts"
import { fromHex } from "../../lib/bytes.ts"
import type { Check } from "../../tcb/measurement/check.ts"
import { text } from "./params.ts"
import { exportBundle, vmBody, type EvidenceBody } from "../evidence/bundle.ts"
import type { EvidenceRecord } from "../evidence/record.ts"
import { verifyEvidence } from "../evidence/verify.ts"
import { memberOf } from "../measured-member.ts"
import type { VmRecord } from "../state/registry.ts"
import type { Mvm } from "../context.ts"

/** A channel's id, or enough of its beginning. */
const CHANNEL = /^[0-9a-f]{4,32}$/

export function measureHandlers(mvm: Mvm): Record<string, Handler> {
  const { context, vms } = mvm
  return {
    "measure.explain": async (params) => {
      const subject = text(params, "vm")
      const record = context.registry.getVm(subject)
      if (record || !CHANNEL.test(subject)) return explainVm(mvm, vms.require(subject))
      return explainChannel(mvm, await context.evidence.find(subject))
    },
    "measure.evidence": async (params) => {
      return { text: exportBundle(await bodyOf(mvm, text(params, "vm")), context.evidence, context.identity) }
    },
    "measure.run": async (params) => {
      const record = vms.require(text(params, "vm"))
      await mvm.measure(memberOf(mvm, record))
    },
  }
}

function explainVm(mvm: Mvm, record: VmRecord): Record<string, unknown> {
  const verifier = mvm.verifierOf(record)
  const { verdict, code, message, checks, entries, sinceMs } = verifier.opinion
  return {
    vm: record.name,
    verdict,
    code: code ?? null,
    message: message ?? null,
    since: new Date(sinceMs).toISOString(),
    entries,
    bootId: verifier.lastRecord?.bootId ?? null,
    measured: verifier.lastRecord ? new Date(verifier.lastRecord.timeMs).toISOString() : null,
    launch: verifier.launch?.digests ?? null,
    checks,
  }
}

/** The decision about a channel, with the evidence of its ends judged once more. */
function explainChannel(mvm: Mvm, { channel, ...rest }: EvidenceBody): Record<string, unknown> {
  const { evidence, identity } = mvm.context
  const decision = rest.decision === null ? undefined : parseDecision(fromHex(rest.decision))
  const facts = {
    channel,
    time: new Date(rest.timeMs).toISOString(),
    refused: rest.refused,
    service: decision?.service ?? null,
    rule: decision?.rule ?? null,
  }
  const body = { channel, ...rest }
  try {
    const { ends } = verifyEvidence(exportBundle(body, evidence, identity), identity.publicKey)
    const views = ends.map(({ record, appraisal, entries }) => endView(record, appraisal.checks, entries))
    return { ...facts, problem: null, ends: views }
  } catch (error) {
    if (!(error instanceof MvmError)) throw error
    // What was found at the time is still told when the logs behind it are gone.
    const views = rest.ends.map((record) => {
      return endView(
        record,
        record.failed.map((check) => ({ ...check, ok: false, expected: "", seen: "" })),
      )
    })
    return { ...facts, problem: error.message, ends: views }
  }
}

function endView(
  record: EvidenceRecord,
  checks: readonly Pick<Check, "name" | "ok" | "subject" | "message" | "expected" | "seen">[],
  entries?: number,
): Record<string, unknown> {
  const { vm, verdict, kind, bootId, purpose } = record
  const measured = new Date(record.timeMs).toISOString()
  return { vm, verdict, kind, bootId, purpose, measured, entries: entries ?? null, checks }
}

/** @throws MvmError `not_found` when there is no evidence of it. */
async function bodyOf(mvm: Mvm, subject: string): Promise<EvidenceBody> {
  const record = mvm.context.registry.getVm(subject)
  if (!record && CHANNEL.test(subject)) return mvm.context.evidence.find(subject)
  const last = mvm.verifierOf(mvm.vms.require(subject)).lastRecord
  if (last) return vmBody(last)
  throw new MvmError("not_found", `${subject} gave no evidence in this boot`, {
    hint: `mvm measure run ${subject}`,
  })
}
