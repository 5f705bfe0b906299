/** @module cli/public-key */

import { createPublicKey } from "node:crypto"
import { fromHex } from "../lib/bytes.ts"
import { P256_PUBLIC_BYTES } from "../lib/crypto.ts"
import { MvmError } from "../lib/errors.ts"
import { readInput } from "./input.ts"

const HEX_POINT = /^04[0-9a-fA-F]{128}$/
const PEM_LABEL = "-----BEGIN PUBLIC KEY-----"

/** The 65-byte P-256 point of hex digits, or of a file with hex digits or PEM. @throws MvmError `usage` */
export function parsePublicKey(named: string): Uint8Array {
  const text = HEX_POINT.test(named) ? named : readInput(named).trim()
  if (HEX_POINT.test(text)) return fromHex(text)
  if (text.startsWith(PEM_LABEL)) {
    try {
      const spki = new Uint8Array(createPublicKey(text).export({ format: "der", type: "spki" }))
      const point = spki.slice(-P256_PUBLIC_BYTES)
      if (point.length === P256_PUBLIC_BYTES && point[0] === 4) return point
    } catch {
      // Said below.
    }
  }
  throw new MvmError("usage", "--key: no p-256 public key", {
    hint: "65 bytes in hex as mvm status --json shows them, or a file with these or PEM",
  })
}
