/**
 * @module lib/toml-document
 *
 * A TOML text against a strict schema, and where in the text it does not fit: somebody wrote it by hand, and needs
 * the line.
 */

import { parse as parseToml, TomlError } from "smol-toml"
import * as v from "valibot"
import { Places, type KeyPath, type Place } from "./toml-places.ts"

/** Configuration nests three deep; deeper is none of ours. */
const MAX_DEPTH = 8

export interface Problem extends Place {
  /** One line, lower case, no full stop. */
  readonly reason: string
}

/** What a document is, or what is wrong with it first. */
export type Read<T> =
  { readonly value: T; readonly places: Places } | { readonly problem: Problem; readonly cause?: unknown }

/** Tables of `schema` should be strict: a key that is not known is a mistake of whoever wrote it. */
export function readDocument<const S extends v.GenericSchema>(
  text: string,
  schema: S,
): Read<v.InferOutput<S>> {
  let value: unknown
  try {
    value = parseToml(text, {
      unsafeKeyBehaviour: "throw",
      maxDepth: MAX_DEPTH,
      integersAsBigInt: "asNeeded",
    })
  } catch (cause) {
    if (!(cause instanceof TomlError)) {
      return { problem: { line: 1, column: 1, reason: "cannot be read as TOML" }, cause }
    }
    // The library's message goes on with an excerpt of the file.
    const said = cause.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "")
    return { problem: { line: cause.line, column: cause.column, reason: said }, cause }
  }
  const places = new Places(text)
  const result = v.safeParse(schema, value)
  if (result.success) return { value: result.output, places }
  return { problem: firstProblem(result.issues.map((issue) => problemOf(issue, places))) }
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

/** The one that stands first in the text. */
export function firstProblem(problems: readonly Problem[]): Problem {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column)[0]!
}
