/**
 * @module mvm/policy/explain
 *
 * A decision with its whole way: which rules were tried, and why each did not match. For `mvm policy test`.
 */

import { decide, type Decision, type Mismatch, mismatch, type Question } from "./decide.ts"
import type { BrokenPolicy, Policy } from "./policy.ts"

export interface Step {
  readonly line: number
  readonly comment: string
  readonly action: "allow" | "deny"
  /** What did not match; undefined for the rule that decided. */
  readonly mismatch: Mismatch | undefined
}

export interface PolicyTest {
  readonly question: Question
  readonly decision: Decision
  /** Every rule tried, the one that decided last. */
  readonly steps: readonly Step[]
}

export function testPolicy(policy: Policy | BrokenPolicy, question: Question): PolicyTest {
  const decision = decide(policy, question)
  if ("error" in policy) return { question, decision, steps: [] }
  const tried = decision.rule.index < 0 ? policy.rules : policy.rules.slice(0, decision.rule.index + 1)
  const steps = tried.map((rule) => ({
    line: rule.rule.line,
    comment: rule.rule.comment,
    action: rule.action,
    mismatch: mismatch(policy, rule, question),
  }))
  return { question, decision, steps }
}
