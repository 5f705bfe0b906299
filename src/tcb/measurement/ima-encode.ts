/**
 * @module tcb/measurement/ima-encode
 *
 * Entries of the kernel's binary log, for whoever keeps a log where no kernel does: the agent of a local endpoint,
 * and tests.
 *
 * @spec Linux security/integrity/ima/ima_fs.c (ima_measurements_show), ima_template_lib.c
 */

import { concat, utf8 } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { IMA_PCR } from "./quote.ts"
import { MAX_PATH_BYTES, VIOLATION_EXTEND, templateDigestSha1 } from "./ima-log.ts"

export interface ImaEntryFields {
  /** At most 4096 bytes of UTF-8, no NUL. The kernel's templates write a space as an underscore; so does this. */
  readonly path: string
  /** 32 bytes */
  readonly sha256: Uint8Array
  readonly template?: "ima-ng" | "ima-sig"
  /** A violation: zero digests in the log, all ones into the PCR. `sha256` is ignored. */
  readonly violation?: boolean
}

export interface EncodedImaEntry {
  /** The whole entry, as appended to the log. */
  readonly bytes: Uint8Array
  /** 32 bytes: what PCR 10 is extended with. */
  readonly extendDigest: Uint8Array
}

/** @throws RangeError for a path or digest the format cannot hold. */
export function encodeImaEntry(fields: ImaEntryFields): EncodedImaEntry {
  const { violation = false, template = "ima-sig" } = fields
  const path = utf8(fields.path.replaceAll(" ", "_"))
  if (path.length === 0 || path.length > MAX_PATH_BYTES || path.includes(0)) {
    throw new RangeError("ima entry: path empty, too long or with NUL")
  }
  if (fields.sha256.length !== 32) throw new RangeError("ima entry: sha256 has 32 bytes")
  const digest = violation ? new Uint8Array(32) : fields.sha256
  const data = concat(
    field(concat(utf8("sha256:\0"), digest)),
    field(concat(path, new Uint8Array(1))),
    template === "ima-sig" ? field(new Uint8Array(0)) : new Uint8Array(0),
  )
  const templateDigest = violation ? new Uint8Array(20) : templateDigestSha1(data)
  return {
    bytes: concat(u32le(IMA_PCR), templateDigest, field(utf8(template)), field(data)),
    extendDigest: violation ? VIOLATION_EXTEND.slice() : sha256(data),
  }
}

/** `u32 length, bytes` */
function field(bytes: Uint8Array): Uint8Array {
  return concat(u32le(bytes.length), bytes)
}

function u32le(value: number): Uint8Array {
  const out = new Uint8Array(4)
  new DataView(out.buffer).setUint32(0, value, true)
  return out
}
