/**
 * @module mvm/measured-member
 *
 * What a VM was seen to run in its present boot, for learning, comparing and approving.
 */

import { MvmError } from "../lib/errors.ts"
import type { VerifiedQuote } from "../tcb/measurement/quote.ts"
import type { Measured } from "../tcb/measurement/reference-table.ts"
import type { Mvm } from "./context.ts"
import type { Member } from "./member.ts"
import type { VmRecord } from "./state/registry.ts"

/** The linked member of a VM. @throws MvmError `no_agent` */
export function memberOf(mvm: Mvm, record: VmRecord): Member {
  const member = mvm.context.hub.byUuid(record.uuid)
  if (member?.session) return member
  throw new MvmError("no_agent", `${record.name} has no agent connected`, {
    hint:
      record.kind === "local"
        ? `mvm guest agent --local ${record.name}`
        : `mvm vm start ${record.name} --wait`,
  })
}

/**
 * Everything up to now. Being untrusted, or having no values yet, is what learning is for; evidence that does not
 * hold teaches nothing.
 *
 * @throws MvmError `no_agent`, `timeout`, `evidence_*`
 */
export async function seenOf(
  mvm: Mvm,
  record: VmRecord,
): Promise<{ measured: Measured[]; quote: VerifiedQuote }> {
  const verifier = mvm.verifierOf(record)
  try {
    await mvm.measure(memberOf(mvm, record))
  } catch (error) {
    const expected =
      error instanceof MvmError && (error.code === "no_reference" || error.code === "untrusted")
    if (!expected) throw error
  }
  const { quote, measured } = verifier
  if (!quote) throw new MvmError("no_agent", `${record.name} gave no evidence in this boot`)
  return { measured, quote }
}

/** Whether `path` is the agent of a VM; the log of a local endpoint is kept by its agent anyway. */
export function isAgent(record: VmRecord, path: string): boolean {
  return record.kind !== "local" && path.endsWith("/mvm")
}
