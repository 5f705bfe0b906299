/** @module mvm/control/policy */

import type { Handler, Params } from "../../platform/json-rpc.ts"
import { optionalText, text } from "./params.ts"
import type { Mvm } from "../context.ts"
import type { Constraints, Program } from "../policy/decide.ts"
import { testPolicy } from "../policy/explain.ts"

export function policyHandlers(mvm: Mvm): Record<string, Handler> {
  const { context } = mvm
  return {
    "policy.test": async (params) => {
      // Who has just written the file asks about what is in it.
      await context.policy.settled()
      const tags = (name: string): readonly string[] => context.registry.getVm(name)?.tags ?? []
      const [from, to] = [text(params, "from"), text(params, "to")]
      const program = programOf(mvm, params, from)
      const { decision, steps } = testPolicy(context.policy.current, {
        service: text(params, "service"),
        from: { name: from, tags: tags(from) },
        to: { name: to, tags: tags(to) },
        program,
      })
      const { rule, target, constraints } = decision
      const refused =
        decision.action === "deny"
          ? undefined
          : (wrongKeeper(mvm, constraints, [from, target]) ?? noMemory(mvm, constraints, [from, target]))
      return {
        action: refused ? "deny" : decision.action,
        rule: rule.label,
        target,
        reason: refused ?? decision.reason,
        program: program ?? null,
        steps: steps.map((step) => ({ ...step, mismatch: step.mismatch ?? null })),
      }
    },
  }
}

/** Whose log the rule does not count: opening the channel would find it out only once both ends are measured. */
function wrongKeeper(mvm: Mvm, { measurement }: Constraints, names: readonly string[]): string | undefined {
  for (const name of names) {
    const record = mvm.context.registry.getVm(name)
    const keeper = record?.kind === "local" ? "agent" : "kernel"
    if (!record || measurement.includes(keeper)) continue
    return `${name}: the rule does not count a measurement log that the ${keeper} keeps; set "measurement" if that is meant`
  }
  return undefined
}

/** Who is linked and cannot have what the rule demands. */
function noMemory(mvm: Mvm, { transport }: Constraints, names: readonly string[]): string | undefined {
  if (transport === "any") return undefined
  for (const name of names) {
    const session = mvm.context.hub.byName(name)?.session
    if (!session?.isReady || session.canMap) continue
    return `${name} cannot map shared memory, and the rule demands it: ${session.mapping}`
  }
  return undefined
}

/** Without a digest, the content that the asking VM was seen to run by that name; the newest, where it ran several. */
function programOf(mvm: Mvm, params: Params, from: string): Program | undefined {
  const path = optionalText(params, "program")
  if (path === undefined) return undefined
  const digest = optionalText(params, "digest")
  if (digest !== undefined) return { path, digest: digest.toLowerCase() }
  const record = mvm.context.registry.getVm(from)
  const seen = record ? mvm.verifierOf(record).seen.findLast((entry) => entry.path === path) : undefined
  return { path, digest: seen?.fileDigest.hex ?? "" }
}
