/** @module mvm/control-policy */

import type { Handler, Params } from "../platform/json-rpc.ts"
import { optionalText, text } from "./control-params.ts"
import type { Mvm } from "./context.ts"
import type { Program } from "./policy/decide.ts"
import { testPolicy } from "./policy/explain.ts"

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
      const { action, rule, target, reason } = decision
      return {
        action,
        rule: rule.label,
        target,
        reason,
        program: program ?? null,
        steps: steps.map((step) => ({ ...step, mismatch: step.mismatch ?? null })),
      }
    },
  }
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
