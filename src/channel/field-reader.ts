/**
 * @module channel/field-reader
 *
 * The fields of a signed structure, checked one by one. Whoever signed it, no reader takes a value that its encoder
 * would not have made.
 */

import { fromUtf8, getU32be } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"

const MAX_WORD_BYTES = 64

/** Every check throws MvmError `protocol` that names structure and field. */
export class FieldReader {
  readonly #structure: string

  constructor(structure: string) {
    this.#structure = structure
  }

  /** A copy of exactly `lengthBytes` bytes. */
  fixed(bytes: Uint8Array, lengthBytes: number, field: string): Uint8Array {
    if (bytes.length !== lengthBytes) throw this.fault(field, `${bytes.length} bytes, not ${lengthBytes}`)
    return bytes.slice()
  }

  /** An unsigned integer that a JavaScript number holds exactly. */
  number(bytes: Uint8Array, field: string): number {
    if (bytes.length !== 8) throw this.fault(field, `${bytes.length} bytes, not 8`)
    const high = getU32be(bytes, 0)
    if (high >= 2 ** 21) throw this.fault(field, "too large")
    return high * 2 ** 32 + getU32be(bytes, 4)
  }

  /** Text a person may be shown: valid UTF-8 without control characters. */
  text(bytes: Uint8Array, maxBytes: number, field: string): string {
    if (bytes.length > maxBytes) throw this.fault(field, `${bytes.length} bytes, at most ${maxBytes}`)
    let value: string
    try {
      value = fromUtf8(bytes)
    } catch {
      throw this.fault(field, "not UTF-8")
    }
    if (/\p{Cc}/u.test(value)) throw this.fault(field, "a control character")
    return value
  }

  oneOf<const Value extends string>(bytes: Uint8Array, values: readonly Value[], field: string): Value {
    const value = this.text(bytes, MAX_WORD_BYTES, field)
    const found = values.find((known) => known === value)
    if (found === undefined) throw this.fault(field, "unknown value")
    return found
  }

  fault(field: string, problem: string): MvmError {
    return new MvmError("protocol", `${this.#structure}.${field}: ${problem}`)
  }
}
