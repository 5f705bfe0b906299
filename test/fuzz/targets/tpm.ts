/**
 * @module test/fuzz/targets/tpm
 *
 * What a TPM answers, and what a guest says a TPM answered.
 */

import { fromHex } from "../../../src/lib/bytes.ts"
import { decodeClockInfo, parseQuote } from "../../../src/tpm/attest.ts"
import { decodeResponse } from "../../../src/tpm/command.ts"
import { decodeNvPublic } from "../../../src/tpm/nv-public.ts"
import { decodeDigests, decodePcrSelection } from "../../../src/tpm/pcr-selection.ts"
import { decodePublic, publicPoint } from "../../../src/tpm/public.ts"
import { decodeResponseCode } from "../../../src/tpm/response-code.ts"
import { decodeSignature } from "../../../src/tpm/signature.ts"
import { responseLength } from "../../../src/tpm/transport.ts"
import { RESPONSES, response } from "../../tpm/golden-responses.ts"
import * as golden from "../../tpm/golden.ts"
import { promise, type Target } from "../target.ts"

const structures: Readonly<Record<string, { seed: string; decode: (bytes: Uint8Array) => unknown }>> = {
  TPMS_ATTEST: { seed: golden.ATTEST, decode: parseQuote },
  TPMT_SIGNATURE: { seed: golden.SIGNATURE, decode: decodeSignature },
  TPMT_PUBLIC: { seed: golden.ATTESTATION_PUBLIC, decode: (bytes) => publicPoint(decodePublic(bytes)) },
  TPMS_NV_PUBLIC: { seed: golden.NV_PUBLIC, decode: decodeNvPublic },
  TPML_PCR_SELECTION: { seed: golden.SELECTION, decode: decodePcrSelection },
  TPML_DIGEST: { seed: golden.DIGESTS, decode: decodeDigests },
  TPMS_CLOCK_INFO: { seed: golden.CLOCK_INFO, decode: decodeClockInfo },
}

const structureTargets = Object.entries(structures).map(([name, { seed, decode }]): Target => ({
  name: `tpm.${name}`,
  seeds: () => [fromHex(seed)],
  run: (input) => {
    const value = decode(input)
    promise(value !== undefined, "nothing was decoded")
    return "decoded"
  },
}))

/** The size in the header set right three times in four, so that what is inside is what is looked at. */
function sized(input: Uint8Array): Uint8Array {
  if (input.length < 10 || (input[9]! & 3) === 3) return input
  const out = input.slice()
  new DataView(out.buffer).setUint32(2, out.length)
  if ((out[9]! & 3) !== 2) out.fill(0, 6, 10)
  return out
}

const responseTargets = RESPONSES.map((entry): Target => ({
  name: `tpm.${entry.command.name.replace("TPM2_", "")}`,
  seeds: () => [response(entry)],
  run: (input) => {
    decodeResponse(entry.command, sized(input))
    return "decoded"
  },
}))

const header: Target = {
  name: "tpm.response-header",
  seeds: () => [fromHex("80010000000a00000101")],
  run: (input) => {
    if (input.length >= 4) {
      const code = decodeResponseCode(new DataView(input.buffer, input.byteOffset).getUint32(0))
      promise(code.name.length > 0, "a response code without a name")
    }
    const length = responseLength(input)
    promise(length >= 10 && length <= 4096, `a response of ${length} bytes`)
    return "length"
  },
}

/** By name, since commands of one name (GetCapability) differ in what they ask. */
const unique = new Map(
  [...structureTargets, ...responseTargets, header].map((target) => [target.name, target]),
)

export const TPM_TARGETS: readonly Target[] = [...unique.values()]
