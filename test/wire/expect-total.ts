/**
 * @module test/wire/expect-total
 */

import { expect } from "bun:test"
import { MvmError } from "../../src/lib/errors.ts"
import { decodeMessage, encodeMessage, type Table } from "../../src/wire/table.ts"

/** `payload` from either of `sides` is refused with code "protocol", or is a message with exactly this encoding. */
export function expectTotal(table: Table, payload: Uint8Array, sides: readonly string[]): void {
  for (const side of sides) {
    const message = decoded(table, payload, side)
    if (message === undefined) continue
    expect(encodeMessage(table, message.name, message.requestId, message.fields)).toEqual(payload)
  }
}

function decoded(
  table: Table,
  payload: Uint8Array,
  side: string,
): ReturnType<typeof decodeMessage> | undefined {
  try {
    return decodeMessage(table, payload, side)
  } catch (error) {
    if (error instanceof MvmError && error.code === "protocol") return undefined
    throw error
  }
}
