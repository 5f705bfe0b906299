/**
 * @module wire/schema
 *
 * What a field of a message may hold, said once: the check, the TypeScript type ({@link Infer}), the documentation
 * ({@link describeField}) and the generator of the tests all come from the same value. Checks are strict: unknown
 * keys are refused, nothing is converted, and only checked copies come out.
 */

import { MvmError } from "../lib/errors.ts"
import { isFieldName } from "./msgpack.ts"

const UINT53_MAX = Number.MAX_SAFE_INTEGER
const MAX_NAME_BYTES = 64

/** A field's rule as data. Lengths are bytes; list lengths are elements. */
export type FieldSpec =
  | { readonly type: "bytes"; readonly min: number; readonly max: number }
  | { readonly type: "text"; readonly max: number }
  | { readonly type: "name"; readonly max: number }
  | { readonly type: "uint"; readonly max: number }
  | { readonly type: "bool" }
  | { readonly type: "oneOf"; readonly values: readonly string[] }
  | { readonly type: "list"; readonly of: AnyField; readonly max: number }
  | { readonly type: "struct"; readonly shape: Shape }

/** `check` returns a value of type `T`, or throws a {@link Refusal} that says where and why. */
export interface Field<T> {
  readonly spec: FieldSpec
  readonly isOptional: boolean
  check(value: unknown): T
}

export interface OptionalField<T> extends Field<T> {
  readonly isOptional: true
}

export interface RequiredField<T> extends Field<T> {
  readonly isOptional: false
}

export type AnyField = Field<unknown>
export type Shape = Readonly<Record<string, AnyField>>

/** The type of the values that a field admits. */
export type Infer<F> = F extends Field<infer T> ? T : never

type OptionalKeys<S extends Shape> = {
  [K in keyof S]: S[K] extends OptionalField<unknown> ? K : never
}[keyof S]

/** The type of the structure with these fields; an optional one is absent or undefined. */
export type InferShape<S extends Shape> = Flat<
  { readonly [K in Exclude<keyof S, OptionalKeys<S>>]: Infer<S[K]> } & {
    readonly [K in OptionalKeys<S>]?: Infer<S[K]> | undefined
  }
>

type Flat<T> = { [K in keyof T]: T[K] } & {}

/** A value that a field does not admit. Containers add to `path` on the way out; it never leaves this folder. */
export class Refusal extends Error {
  path = ""

  within(step: string): this {
    this.path = step + this.path
    return this
  }
}

/** Exactly `lengthBytes` bytes. */
export function bytes(lengthBytes: number): RequiredField<Uint8Array> {
  return required({ type: "bytes", min: lengthBytes, max: lengthBytes }, (value) => {
    if (value instanceof Uint8Array && value.length === lengthBytes) return value
    throw new Refusal(`expected ${lengthBytes} bytes, got ${describeValue(value)}`)
  })
}

/** Zero to `max` bytes. */
export function bytesUpTo(max: number): RequiredField<Uint8Array> {
  return required({ type: "bytes", min: 0, max }, (value) => {
    if (value instanceof Uint8Array && value.length <= max) return value
    throw new Refusal(`expected at most ${max} bytes, got ${describeValue(value)}`)
  })
}

/** Text of at most `max` bytes of UTF-8, without NUL. Line ends and control characters are admitted. */
export function text(max: number): RequiredField<string> {
  return required({ type: "text", max }, (value) => {
    if (typeof value !== "string") throw new Refusal(`expected text, got ${describeValue(value)}`)
    if (value.length > max || utf8Bytes(value) > max) throw new Refusal(`longer than ${max} bytes`)
    if (!isPlainText(value)) throw new Refusal("not plain UTF-8 text")
    return value
  })
}

/**
 * Whether `word` can name a VM or a service: letters, digits, `.`, `_` and `-`, beginning with none of `.` and `-`,
 * so that a name is neither a hidden file, a parent folder nor an option.
 */
export function isName(word: string, max = MAX_NAME_BYTES): boolean {
  return word.length <= max && /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(word)
}

/** The name of a VM or service, 1 to `max` (64) characters; see {@link isName}. */
export function name(max = MAX_NAME_BYTES): RequiredField<string> {
  return required({ type: "name", max }, (value) => {
    if (typeof value === "string" && isName(value, max)) return value
    throw new Refusal(`expected a name of 1 to ${max} characters out of A-Z a-z 0-9 . _ -`)
  })
}

export const u8: RequiredField<number> = uint(0xff)
export const u16: RequiredField<number> = uint(0xffff)
export const u32: RequiredField<number> = uint(0xffff_ffff)
/** An unsigned integer that a JavaScript number holds exactly. */
export const u53: RequiredField<number> = uint(UINT53_MAX)

export const bool: RequiredField<boolean> = required({ type: "bool" }, (value) => {
  if (typeof value === "boolean") return value
  throw new Refusal(`expected true or false, got ${describeValue(value)}`)
})

/** One of the given words. */
export function oneOf<const V extends string>(values: readonly V[]): RequiredField<V> {
  return required({ type: "oneOf", values }, (value) => {
    const found = values.find((word) => word === value)
    if (found !== undefined) return found
    throw new Refusal(`expected one of ${values.join(", ")}`)
  })
}

/** Zero to `max` elements. */
export function list<T>(of: RequiredField<T>, max: number): RequiredField<readonly T[]> {
  return required({ type: "list", of, max }, (value) => {
    if (!Array.isArray(value)) throw new Refusal(`expected a list, got ${describeValue(value)}`)
    if (value.length > max) throw new Refusal(`${value.length} elements, at most ${max}`)
    const out: T[] = []
    try {
      for (const item of value) out.push(of.check(item))
    } catch (error) {
      throw error instanceof Refusal ? error.within(`[${out.length}]`) : error
    }
    return out
  })
}

/** A field of a structure that may be left out. */
export function optional<T>(field: RequiredField<T>): OptionalField<T> {
  return { spec: field.spec, isOptional: true, check: field.check }
}

/** Exactly these fields; unknown ones are refused, those that are undefined count as left out. */
export function struct<const S extends Shape>(shape: S): RequiredField<InferShape<S>> {
  // In the order in which they are encoded.
  const entries = Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [key] of entries) {
    if (!isFieldName(key)) throw new TypeError(`"${key}" cannot name a field`)
  }
  return required({ type: "struct", shape }, (value) => {
    if (!isPlainObject(value)) throw new Refusal(`expected a structure, got ${describeValue(value)}`)
    return checkEntries(entries, value) as InferShape<S>
  })
}

/** One line about a field: "bytes(32)", "list(name(64), 16)", "{id: u32, note?: text(80)}". */
export function describeField(field: AnyField): string {
  const { spec } = field
  switch (spec.type) {
    case "bytes":
      return spec.min === spec.max ? `bytes(${spec.max})` : `bytesUpTo(${spec.max})`
    case "uint":
      return `u${Math.ceil(Math.log2(spec.max))}`
    case "oneOf":
      return spec.values.map((word) => `"${word}"`).join(" | ")
    case "list":
      return `list(${describeField(spec.of)}, ${spec.max})`
    case "struct":
      return `{${describeShape(spec.shape).join(", ")}}`
    case "bool":
      return "bool"
    default:
      return `${spec.type}(${spec.max})`
  }
}

/** "name: rule" of each field, "name?: rule" for an optional one. */
export function describeShape(shape: Shape): string[] {
  return Object.entries(shape).map(([key, of]) => `${key}${of.isOptional ? "?" : ""}: ${describeField(of)}`)
}

/** The value's checked copy. @throws MvmError `protocol` whose message begins with `where` and the path. */
export function checkField<T>(field: Field<T>, value: unknown, where: string): T {
  try {
    return field.check(value)
  } catch (error) {
    if (error instanceof Refusal) throw new MvmError("protocol", `${where}${error.path}: ${error.message}`)
    throw error
  }
}

function required<T>(spec: FieldSpec, check: (value: unknown) => T): RequiredField<T> {
  return { spec, isOptional: false, check }
}

function uint(max: number): RequiredField<number> {
  return required({ type: "uint", max }, (value) => {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= max) return value
    throw new Refusal(`expected an integer from 0 to ${max}`)
  })
}

function checkEntries(entries: readonly (readonly [string, AnyField])[], value: object): object {
  const source = value as Readonly<Record<string, unknown>>
  const out: Record<string, unknown> = {}
  let known = 0
  for (const [key, field] of entries) {
    const item = Object.hasOwn(source, key) ? source[key] : undefined
    if (item !== undefined) {
      out[key] = checkEntry(key, field, item)
      known++
    } else if (!field.isOptional) {
      throw new Refusal("missing").within(`.${key}`)
    } else if (Object.hasOwn(source, key)) {
      known++
    }
  }
  if (Object.keys(source).length !== known) throw unknownKey(entries, source)
  return out
}

function checkEntry(key: string, field: AnyField, item: unknown): unknown {
  try {
    return field.check(item)
  } catch (error) {
    throw error instanceof Refusal ? error.within(`.${key}`) : error
  }
}

function unknownKey(entries: readonly (readonly [string, AnyField])[], source: object): Refusal {
  const known = new Set(entries.map(([key]) => key))
  const unknown = Object.keys(source).find((key) => !known.has(key)) ?? ""
  return isFieldName(unknown)
    ? new Refusal("unknown field").within(`.${unknown}`)
    : new Refusal("unknown field")
}

function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

function isPlainText(value: string): boolean {
  return value.isWellFormed() && !value.includes("\0") && !value.startsWith("\ufeff")
}

function utf8Bytes(value: string): number {
  return Buffer.byteLength(value, "utf8")
}

/** The kind and size of a value, never its content. */
function describeValue(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`
  if (value === null || value === undefined) return "nothing"
  if (Array.isArray(value)) return "a list"
  return typeof value === "object" ? "a structure" : `a ${typeof value}`
}
