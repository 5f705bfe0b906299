/**
 * @module mvm/reference/code
 *
 * Which files of an image a kernel with the measurement policy would put into its log: what can be executed, mapped
 * executable, loaded into the kernel, or is that policy itself.
 */

import { utf8 } from "../../lib/bytes.ts"

const ELF = utf8("\x7fELF")
const SCRIPT = utf8("#!")
const BY_PLACE = /\.ko(?:\.(?:gz|xz|zst))?$|^(?:\/usr)?\/lib\/firmware\/|^\/etc\/ima\//
const ANY_EXECUTE = 0o111

/** @param start the beginning of the content, four bytes at least where it has as many */
export function canBecomeCode(path: string, mode: number, start: Uint8Array): boolean {
  if ((mode & ANY_EXECUTE) !== 0 || BY_PLACE.test(path)) return true
  return startsWith(start, ELF) || startsWith(start, SCRIPT)
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.every((byte, i) => bytes[i] === byte)
}
