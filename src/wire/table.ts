/**
 * @module wire/table
 *
 * A protocol as one table: each row says a message's id, who sends it, since which version, its greatest size and
 * its fields. Codec, types, documentation and test generators derive from it; no message is described anywhere
 * else.
 *
 * A message is the canonical MessagePack array `[id, request id, {fields}]` (see {@link module:wire/msgpack}).
 */

import { MvmError } from "../lib/errors.ts"
import { decodeStrict, encodeStrict } from "./msgpack.ts"
import { checkField, describeShape, struct, type Field, type InferShape, type Shape } from "./schema.ts"

const ARRAY_OF_3 = 0x93
const UINT8 = 0xcc
const UINT32_MAX = 0xffff_ffff

/** `from` is the side that may send the message; the word "both" admits either. */
export interface RowSpec<Side extends string = string, S extends Shape = Shape> {
  /** 0 to 255, unique in the table, never given to another message later. */
  readonly id: number
  readonly from: Side
  /** The protocol version that introduced the message. */
  readonly since: number
  /** Greatest length of the encoded message in bytes. */
  readonly maxBytes: number
  readonly fields: S
  /** One line for the documentation. */
  readonly purpose?: string
}

export interface Row<Side extends string = string, S extends Shape = Shape> extends RowSpec<Side, S> {
  readonly body: Field<InferShape<S>>
}

/** Any row; the fields of its body are not known. */
type AnyRow = Omit<Row, "body"> & { readonly body: Field<unknown> }
type Rows = Readonly<Record<string, AnyRow>>

export interface Table<R extends Rows = Rows> {
  readonly rows: R
  readonly byId: ReadonlyMap<number, readonly [name: string, row: AnyRow]>
}

type RowsOf<T> = T extends Table<infer R> ? R : never

/** Names of the messages in `T`, of those alone that `Side` may send if it is given. */
export type MessageName<T, Side extends string = string> = {
  [N in keyof RowsOf<T>]: RowsOf<T>[N] extends { readonly from: infer F extends string }
    ? string extends Side
      ? N
      : F extends Side | "both"
        ? N
        : never
    : never
}[keyof RowsOf<T>] &
  string

/** The fields of message `N` of table `T`. */
export type FieldsOf<T, N extends keyof RowsOf<T>> = RowsOf<T>[N] extends {
  readonly body: Field<infer B>
}
  ? B
  : never

/** A decoded message: a union told apart by `name`. */
export type Message<T, Side extends string = string> = {
  [N in MessageName<T, Side>]: {
    readonly name: N
    readonly requestId: number
    readonly fields: FieldsOf<T, N>
  }
}[MessageName<T, Side>]

export interface RowDescription {
  readonly id: number
  readonly name: string
  readonly from: string
  readonly since: number
  readonly maxBytes: number
  readonly purpose: string
  /** "name: rule" each, "name?: rule" for an optional field. */
  readonly fields: readonly string[]
}

/** A row of {@link defineTable}. */
export function row<const Side extends string, const S extends Shape>(spec: RowSpec<Side, S>): Row<Side, S> {
  return { ...spec, body: struct(spec.fields) }
}

/** @throws TypeError for an id that is used twice or does not fit a byte. */
export function defineTable<const R extends Rows>(rows: R): Table<R> {
  const byId = new Map<number, readonly [string, AnyRow]>()
  for (const [name, spec] of Object.entries(rows)) {
    if (!Number.isInteger(spec.id) || spec.id < 0 || spec.id > 0xff)
      throw new TypeError(`${name}: id ${spec.id}`)
    const taken = byId.get(spec.id)
    if (taken !== undefined) throw new TypeError(`${name}: id ${spec.id} belongs to ${taken[0]}`)
    byId.set(spec.id, [name, spec])
  }
  return { rows, byId }
}

/**
 * The payload of one message. `requestId` is an unsigned 32-bit number. The fields are checked as those of a
 * received message are.
 *
 * @throws MvmError `protocol` naming message and field.
 */
export function encodeMessage<T extends Table, N extends MessageName<T>>(
  table: T,
  name: N,
  requestId: number,
  fields: FieldsOf<T, N>,
): Uint8Array {
  const spec = table.rows[name]
  if (spec === undefined) throw new MvmError("protocol", `unknown message ${name}`)
  checkRequestId(name, requestId)
  const payload = encodeStrict([spec.id, requestId, checkField(spec.body, fields, name)])
  checkSize(name, spec, payload.length)
  return payload
}

/**
 * The message in `payload`, sent by side `from`.
 *
 * Trust: `payload` is hostile. The id, the sender and the size are checked before anything is decoded.
 *
 * @throws MvmError `protocol` naming message and field.
 */
export function decodeMessage<T extends Table, const Side extends string>(
  table: T,
  payload: Uint8Array,
  from: Side,
): Message<T, Side> {
  const [name, spec] = findRow(table, payload)
  if (spec.from !== from && spec.from !== "both") throw refused(name, `not a message of the ${from} side`)
  checkSize(name, spec, payload.length)
  const [, requestId, fields] = decodeEnvelope(name, payload)
  checkRequestId(name, requestId)
  return { name, requestId, fields: checkField(spec.body, fields, name) } as Message<T, Side>
}

/** The rows in the order of their ids, for the documentation. */
export function describeTable(table: Table): RowDescription[] {
  return [...table.byId.values()]
    .map(([name, { id, from, since, maxBytes, purpose = "", fields }]) => {
      return { id, name, from, since, maxBytes, purpose, fields: describeShape(fields) }
    })
    .sort((a, b) => a.id - b.id)
}

/** Reads the id from the first bytes, which in the canonical encoding can only be where they are. */
function findRow(table: Table, payload: Uint8Array): readonly [string, AnyRow] {
  const first = payload[1] ?? UINT8
  const id = first < 0x80 ? first : first === UINT8 ? payload[2] : undefined
  if (payload[0] !== ARRAY_OF_3 || id === undefined) throw new MvmError("protocol", "not a message")
  const found = table.byId.get(id)
  if (found === undefined) throw new MvmError("protocol", `unknown message id ${id}`)
  return found
}

function decodeEnvelope(name: string, payload: Uint8Array): readonly [unknown, unknown, unknown] {
  try {
    return decodeStrict(payload) as [unknown, unknown, unknown]
  } catch (cause) {
    if (cause instanceof MvmError) throw new MvmError(cause.code, `${name}: ${cause.message}`, { cause })
    throw cause
  }
}

function checkRequestId(name: string, requestId: unknown): asserts requestId is number {
  const valid = typeof requestId === "number" && Number.isInteger(requestId) && requestId >= 0
  if (!valid || requestId > UINT32_MAX) throw refused(name, "request id is no unsigned 32-bit number")
}

function checkSize(name: string, spec: AnyRow, lengthBytes: number): void {
  if (lengthBytes > spec.maxBytes) throw refused(name, `${lengthBytes} bytes, at most ${spec.maxBytes}`)
}

function refused(name: string, problem: string): MvmError {
  return new MvmError("protocol", `${name}: ${problem}`)
}
