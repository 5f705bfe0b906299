/**
 * @module guest/copy/names
 *
 * Which names, paths and link texts a copy takes. A name is one component and goes to calls that take nothing else;
 * what no honest sender can have read from its file system ends the copy, what is only not wanted here is refused by
 * itself.
 */

import { concat, toHex, utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"

/** Folders below the target folder. Each open one costs a descriptor at either end. */
export const MAX_DEPTH = 200

/** Of a path below the target folder. */
export const MAX_PATH_BYTES = 4095

const SLASH = 0x2f
const SEPARATOR = Uint8Array.of(SLASH)
const DOT = 0x2e
const DELETE = 0x7f
const PARTIAL_PREFIX = ".mvm-part-"
const PARTIAL_HEX = 32

/** Which symbolic links a receiver makes: those that cannot lead out of the target folder, or any. */
export type LinkPolicy = "inside" | "all"

/**
 * Trust: a peer's. @throws MvmError `protocol` for what is no name at all, `refused` for one that is not taken here.
 */
export function checkName(name: Uint8Array): void {
  if (name.length === 0 || name.includes(SLASH) || name.includes(0) || isDots(name)) {
    throw new MvmError("protocol", "a name that is none")
  }
  if (hasControls(name)) throw new MvmError("refused", "names with control characters are not taken")
  if (isPartialName(name)) throw new MvmError("refused", "this name is kept for files that are not whole yet")
}

/**
 * The components of a path that a peer or a person asked for, relative to a folder that is shown to them. `.` and
 * doubled slashes vanish.
 *
 * Trust: a peer's. @throws MvmError `refused` for an absolute path and for `..`
 */
export function componentsOf(path: Uint8Array): Uint8Array[] {
  if (path[0] === SLASH) {
    throw new MvmError("refused", `${shown(path)} is absolute: a path begins at the folder that is served`)
  }
  const components: Uint8Array[] = []
  for (const name of split(path)) {
    if (name.length === 0 || (name.length === 1 && name[0] === DOT)) continue
    if (isDots(name)) throw new MvmError("refused", `${shown(path)} leads out of the folder that is served`)
    if (name.length > 255 || components.length >= MAX_DEPTH) {
      throw new MvmError("refused", `${shown(path)} is too long or too deep`)
    }
    checkName(name)
    components.push(name)
  }
  return components
}

/** Whether a path means what is in a folder and not the folder: it ends in `.`, or says nothing. */
export function meansContents(path: Uint8Array): boolean {
  const last = split(path).at(-1)
  return path.length === 0 || (last?.length === 1 && last[0] === DOT)
}

/**
 * Looks at the text of a symbolic link that is to lie `depth` folders below the target folder. With `inside`, only
 * leading `..` climb, and no further than the target folder: one that follows a name could climb from wherever
 * another link of the tree leads.
 *
 * Trust: a peer's. @throws MvmError `protocol`, `refused`
 */
export function checkLinkText(text: Uint8Array, depth: number, policy: LinkPolicy): void {
  if (text.length === 0 || text.includes(0)) throw new MvmError("protocol", "a link text that is none")
  if (hasControls(text)) throw new MvmError("refused", "links with control characters are not taken")
  if (policy === "all") return
  const outward = new MvmError("refused", `the link leads out of the target folder, to ${shown(text)}`)
  if (text[0] === SLASH) throw outward
  let climbed = 0
  let hasName = false
  for (const component of split(text)) {
    if (component.length === 2 && isDots(component)) {
      climbed += 1
      if (hasName || climbed > depth) throw outward
    } else if (component.length > 0 && !isDots(component)) {
      hasName = true
    }
  }
}

/**
 * Where the content of `name` is gathered until it is whole: hidden, in the same folder, the same at each try.
 *
 * @param owner whose it is alone, where senders must not learn what others left there
 */
export function partialNameOf(name: Uint8Array, owner?: Uint8Array): Uint8Array {
  // A separator that no name has.
  const whole = owner === undefined ? name : concat(name, SEPARATOR, owner)
  return utf8(PARTIAL_PREFIX + toHex(sha256(whole)).slice(0, PARTIAL_HEX))
}

export function isPartialName(name: Uint8Array): boolean {
  if (name.length !== PARTIAL_PREFIX.length + PARTIAL_HEX) return false
  return /^\.mvm-part-[0-9a-f]{32}$/.test(Buffer.from(name).toString("latin1"))
}

/** `folder/name`; the empty folder is the target itself. */
export function joinPath(folder: Uint8Array, name: Uint8Array): Uint8Array {
  return folder.length === 0 ? name : concat(folder, SEPARATOR, name)
}

/** For people: what is no UTF-8 is shown as such, and control characters are the terminal's guard's business. */
export function shown(path: Uint8Array): string {
  return new TextDecoder().decode(path)
}

function isDots(name: Uint8Array): boolean {
  return name.length <= 2 && name.every((byte) => byte === DOT)
}

/** C0 and DEL, and in a name that is UTF-8 the C1 controls: a terminal obeys either. */
function hasControls(name: Uint8Array): boolean {
  if (name.some((byte) => byte < 0x20 || byte === DELETE)) return true
  // oxlint-disable-next-line no-control-regex
  return /[\u0080-\u009f]/.test(shown(name))
}

function split(path: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = []
  let from = 0
  for (let at = 0; at <= path.length; at += 1) {
    if (at < path.length && path[at] !== SLASH) continue
    parts.push(path.subarray(from, at))
    from = at + 1
  }
  return parts
}
