/**
 * @module guest/vtpm
 *
 * The VM's vTPM as the agent uses it: the identity key signs, the attestation key quotes, the sealing key opens
 * grants, and NV holds the MVM's public key. No private key ever leaves the TPM.
 */

import { sha256 } from "../lib/crypto.ts"
import { equalBytes } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import type { Recipient } from "../tcb/hpke.ts"
import { QUOTED_PCRS } from "../tcb/measurement/quote.ts"
import { parseQuote } from "../tpm/attest.ts"
import { KEY_HANDLES, MVM_KEY_NV_INDEX } from "../tpm/handles.ts"
import { Tpm } from "../tpm/tpm.ts"
import type { TpmTransport } from "../tpm/transport.ts"
import type { Quote } from "../wire/messages.ts"

const QUOTE_TRIES = 8

export class GuestVtpm {
  /** 65-byte point: the MVM's key, pinned in NV where the guest cannot write. */
  readonly mvmPublicKey: Uint8Array
  /** 65-byte point */
  readonly sealingPublicKey: Uint8Array
  readonly #tpm: Tpm
  #pcrs: Uint8Array[] = []

  private constructor(tpm: Tpm, mvmPublicKey: Uint8Array, sealingPublicKey: Uint8Array) {
    this.#tpm = tpm
    this.mvmPublicKey = mvmPublicKey
    this.sealingPublicKey = sealingPublicKey
  }

  /** @throws MvmError `tpm` when the vTPM lacks what the MVM provisions. */
  static async open(transport: TpmTransport): Promise<GuestVtpm> {
    const tpm = new Tpm(transport)
    try {
      const pin = await tpm.nvRead(MVM_KEY_NV_INDEX)
      if (pin.length !== 65) throw new MvmError("tpm", `the pinned MVM key has ${pin.length} bytes`)
      const sealing = await tpm.readPublic(KEY_HANDLES.sealing)
      return new GuestVtpm(tpm, pin, sealing.point)
    } catch (error) {
      tpm.close()
      throw new MvmError("tpm", `this vTPM was not provisioned by an MVM: ${(error as Error).message}`, {
        cause: error,
        hint: "start the VM with mvm vm start, or with the vTPM that mvm prepared for it",
      })
    }
  }

  /** 64-byte signature r || s of the identity key over SHA-256 of `message`. */
  sign(message: Uint8Array): Promise<Uint8Array> {
    return this.#tpm.sign(KEY_HANDLES.identity, sha256(message))
  }

  /** 32-byte x-coordinate of sealing key times `point`. */
  zgen(point: Uint8Array): Promise<Uint8Array> {
    return this.#tpm.ecdhZGen(KEY_HANDLES.sealing, point)
  }

  /** Who opens what is sealed to this VM. */
  get recipient(): Recipient {
    return { zgen: (point) => this.zgen(point), recipientPublic65: this.sealingPublicKey }
  }

  pcrRead(indices: readonly number[]): Promise<Uint8Array[]> {
    return this.#tpm.pcrRead(indices)
  }

  pcrExtend(index: number, digest: Uint8Array): Promise<void> {
    return this.#tpm.pcrExtend(index, digest)
  }

  /**
   * A quote over {@link QUOTED_PCRS} with the PCR values it digests. The values seldom change, so those read last
   * are tried first; a PCR that moves between quote and read costs another round.
   */
  async quote(qualifyingData: Uint8Array): Promise<Quote> {
    for (let round = 0; round < QUOTE_TRIES; round += 1) {
      const { attest, signature } = await this.#tpm.quote(KEY_HANDLES.attestation, qualifyingData, [
        ...QUOTED_PCRS,
      ])
      const { pcrDigest } = parseQuote(attest)
      if (this.#pcrs.length > 0 && equalBytes(sha256(...this.#pcrs), pcrDigest)) {
        return { attest, signature, pcrs: this.#pcrs }
      }
      this.#pcrs = await this.#tpm.pcrRead(QUOTED_PCRS)
      if (equalBytes(sha256(...this.#pcrs), pcrDigest)) return { attest, signature, pcrs: this.#pcrs }
    }
    throw new MvmError("tpm", "the PCRs change faster than they can be read")
  }

  close(): void {
    this.#tpm.close()
  }
}
