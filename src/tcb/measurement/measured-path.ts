/**
 * @module tcb/measurement/measured-path
 *
 * The one text form of a path in a measurement log. A file name is any bytes, and a hostile one may hold a line
 * feed, a terminal escape or bad UTF-8. The text form is printable and unambiguous: backslash, control characters,
 * Unicode format characters and bytes that are no UTF-8 are written as `\xHH` per byte. Reference files, messages
 * and tables all use it.
 *
 * IMA writes a space as an underscore, and so does {@link kernelPathText}, for paths that come from elsewhere.
 */

import { fromUtf8, utf8 } from "../../lib/bytes.ts"

const UNPRINTABLE = /[\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]/u
const ESCAPED = /^(?:[^\\]|\\x[0-9a-f]{2})*$/u

/** Raw path bytes to text form. Trust: any bytes. */
export function pathText(bytes: Uint8Array): string {
  try {
    const text = fromUtf8(bytes)
    if (!UNPRINTABLE.test(text)) return text
    let out = ""
    for (const character of text)
      out += UNPRINTABLE.test(character) ? escapeBytes(utf8(character)) : character
    return out
  } catch {
    let out = ""
    for (const byte of bytes) {
      out += byte > 0x20 && byte < 0x7f && byte !== 0x5c ? String.fromCharCode(byte) : escapeByte(byte)
    }
    return out
  }
}

/** The text form of a path of the file system, as IMA would have logged it. */
export function kernelPathText(path: string | Uint8Array): string {
  const bytes = typeof path === "string" ? utf8(path) : path
  return pathText(bytes.map((byte) => (byte === 0x20 ? 0x5f : byte)))
}

/** Whether `text` is in text form: printable, and every backslash starts `\xHH`. */
export function isPathText(text: string): boolean {
  if (text.length === 0 || !ESCAPED.test(text)) return false
  return !UNPRINTABLE.test(text.replaceAll("\\", ""))
}

function escapeBytes(bytes: Uint8Array): string {
  let out = ""
  for (const byte of bytes) out += escapeByte(byte)
  return out
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`
}
