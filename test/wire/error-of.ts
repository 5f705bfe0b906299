/**
 * @module test/wire/error-of
 */

import { MvmError } from "../../src/lib/errors.ts"

/** The `MvmError` that `act` throws. Anything else it does fails the test. */
export function errorOf(act: () => unknown): MvmError {
  try {
    act()
  } catch (error) {
    if (error instanceof MvmError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}
