/**
 * @module mvm/vm/vm-name
 *
 * Which names a VM may have.
 */

import { MvmError } from "../../lib/errors.ts"
import { isName } from "../../wire/schema.ts"

/** Names that mean something else in policies and commands. */
const RESERVED_NAMES = new Set(["default", "any", "all"])

/** @throws MvmError `usage`. */
export function checkVmName(name: string): void {
  if (isName(name) && !RESERVED_NAMES.has(name)) return
  throw new MvmError("usage", `${name} cannot name a VM`, {
    hint: "use letters, digits, . _ -, at most 64, not beginning with . or -, and not default, any or all",
  })
}
