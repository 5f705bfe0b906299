/**
 * @module mvm/policy/parse
 *
 * Policy text to {@link Policy}: TOML, then the strict schema, then what only makes sense together. Whatever is
 * wrong is reported with its place, `policy.toml:LINE:COLUMN: reason`, the first place in the file first.
 */

import { basename } from "node:path"
import { parse as parseToml, TomlError } from "smol-toml"
import * as v from "valibot"
import { MvmError } from "../../lib/errors.ts"
import { type KeyPath, type Place, Places } from "./locate.ts"
import { type Constraints, DEFAULT_CONSTRAINTS, type Policy, type PolicyRule } from "./policy.ts"
import { DEMANDS, document, type PolicyDocument, type RuleDocument } from "./policy-schema.ts"

export const MAX_POLICY_BYTES = 1 << 20
/** A policy nests three deep; deeper is no policy. */
const MAX_DEPTH = 8
const HINT = "mvm policy check shows whether the file is good; until it is, everything is denied"

interface Problem extends Place {
  readonly reason: string
}

/** @throws MvmError `policy_broken`, `FILE:LINE:COLUMN: reason`. */
export function parsePolicy(text: string, fileName: string): Policy {
  const file = basename(fileName)
  if (text.length > MAX_POLICY_BYTES) throw broken(file, { line: 1, column: 1, reason: "longer than 1 MiB" })
  const value = parseDocument(text, file)
  const places = new Places(text)
  const result = v.safeParse(document, value)
  if (!result.success) throw broken(file, first(result.issues.map((issue) => problemOf(issue, places))))
  const policy = build(result.output, places, file)
  const problems = contradictions(result.output).map(({ path, reason }) => ({ ...places.of(path), reason }))
  if (problems.length > 0) throw broken(file, first(problems))
  return policy
}

function parseDocument(text: string, file: string): unknown {
  try {
    return parseToml(text, { unsafeKeyBehaviour: "throw", maxDepth: MAX_DEPTH, integersAsBigInt: "asNeeded" })
  } catch (cause) {
    if (!(cause instanceof TomlError)) {
      throw broken(file, { line: 1, column: 1, reason: "cannot be read as TOML" }, cause)
    }
    // The library's message goes on with an excerpt of the file.
    const said = cause.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "")
    throw broken(file, { line: cause.line, column: cause.column, reason: said }, cause)
  }
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

function problemOf(issue: v.BaseIssue<unknown>, places: Places): Problem {
  const { path, said } = innermost(issue)
  const key = JSON.stringify(path.at(-1) ?? "")
  const place = places.of(path)
  if (said.type === "strict_object" && said.expected === "never") {
    return { ...place, reason: `unknown key ${key}` }
  }
  if (said.type === "strict_object" && said.received === "undefined") {
    return { ...place, reason: `${key} is missing` }
  }
  const named = path.filter((part) => typeof part === "string").at(-1)
  return { ...place, reason: `${named === undefined ? "" : `${named}: `}${said.message}` }
}

/** Of a value that fits none of several shapes: what is wrong with the part that came furthest. */
function innermost(issue: v.BaseIssue<unknown>): { path: KeyPath; said: v.BaseIssue<unknown> } {
  const path = pathOf(issue)
  const deepest = (issue.issues ?? []).toSorted((a, b) => pathOf(b).length - pathOf(a).length)[0]
  if (!deepest || pathOf(deepest).length === 0) return { path, said: issue }
  const inner = innermost(deepest)
  // The library's own words say less than ours for the whole value.
  const ours = deepest.type === "strict_object" || !/^Invalid /.test(inner.said.message)
  return { path: [...path, ...inner.path], said: ours ? inner.said : issue }
}

function pathOf(issue: v.BaseIssue<unknown>): KeyPath {
  return (issue.path ?? []).map((item) => item.key as string | number)
}

function first(problems: readonly Problem[]): Problem {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column)[0]!
}

function broken(file: string, { line, column, reason }: Problem, cause?: unknown): MvmError {
  return new MvmError("policy_broken", `${file}:${line}:${column}: ${reason}`, { hint: HINT, cause })
}
