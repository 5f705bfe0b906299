/**
 * @module test/tcb/measurement/measured-boots
 *
 * Two boots of a real VM (QEMU 7.2, swtpm 0.7.1, Debian's 6.1 kernel with the shipped IMA policy), under SeaBIOS and
 * OVMF: two quotes each, with the kernel's log at either moment and the firmware's event log. In the log: init,
 * programs, libraries, a name with a space, and a library that was open for writing while it was mapped.
 */

import { expect } from "bun:test"
import { fromHex } from "../../../src/lib/bytes.ts"
import { MvmError, type ErrorCode } from "../../../src/lib/errors.ts"
import { verifyQuote, type VerifiedQuote } from "../../../src/tcb/measurement/quote.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import boots from "../../vectors/measured-boots.json"

export interface MeasuredBoot {
  readonly name: string
  readonly commandLine: string
  readonly initrdSha256: Uint8Array
  readonly attestationKey: Uint8Array
  readonly qualifyingData: Uint8Array
  /** PCRs 0-10 at the first quote. */
  readonly pcrs: Uint8Array[]
  readonly quote: { attest: Uint8Array; signature: Uint8Array }
  readonly imaLog: Uint8Array
  readonly laterQuote: { attest: Uint8Array; signature: Uint8Array }
  readonly laterImaLog: Uint8Array
  readonly imaAscii: string[]
  readonly eventLog: Uint8Array
}

export const BOOTS: readonly MeasuredBoot[] = Object.values(boots).map((boot) => ({
  name: boot.firmware,
  commandLine: boot.commandLine,
  initrdSha256: fromHex(boot.initrdSha256),
  attestationKey: fromHex(boot.attestationKey),
  qualifyingData: fromHex(boot.qualifyingData),
  pcrs: boot.pcrs.map(fromHex),
  quote: { attest: fromHex(boot.quote.attest), signature: fromHex(boot.quote.signature) },
  imaLog: fromHex(boot.imaLog),
  laterQuote: { attest: fromHex(boot.laterQuote.attest), signature: fromHex(boot.laterQuote.signature) },
  laterImaLog: fromHex(boot.laterImaLog),
  imaAscii: boot.imaAscii,
  eventLog: fromHex(boot.eventLog),
}))

export const [OVMF_BOOT, SEABIOS_BOOT] = BOOTS as [MeasuredBoot, MeasuredBoot]

/** PCR 10 at each entry's end, from zero, by the definition alone. */
export function runningPcr10(extendDigests: readonly Uint8Array[]): Uint8Array[] {
  const values: Uint8Array[] = [new Uint8Array(32)]
  for (const digest of extendDigests) values.push(sha256(values.at(-1)!, digest))
  return values
}

export function verifiedQuote(boot: MeasuredBoot): VerifiedQuote {
  return verifyQuote({ ...boot.quote, pcrs: boot.pcrs }, boot)
}

/** The code of the MvmError that `run` ends with. */
export function codeOf(run: () => unknown): ErrorCode {
  return failureOf(run).code
}

export function failureOf(run: () => unknown): MvmError {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(MvmError)
    return error as MvmError
  }
  throw new Error("nothing was refused")
}
