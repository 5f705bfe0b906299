/**
 * @module mvm/policy/decide
 *
 * The decision: a pure function of policy and question. Rules are tried in order and the first that matches
 * decides; none denies; a broken policy denies. A redirected request is not looked up again under its new target.
 */

import { matches, type Pattern } from "./pattern.ts"
import {
  type BrokenPolicy,
  type Constraints as RuleConstraints,
  DEFAULT_CONSTRAINTS,
  type Policy,
  type PolicyRule,
} from "./policy.ts"

export interface Party {
  readonly name: string
  readonly tags: readonly string[]
}

export interface Program {
  readonly path: string
  /** Hex SHA-256. */
  readonly digest: string
}

export interface Question {
  readonly service: string
  /** The asker, as its port says. */
  readonly from: Party
  /** The VM that is asked for. */
  readonly to: Party
  /** The asking program as the agent asserts it; without one no rule that names programs matches. */
  readonly program?: Program | undefined
}

export interface Decision {
  readonly action: "allow" | "deny"
  readonly code: "denied" | "policy_broken" | undefined
  readonly rule: PolicyRule["rule"]
  /** The VM to ask: the rule's redirect, else the one that was asked for. */
  readonly target: string
  readonly constraints: RuleConstraints
  /** One line for the operator. */
  readonly reason: string
}

export type Rule = Decision["rule"]
export type Constraints = Decision["constraints"]

/** One rule held against a question: undefined when it matches, else the first part that does not. */
export type Mismatch = "service" | "from" | "to" | "program"

export function decide(policy: Policy | BrokenPolicy, question: Question): Decision {
  const { service, from, to } = question
  const what = `service ${service} from ${from.name} to ${to.name}`
  if ("error" in policy) {
    const rule = { index: -1, line: 0, comment: "", label: "broken" }
    const reason = `nothing is allowed: ${policy.error.message}`
    return deny(rule, to.name, reason, "policy_broken")
  }
  const found = policy.rules.find((rule) => mismatch(policy, rule, question) === undefined)
  if (!found) {
    const rule = { index: -1, line: 0, comment: "", label: "default" }
    return deny(rule, to.name, `no rule of ${policy.file} matches ${what}`, "denied")
  }
  const said = found.rule.comment === "" ? "" : ` (${found.rule.comment})`
  if (found.action === "deny") {
    return deny(found.rule, to.name, `${found.rule.label}${said} denies ${what}`, "denied")
  }
  return {
    action: "allow",
    code: undefined,
    rule: found.rule,
    target: found.target ?? to.name,
    constraints: found.constraints,
    reason: `${found.rule.label}${said} allows ${what}${found.target ? `, redirected to ${found.target}` : ""}`,
  }
}

/** Why `rule` does not match `question`, or undefined when it does. */
export function mismatch(policy: Policy, rule: PolicyRule, question: Question): Mismatch | undefined {
  if (!anyMatches(rule.service, question.service, NO_TAGS)) return "service"
  if (!anyMatches(rule.from, question.from.name, tagsOf(policy, question.from))) return "from"
  if (!anyMatches(rule.to, question.to.name, tagsOf(policy, question.to))) return "to"
  if (rule.programs && !programMatches(rule.programs, question.program)) return "program"
  return undefined
}

/** The tags of a VM: those it was given, and those the policy gives its name. */
export function tagsOf(policy: Policy, { name, tags }: Party): Set<string> {
  const all = new Set(tags)
  for (const [tag, names] of policy.tags) if (names.has(name)) all.add(tag)
  return all
}

const NO_TAGS: ReadonlySet<string> = new Set()

function anyMatches(patterns: readonly Pattern[], name: string, tags: ReadonlySet<string>): boolean {
  return patterns.some((pattern) => matches(pattern, name, tags))
}

function programMatches(
  patterns: NonNullable<PolicyRule["programs"]>,
  program: Program | undefined,
): boolean {
  if (!program) return false
  return patterns.some(
    ({ path, digest }) =>
      path === program.path && (digest === undefined || digest === program.digest.toLowerCase()),
  )
}

function deny(rule: Rule, target: string, reason: string, code: Decision["code"]): Decision {
  return { action: "deny", code, rule, target, constraints: DEFAULT_CONSTRAINTS, reason }
}
