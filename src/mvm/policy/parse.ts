/**
 * @module mvm/policy/parse
 *
 * Policy text to {@link Policy}: TOML, then the strict schema, then what only makes sense together. Whatever is
 * wrong is reported with its place, `policy.toml:LINE:COLUMN: reason`, the first place in the file first.
 */

import { basename } from "node:path"
import { MvmError } from "../../lib/errors.ts"
import { firstProblem, readDocument, type Problem } from "../../lib/toml-document.ts"
import type { KeyPath, Places } from "../../lib/toml-places.ts"
import { type Constraints, DEFAULT_CONSTRAINTS, type Policy, type PolicyRule } from "./policy.ts"
import { DEMANDS, document, type PolicyDocument, type RuleDocument } from "./policy-schema.ts"

export const MAX_POLICY_BYTES = 1 << 20
const HINT = "mvm policy check shows whether the file is good; until it is, everything is denied"

/** @throws MvmError `policy_broken`, `FILE:LINE:COLUMN: reason`. */
export function parsePolicy(text: string, fileName: string): Policy {
  const file = basename(fileName)
  if (text.length > MAX_POLICY_BYTES) throw broken(file, { line: 1, column: 1, reason: "longer than 1 MiB" })
  const read = readDocument(text, document)
  if ("problem" in read) throw broken(file, read.problem, read.cause)
  const { value, places } = read
  const policy = build(value, places, file)
  const problems = contradictions(value).map(({ path, reason }) => ({ ...places.of(path), reason }))
  if (problems.length > 0) throw broken(file, firstProblem(problems))
  return policy
}

function build(source: PolicyDocument, places: Places, file: string): Policy {
  const defaults = constraintsOf(source.settings ?? {}, DEFAULT_CONSTRAINTS)
  const tags = Object.entries(source.tags ?? {})
  return {
    file,
    tags: new Map(tags.map(([tag, names]) => [tag, new Set(names)])),
    tagLines: new Map(tags.map(([tag]) => [tag, places.of(["tags", tag]).line])),
    rules: (source.rule ?? []).map((rule, index): PolicyRule => {
      const { line } = places.of(["rule", index])
      return {
        rule: { index, line, comment: rule.comment ?? "", label: `${file}:${line}` },
        action: rule.action,
        service: rule.service,
        from: rule.from,
        to: rule.to,
        programs: rule.programs?.map((program) => ({ path: program.path, digest: program.digest })),
        target: rule.target,
        constraints: constraintsOf(rule, defaults),
      }
    }),
  }
}

type Demands = Pick<RuleDocument, (typeof DEMANDS)[number]>

function constraintsOf(demands: Demands, defaults: Constraints): Constraints {
  return {
    isolation: demands.isolation ?? defaults.isolation,
    transport: demands.transport ?? defaults.transport,
    digest: demands.digest ?? defaults.digest,
    measurement: demands.measurement ? [...new Set(demands.measurement)] : defaults.measurement,
    maxBytes: demands.max_bytes ?? defaults.maxBytes,
    maxSeconds: demands.max_seconds ?? defaults.maxSeconds,
    maxChannels: demands.max_channels ?? defaults.maxChannels,
    deposit: demands.deposit ?? defaults.deposit,
  }
}

/** A deny rule that demands something was meant otherwise. */
function contradictions(source: PolicyDocument): { path: KeyPath; reason: string }[] {
  return (source.rule ?? []).flatMap((rule, index) =>
    rule.action === "allow"
      ? []
      : ([...DEMANDS, "target"] as const)
          .filter((key) => rule[key] !== undefined)
          .map((key) => ({
            path: ["rule", index, key],
            reason: `"${key}" means nothing in a rule that denies`,
          })),
  )
}

function broken(file: string, { line, column, reason }: Problem, cause?: unknown): MvmError {
  return new MvmError("policy_broken", `${file}:${line}:${column}: ${reason}`, { hint: HINT, cause })
}
