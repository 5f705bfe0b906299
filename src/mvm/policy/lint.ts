/**
 * @module mvm/policy/lint
 *
 * What a good policy may still have wrong: rules that never decide, names that nobody has, and doors that stand
 * wide open. Warnings only: the policy works as it is written.
 */

import { type Party, tagsOf } from "./decide.ts"
import { covers, matches, type Pattern } from "./pattern.ts"
import type { Policy, PolicyRule } from "./policy.ts"

export interface Warning {
  readonly line: number
  readonly message: string
}

/** In the order of the file. Without `knownVms` (no registry at hand) names are not checked. */
export function lint(policy: Policy, knownVms?: readonly Party[]): Warning[] {
  const warnings = policy.rules.flatMap((rule, index) => ruleWarnings(policy, rule, index))
  if (knownVms) warnings.push(...nameWarnings(policy, knownVms))
  return warnings.toSorted((a, b) => a.line - b.line)
}

function ruleWarnings(policy: Policy, rule: PolicyRule, index: number): Warning[] {
  const warnings: Warning[] = []
  const { line } = rule.rule
  const before = policy.rules.slice(0, index).find((earlier) => coversRule(earlier, rule))
  if (before) {
    const message = `never reached: the rule of line ${before.rule.line} decides everything this one matches`
    warnings.push({ line, message })
  }
  if (rule.action === "allow" && !rule.programs && isOpen(rule.from) && isOpen(rule.to)) {
    const what = isOpen(rule.service) ? "any service" : rule.service.map(({ text }) => text).join(", ")
    warnings.push({ line, message: `allows ${what} from any VM to any VM` })
  }
  return warnings
}

function nameWarnings(policy: Policy, knownVms: readonly Party[]): Warning[] {
  const warnings: Warning[] = []
  const vms = knownVms.map((party) => ({ name: party.name, tags: tagsOf(policy, party) }))
  const names = new Set(knownVms.map((party) => party.name))
  for (const rule of policy.rules) {
    const { line } = rule.rule
    for (const side of ["from", "to"] as const) {
      for (const pattern of rule[side]) {
        if (pattern.kind === "any" || vms.some((vm) => matches(pattern, vm.name, vm.tags))) continue
        warnings.push({ line, message: `${side}: ${unmatched(pattern)}` })
      }
    }
    if (rule.target !== undefined && !names.has(rule.target)) {
      warnings.push({ line, message: `target: there is no VM ${rule.target}` })
    }
  }
  for (const [tag, members] of policy.tags) {
    for (const name of members) {
      const line = policy.tagLines.get(tag) ?? 1
      if (!names.has(name)) warnings.push({ line, message: `tags.${tag}: there is no VM ${name}` })
    }
  }
  return warnings
}

/** Whether `earlier` matches whatever `later` matches. May miss some, never claims wrongly. */
function coversRule(earlier: PolicyRule, later: PolicyRule): boolean {
  return (
    coversProgram(earlier, later) &&
    coversAll(earlier.service, later.service) &&
    coversAll(earlier.from, later.from) &&
    coversAll(earlier.to, later.to)
  )
}

function coversProgram({ programs: wide }: PolicyRule, { programs: narrow }: PolicyRule): boolean {
  if (!wide) return true
  if (!narrow) return false
  return narrow.every(({ path, digest }) =>
    wide.some((other) => other.path === path && (other.digest === undefined || other.digest === digest)),
  )
}

function coversAll(wide: readonly Pattern[], narrow: readonly Pattern[]): boolean {
  return narrow.every((pattern) => wide.some((other) => covers(other, pattern)))
}

function isOpen(patterns: readonly Pattern[]): boolean {
  return patterns.some((pattern) => pattern.kind === "any")
}

function unmatched(pattern: Pattern): string {
  if (pattern.kind === "tag") return `no VM has the tag ${pattern.tag}`
  return pattern.kind === "glob" ? `no VM matches ${pattern.text}` : `there is no VM ${pattern.text}`
}
