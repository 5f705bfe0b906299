/**
 * @module mvm/policy/policy-schema
 *
 * The shape of a policy document. Every table is strict: a key that is not listed here is an error, because a
 * mistyped `programs` that was ignored would allow more than the operator wrote.
 */

import * as v from "valibot"
import { isName } from "../../wire/schema.ts"
import { parsePattern } from "./pattern.ts"
import { parseSize } from "./size.ts"

const MAX_RULES = 4096
const MAX_LIST = 256
const MAX_COMMENT = 200

const NAME = "expected a name out of A-Z a-z 0-9 . _ -, at most 64 characters"
const VM = 'expected a VM name, a glob, "@any" or "tag:NAME"'
const SERVICE = 'expected a service name, a glob or "@any"'

/** A value or a list of them, always a list afterwards. */
function oneOrMore<const S extends v.GenericSchema>(item: S, message: string) {
  return v.pipe(
    v.union(
      [
        v.pipe(
          item,
          v.transform((value) => [value]),
        ),
        v.pipe(v.array(item), v.minLength(1, message), v.maxLength(MAX_LIST, `at most ${MAX_LIST} values`)),
      ],
      message,
    ),
    v.transform((value) => value as v.InferOutput<S>[]),
  )
}

function pattern(of: "vm" | "service", message: string) {
  const item = v.pipe(
    v.string(),
    v.check((text) => parsePattern(text, of) !== undefined),
    v.transform((text) => parsePattern(text, of)!),
  )
  return oneOrMore(item, message)
}

function count(what: string) {
  const message = `expected a whole number of ${what}, at least 1`
  return v.pipe(v.number(message), v.safeInteger(message), v.minValue(1, message))
}

const DIGEST = "expected sha256 as 64 hex digits"
const PATH = "expected an absolute path, or { path, digest }"
const path = v.pipe(v.string(PATH), v.startsWith("/", PATH), v.maxLength(1024, PATH))
const digest = v.pipe(
  v.string(DIGEST),
  v.regex(/^(sha256:)?[0-9a-fA-F]{64}$/, DIGEST),
  v.transform((text) => text.replace("sha256:", "").toLowerCase()),
)
const program = v.union(
  [
    v.pipe(
      path,
      v.transform((text) => ({ path: text, digest: undefined as string | undefined })),
    ),
    v.strictObject({ path, digest: v.optional(digest) }),
  ],
  PATH,
)

/** What a rule may demand, and what `[settings]` may set for every rule that does not. */
const demands = {
  isolation: v.optional(v.picklist(["arena", "dedicated"], 'expected "arena" or "dedicated"')),
  transport: v.optional(v.picklist(["memory", "any"], 'expected "memory" or "any"')),
  digest: v.optional(v.picklist(["records", "sha256"], 'expected "records" or "sha256"')),
  measurement: v.optional(
    oneOrMore(v.picklist(["kernel", "agent"]), 'expected "kernel", "agent" or a list of them'),
  ),
  max_bytes: v.optional(
    v.pipe(
      v.custom<string | number>(
        (value) => parseSize(value) !== undefined,
        'expected a size such as "10 GiB"',
      ),
      v.transform((value) => parseSize(value)!),
    ),
  ),
  max_seconds: v.optional(count("seconds")),
  max_channels: v.optional(count("channels")),
  deposit: v.optional(v.boolean("expected true or false")),
}
export const DEMANDS = Object.keys(demands) as (keyof typeof demands)[]

const name = v.custom<string>((value) => typeof value === "string" && isName(value), NAME)

export const rule = v.strictObject({
  service: pattern("service", SERVICE),
  from: pattern("vm", VM),
  to: pattern("vm", VM),
  action: v.picklist(["allow", "deny"], 'expected "allow" or "deny"'),
  target: v.optional(name),
  programs: v.optional(
    v.pipe(
      v.array(program, "expected a list of programs"),
      v.minLength(1, "expected at least one program"),
      v.maxLength(MAX_LIST, `at most ${MAX_LIST} programs`),
    ),
  ),
  comment: v.optional(
    v.pipe(
      v.string("expected text"),
      v.maxLength(MAX_COMMENT, `at most ${MAX_COMMENT} characters`),
      v.regex(/^[^\p{Cc}]*$/u, "expected one line of text"),
    ),
  ),
  ...demands,
})

export const document = v.strictObject({
  settings: v.optional(v.strictObject(demands, "expected a table")),
  tags: v.optional(
    v.record(name, v.array(name, "expected a list of VM names"), "expected a table of tag = [VM names]"),
  ),
  rule: v.optional(
    v.pipe(v.array(rule, "expected [[rule]] tables"), v.maxLength(MAX_RULES, `at most ${MAX_RULES} rules`)),
  ),
})

export type PolicyDocument = v.InferOutput<typeof document>
export type RuleDocument = v.InferOutput<typeof rule>
