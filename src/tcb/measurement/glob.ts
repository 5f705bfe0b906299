/**
 * @module tcb/measurement/glob
 *
 * Path globs: `?` one character and `*` any run, neither crossing a slash; `**` any run at all. Matching takes time
 * proportional to pattern times path whatever the path is, since the path comes from a guest.
 */

import { MvmError } from "../../lib/errors.ts"

const MAX_GLOB_LENGTH = 512

type Token = { readonly kind: "literal"; readonly text: string } | { readonly kind: "one" | "run" | "any" }

export type PathMatcher = (path: string) => boolean

/** A matcher for whole paths. @throws MvmError `config` for an empty or over-long pattern. */
export function compileGlob(pattern: string): PathMatcher {
  if (pattern.length === 0 || pattern.length > MAX_GLOB_LENGTH) {
    throw new MvmError("config", `glob: ${pattern.length} characters, 1 to ${MAX_GLOB_LENGTH} expected`)
  }
  const tokens = tokenize(pattern)
  return (path) => matches(tokens, path)
}

/** Whether any of `patterns` matches. */
export function compileGlobs(patterns: readonly string[]): PathMatcher {
  const matchers = patterns.map(compileGlob)
  return (path) => matchers.some((matcher) => matcher(path))
}

function tokenize(pattern: string): Token[] {
  const tokens: Token[] = []
  for (const part of pattern.match(/\*\*|[*?]|[^*?]/gu) ?? []) {
    if (part === "**") tokens.push({ kind: "any" })
    else if (part === "*") tokens.push({ kind: "run" })
    else if (part === "?") tokens.push({ kind: "one" })
    else tokens.push({ kind: "literal", text: part })
  }
  return tokens
}

/** All positions in the pattern that are reachable, character by character. */
function matches(tokens: readonly Token[], path: string): boolean {
  let states = new Uint8Array(tokens.length + 1)
  let next = new Uint8Array(tokens.length + 1)
  states[0] = 1
  skipRuns(tokens, states)
  for (const character of path) {
    next.fill(0)
    let alive = false
    for (let i = 0; i < tokens.length; i += 1) {
      if (states[i] === 0) continue
      const token = tokens[i]!
      if (token.kind === "any" || (token.kind === "run" && character !== "/")) next[i] = 1
      else if (token.kind === "literal" && token.text === character) next[i + 1] = 1
      else if (token.kind === "one" && character !== "/") next[i + 1] = 1
      else continue
      alive = true
    }
    if (!alive) return false
    skipRuns(tokens, next)
    ;[states, next] = [next, states]
  }
  return states[tokens.length] === 1
}

/** A run may be empty. */
function skipRuns(tokens: readonly Token[], states: Uint8Array): void {
  for (let i = 0; i < tokens.length; i += 1) {
    const kind = tokens[i]!.kind
    if (states[i] === 1 && (kind === "run" || kind === "any")) states[i + 1] = 1
  }
}
