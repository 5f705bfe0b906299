/**
 * @module tcb/measurement/authenticode
 *
 * The digest UEFI firmware takes of an application, such as a Linux kernel with its EFI stub: SHA-256 over a PE/COFF
 * image without its checksum, its certificate table entry and its certificates.
 *
 * @spec Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash";
 *   Microsoft PE/COFF specification; EDK2 DxeTpm2MeasureBootLib
 */

import { Sha256 } from "../../lib/crypto.ts"
import { MvmError } from "../../lib/errors.ts"

// Specification.
const MZ = 0x5a4d
const PE_SIGNATURE = 0x00004550
const PE32 = 0x10b
const PE32_PLUS = 0x20b
const COFF_HEADER_BYTES = 20
const SECTION_HEADER_BYTES = 40
const CHECKSUM_AT = 64
const CERTIFICATE_TABLE = 4

/**
 * 32-byte Authenticode SHA-256 of a PE image.
 *
 * @throws MvmError `config` when `image` is no PE image (a kernel without EFI stub, say).
 */
export function authenticodeSha256(image: Uint8Array): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const need = (at: number, lengthBytes: number): number => {
    if (at + lengthBytes > image.length) throw notPe("ends within its headers")
    return at
  }
  if (view.getUint16(need(0, 64), true) !== MZ) throw notPe("no mz header")
  const pe = view.getUint32(0x3c, true)
  if (view.getUint32(need(pe, 4 + COFF_HEADER_BYTES), true) !== PE_SIGNATURE) throw notPe("no pe signature")
  const sectionCount = view.getUint16(pe + 6, true)
  const optional = pe + 4 + COFF_HEADER_BYTES
  const optionalBytes = view.getUint16(pe + 20, true)
  need(optional, Math.max(optionalBytes, 2))
  const magic = view.getUint16(optional, true)
  if (magic !== PE32 && magic !== PE32_PLUS) throw notPe(`optional header magic 0x${magic.toString(16)}`)
  const directories = optional + (magic === PE32 ? 96 : 112)
  if (directories > optional + optionalBytes) throw notPe("optional header too short")
  const directoryCount = view.getUint32(directories - 4, true)
  const sizeOfHeaders = view.getUint32(optional + 60, true)
  need(0, sizeOfHeaders)
  const sectionTable = optional + optionalBytes
  need(sectionTable, sectionCount * SECTION_HEADER_BYTES)

  const hash = new Sha256()
  const checksum = optional + CHECKSUM_AT
  hash.update(image.subarray(0, checksum))
  let certificateBytes = 0
  let at = checksum + 4
  if (directoryCount > CERTIFICATE_TABLE) {
    const entry = directories + 8 * CERTIFICATE_TABLE
    if (entry + 8 > sectionTable) throw notPe("optional header too short")
    certificateBytes = view.getUint32(entry + 4, true)
    hash.update(image.subarray(at, entry))
    at = entry + 8
  }
  if (sizeOfHeaders < at) throw notPe("headers end within the optional header")
  hash.update(image.subarray(at, sizeOfHeaders))

  const sections: { pointer: number; size: number }[] = []
  for (let i = 0; i < sectionCount; i += 1) {
    const header = sectionTable + i * SECTION_HEADER_BYTES
    const size = view.getUint32(header + 16, true)
    const pointer = view.getUint32(header + 20, true)
    if (size > 0) sections.push({ pointer, size })
  }
  sections.sort((a, b) => a.pointer - b.pointer)
  let hashedBytes = sizeOfHeaders
  for (const { pointer, size } of sections) {
    if (pointer + size > image.length) throw notPe("a section ends outside the file")
    hash.update(image.subarray(pointer, pointer + size))
    hashedBytes += size
  }
  if (hashedBytes + certificateBytes > image.length) throw notPe("sections overlap")
  hash.update(image.subarray(hashedBytes, image.length - certificateBytes))
  return hash.digest()
}

function notPe(problem: string): MvmError {
  return new MvmError("config", `kernel: not an efi application, ${problem}`, {
    hint: "ovmf needs a kernel with an efi stub (CONFIG_EFI_STUB)",
  })
}
