/**
 * @module mvm/policy/pattern
 *
 * What a rule may say in place of a name: a name, a glob (`*` any run, `?` one character), `@any`, `tag:NAME`.
 * Matching takes time bounded by the product of both lengths, whatever the glob.
 */

import { isName } from "../../wire/schema.ts"

export type Pattern =
  | { readonly kind: "any"; readonly text: string }
  | { readonly kind: "name"; readonly text: string }
  | { readonly kind: "glob"; readonly text: string }
  | { readonly kind: "tag"; readonly text: string; readonly tag: string }

const MAX_PATTERN = 128
const TAG_PREFIX = "tag:"

/** The pattern `text` stands for, or undefined when it is none. A service has no tags. */
export function parsePattern(text: string, of: "vm" | "service"): Pattern | undefined {
  if (text.length > MAX_PATTERN) return undefined
  if (text === "@any" || text === "*") return { kind: "any", text }
  if (of === "vm" && text.startsWith(TAG_PREFIX)) {
    const tag = text.slice(TAG_PREFIX.length)
    return isName(tag) ? { kind: "tag", text, tag } : undefined
  }
  if (/[*?]/.test(text)) return /^[A-Za-z0-9._*?-]+$/.test(text) ? { kind: "glob", text } : undefined
  return isName(text) ? { kind: "name", text } : undefined
}

export function matches(pattern: Pattern, name: string, tags: ReadonlySet<string>): boolean {
  switch (pattern.kind) {
    case "any":
      return true
    case "name":
      return pattern.text === name
    case "glob":
      return matchGlob(pattern.text, name)
    case "tag":
      return tags.has(pattern.tag)
  }
}

/** Whether `wide` surely matches everything `narrow` matches. False where it cannot be said without the VMs. */
export function covers(wide: Pattern, narrow: Pattern): boolean {
  if (wide.kind === "any" || wide.text === narrow.text) return true
  if (wide.kind !== "glob" || (narrow.kind !== "name" && narrow.kind !== "glob")) return false
  return matchGlob(wide.text, narrow.text, true)
}

/**
 * Whether `glob` matches the whole of `text`. With `textIsGlob`, `text` is a glob too and the answer is yes only
 * if every name it matches is matched: its `*` must then meet a `*`.
 */
export function matchGlob(glob: string, text: string, textIsGlob = false): boolean {
  let at = 0
  let here = 0
  let star = -1
  let resume = 0
  while (here < text.length) {
    const want = glob[at]
    const have = text[here]!
    if (want === "*") {
      star = at++
      resume = here
    } else if (want === "?" ? !(textIsGlob && have === "*") : want === have) {
      at++
      here++
    } else if (star >= 0) {
      at = star + 1
      here = ++resume
    } else {
      return false
    }
  }
  while (glob[at] === "*") at++
  return at === glob.length
}
