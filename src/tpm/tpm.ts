/**
 * @module tpm/tpm
 *
 * A TPM behind a transport: commands run one after another in the order they were asked for, and a TPM that says
 * "try again" is asked again, within bounds.
 */

import { concat, equalBytes } from "../lib/bytes.ts"
import { MvmError } from "../lib/errors.ts"
import type { ClockInfo } from "./attest.ts"
import { EMPTY_AUTH, type TpmCommand, decodeResponse, encodeCommand } from "./command.ts"
import * as key from "./commands-key.ts"
import * as nv from "./commands-nv.ts"
import * as pcr from "./commands-pcr.ts"
import * as state from "./commands-state.ts"
import { TPM_RH } from "./constants.ts"
import type { NvPublic } from "./nv-public.ts"
import type { PcrSelection } from "./pcr-selection.ts"
import { type EccPublic, nameOf, publicPoint } from "./public.ts"
import { TpmResponseError } from "./response-code.ts"
import type { TpmTransport } from "./transport.ts"

/** A TPM that keeps saying "again" is given up after about 5 seconds. */
const MAX_TRIES = 60
const MAX_RETRY_WAIT_MS = 100

/** PCR_Read rounds restarted because a PCR changed meanwhile, before giving up. */
const MAX_PCR_ROUNDS = 16

const MAX_RANDOM_BYTES = 32

/** What TPM2_ReadPublic shows of an ECC P-256 key. */
export interface PublicKeyInfo {
  /** TPM Name, 34 bytes, recomputed here from the public bytes. */
  name: Uint8Array
  /** 65-byte uncompressed SEC1 point. */
  point: Uint8Array
  /** TPMA_OBJECT. */
  attributes: number
  /** TPMT_PUBLIC. */
  publicBytes: Uint8Array
  /** Its decoded fields. */
  key: EccPublic
}

/** All failures are MvmError `tpm` (a refusal by the TPM: TpmResponseError) or the transport's. */
export class Tpm {
  readonly #transport: TpmTransport
  #tail: Promise<unknown> = Promise.resolve()

  constructor(transport: TpmTransport) {
    this.#transport = transport
  }

  /** Runs any command after those already asked for. */
  execute<R>(command: TpmCommand<R>): Promise<R> {
    const run = this.#tail.then(() => this.#run(command))
    this.#tail = run.catch(() => {})
    return run
  }

  /** TPM2_Startup(CLEAR). A TPM that firmware started already answers TPM_RC_INITIALIZE. */
  startup(): Promise<void> {
    return this.execute(state.startupCommand())
  }

  /** TPM2_Shutdown(CLEAR): an orderly end, so that the clock stays safe. */
  shutdown(): Promise<void> {
    return this.execute(state.shutdownCommand())
  }

  async getRandom(lengthBytes: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    for (let left = lengthBytes; left > 0;) {
      const part = await this.execute(state.getRandomCommand(Math.min(left, MAX_RANDOM_BYTES)))
      if (part.length === 0 || part.length > left) {
        throw new MvmError("tpm", `TPM2_GetRandom: ${part.length} bytes, ${left} wanted`)
      }
      parts.push(part)
      left -= part.length
    }
    return concat(...parts)
  }

  readClock(): Promise<ClockInfo> {
    return this.execute(state.readClockCommand())
  }

  async readPublic(handle: number): Promise<PublicKeyInfo> {
    return keyInfo(await this.execute(key.readPublicCommand(handle)))
  }

  /** ECDSA over a 32-byte digest with the key's scheme. @returns 64 bytes r || s */
  async sign(handle: number, digest: Uint8Array): Promise<Uint8Array> {
    return this.execute(key.signCommand(handle, digest))
  }

  /** Quote over the sha256 bank. @param qualifyingData at most 66 bytes */
  async quote(
    handle: number,
    qualifyingData: Uint8Array,
    pcrs: readonly number[],
  ): Promise<key.SignedAttest> {
    return this.execute(key.quoteCommand(handle, qualifyingData, pcrs))
  }

  /** ECDH of the key with a 65-byte SEC1 point. @returns the 32-byte x coordinate */
  async ecdhZGen(handle: number, point: Uint8Array): Promise<Uint8Array> {
    return this.execute(key.ecdhZGenCommand(handle, point))
  }

  /**
   * Values of the sha256 bank, 32 bytes each, in the order of `indices`. They are of one moment, except PCRs 16 and
   * 21-23, whose changes do not move the update counter.
   *
   * @throws MvmError `busy` when other PCRs kept changing
   */
  async pcrRead(indices: readonly number[]): Promise<Uint8Array[]> {
    for (let round = 0; round < MAX_PCR_ROUNDS; round++) {
      const values = await this.#pcrReadRound(indices)
      if (values !== undefined) return indices.map((index) => values.get(index)!)
    }
    throw new MvmError("busy", "pcr values kept changing while they were read")
  }

  async pcrExtend(index: number, digest: Uint8Array): Promise<void> {
    return this.execute(pcr.pcrExtendCommand(index, digest))
  }

  /** Takes effect at the next TPM reset. */
  pcrAllocate(banks: readonly PcrSelection[], platformAuth = EMPTY_AUTH): Promise<void> {
    return this.execute(pcr.pcrAllocateCommand(banks, platformAuth))
  }

  /** PCR banks; one with no PCRs is off. */
  pcrBanks(): Promise<PcrSelection[]> {
    return this.execute(state.getPcrBanksCommand())
  }

  nvReadPublic(index: number): Promise<NvPublic> {
    return this.execute(nv.nvReadPublicCommand(index))
  }

  /** The whole content of an index that its empty auth value may read. */
  async nvRead(index: number): Promise<Uint8Array> {
    const { dataSizeBytes } = await this.nvReadPublic(index)
    const parts: Uint8Array[] = []
    for (let offset = 0; offset < dataSizeBytes; offset += nv.NV_CHUNK_BYTES) {
      const sizeBytes = Math.min(nv.NV_CHUNK_BYTES, dataSizeBytes - offset)
      parts.push(await this.execute(nv.nvReadCommand(index, sizeBytes, offset)))
    }
    return concat(...parts)
  }

  /** Defines a platform index with an empty auth value. */
  nvDefine(nvPublic: NvPublic, platformAuth = EMPTY_AUTH): Promise<void> {
    return this.execute(nv.nvDefineCommand(TPM_RH.PLATFORM, nvPublic, platformAuth))
  }

  /** Writes `data` at the start of an index under platform authorisation. */
  async nvWrite(index: number, data: Uint8Array, platformAuth = EMPTY_AUTH): Promise<void> {
    const target = { authHandle: TPM_RH.PLATFORM, index, auth: platformAuth }
    for (let offset = 0; offset < data.length; offset += nv.NV_CHUNK_BYTES) {
      await this.execute(nv.nvWriteCommand(target, data.subarray(offset, offset + nv.NV_CHUNK_BYTES), offset))
    }
  }

  /** @returns the key and its transient handle, which the caller flushes */
  async createPrimary(
    hierarchy: state.Hierarchy,
    template: EccPublic,
    auth = EMPTY_AUTH,
  ): Promise<PublicKeyInfo & { handle: number }> {
    const area = await this.execute(key.createPrimaryCommand(state.HIERARCHIES[hierarchy], template, auth))
    return { ...keyInfo(area), handle: area.handle }
  }

  /** Makes `object` persistent at `persistent`; removes it when both are the same. */
  evictControl(
    hierarchy: "owner" | "platform",
    objects: { object: number; persistent: number },
    auth = EMPTY_AUTH,
  ): Promise<void> {
    return this.execute(key.evictControlCommand(state.HIERARCHIES[hierarchy], objects, auth))
  }

  flushContext(handle: number): Promise<void> {
    return this.execute(key.flushContextCommand(handle))
  }

  hierarchyChangeAuth(hierarchy: state.Hierarchy, newAuth: Uint8Array, auth = EMPTY_AUTH): Promise<void> {
    return this.execute(state.hierarchyChangeAuthCommand(hierarchy, newAuth, auth))
  }

  /** Whether TPM2_Clear is switched off. */
  clearControl(disable: boolean, lockoutAuth = EMPTY_AUTH): Promise<void> {
    return this.execute(state.clearControlCommand(disable, lockoutAuth))
  }

  dictionaryAttackParameters(parameters: state.LockoutParameters, lockoutAuth = EMPTY_AUTH): Promise<void> {
    return this.execute(state.dictionaryAttackParametersCommand(parameters, lockoutAuth))
  }

  /** Handles in use from `first` up to the end of its range (the top byte), e.g. 0x81000000. */
  async getHandles(first: number): Promise<number[]> {
    const { handles } = await this.execute(state.getHandlesCommand(first))
    return handles
  }

  /** A TPM_PT value, or undefined when the TPM does not have it. */
  getProperty(property: number): Promise<number | undefined> {
    return this.execute(state.getPropertyCommand(property))
  }

  close(): void {
    this.#transport.close()
  }

  async #run<R>(command: TpmCommand<R>): Promise<R> {
    const bytes = encodeCommand(command)
    for (let tries = 1; ; tries++) {
      try {
        return decodeResponse(command, await this.#transport.send(bytes))
      } catch (error) {
        if (!(error instanceof TpmResponseError) || !error.again || tries >= MAX_TRIES) throw error
        await Bun.sleep(Math.min(tries * 5, MAX_RETRY_WAIT_MS))
      }
    }
  }

  /** One pass over all indices, eight at most a command; undefined when a PCR changed between two of them. */
  async #pcrReadRound(indices: readonly number[]): Promise<Map<number, Uint8Array> | undefined> {
    const values = new Map<number, Uint8Array>()
    let counter: number | undefined
    for (let missing = [...new Set(indices)]; missing.length > 0;) {
      const page = await this.execute(pcr.pcrReadCommand(missing))
      if (counter !== undefined && page.pcrUpdateCounter !== counter) return undefined
      counter = page.pcrUpdateCounter
      page.pcrs.forEach((index, at) => values.set(index, page.values[at]!))
      const left = missing.filter((index) => !values.has(index))
      if (left.length === missing.length)
        throw new MvmError("tpm", `TPM2_PCR_Read: no value for pcr ${left[0]}`)
      missing = left
    }
    return values
  }
}

function keyInfo(area: key.PublicArea): PublicKeyInfo {
  const name = nameOf(area.publicBytes)
  if (!equalBytes(name, area.name)) throw new MvmError("tpm", "name: does not match the public area")
  return {
    name,
    point: publicPoint(area.key),
    attributes: area.key.attributes,
    publicBytes: area.publicBytes,
    key: area.key,
  }
}
