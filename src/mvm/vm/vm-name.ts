/**
 * @module mvm/vm/vm-name
 *
 * Which names a VM may have.
 */

import { MvmError } from "../../lib/errors.ts"
import { isName } from "../../wire/schema.ts"

/** Names that mean something else in policies and commands. */
const RESERVED_NAMES = new Set(["default", "any", "all"])

/** The host's own endpoint, which the MVM makes itself. */
export const HOST_NAME = "host"

/** What an operator may call a VM. @throws MvmError `usage`. */
export function checkFreeName(name: string): void {
  checkVmName(name)
  if (name !== HOST_NAME) return
  throw new MvmError("usage", `${HOST_NAME} is the host's own name`, {
    hint: `mvm vm start ${HOST_NAME} makes its endpoint and starts it`,
  })
}

/** @throws MvmError `usage`. */
export function checkVmName(name: string): void {
  if (isName(name) && !RESERVED_NAMES.has(name)) return
  throw new MvmError("usage", `${name} cannot name a VM`, {
    hint: "use letters, digits, . _ -, at most 64, not beginning with . or -, and not default, any or all",
  })
}
