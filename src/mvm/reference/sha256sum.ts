/**
 * @module mvm/reference/sha256sum
 *
 * Import from what sha256sum printed, in a tree of its own (`cd image && find . -type f -exec sha256sum {} +`):
 * `digest  path`, `digest *path`, or with a leading backslash and escapes where a name holds a line feed or a
 * backslash. A relative path is taken from the root of the VM.
 *
 * @spec GNU coreutils, "md5sum invocation"
 */

import { utf8 } from "../../lib/bytes.ts"
import { kernelPathText } from "../../tcb/measurement/measured-path.ts"
import { badLine, referenceLines } from "./file.ts"

const LINE = /^(\\?)([0-9A-Fa-f]{64}) [ *](.+)$/
const MAX_PATH_BYTES = 4096

/**
 * The files of a sha256sum listing, by path as IMA logs it.
 *
 * @throws MvmError `config` with the line and the reason, for the whole file.
 */
export function parseSha256sum(bytes: Uint8Array): Map<string, Set<string>> {
  const files = new Map<string, Set<string>>()
  for (const [index, line] of referenceLines(bytes).entries()) {
    const number = index + 1
    if (line === "") continue
    const match = LINE.exec(line)
    if (match === null) throw badLine(number, "`digest  path` as sha256sum prints it expected")
    const [, escaped, digest = "", name = ""] = match
    const raw = escaped === "" ? name : unescape(name, number)
    const path = kernelPathText(absolute(raw, number))
    if (utf8(raw).length > MAX_PATH_BYTES) throw badLine(number, `path: more than ${MAX_PATH_BYTES} bytes`)
    const digests = files.get(path) ?? new Set()
    files.set(path, digests.add(digest.toLowerCase()))
  }
  if (files.size === 0) throw badLine(1, "no file is named")
  return files
}

function unescape(name: string, number: number): string {
  return name.replace(/\\(.?)/g, (_, character: string) => {
    if (character === "n") return "\n"
    if (character === "r") return "\r"
    if (character === "\\") return "\\"
    throw badLine(number, `path: unknown escape ${JSON.stringify(`\\${character}`)}`)
  })
}

/** "./usr/bin/x", "usr/bin/x" and "/usr/bin/x" are one. */
function absolute(name: string, number: number): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.length === 0 || name.endsWith("/")) throw badLine(number, "path: names no file")
  if (parts.includes("..")) throw badLine(number, "path: leads upwards")
  return `/${parts.join("/")}`
}
