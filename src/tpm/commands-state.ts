/**
 * @module tpm/commands-state
 *
 * Commands about the TPM as a whole: startup, random numbers, clock, capabilities, and the hierarchies.
 *
 * @spec TPM 2.0 Part 3 §9.3, §9.4, §16.1, §24.6-24.8, §25.3, §29.1, §30.2
 */

import type { ByteReader } from "../lib/bytes.ts"
import { type ClockInfo, readClockInfo } from "./attest.ts"
import { decodeNothing, type TpmCommand } from "./command.ts"
import { TPM_CAP, TPM_CC, TPM_RH, TPM_SU_CLEAR } from "./constants.ts"
import { TpmWriter, readCount, readTpm2b } from "./marshal.ts"
import { type PcrSelection, readPcrSelection } from "./pcr-selection.ts"

/** The hierarchies whose auth value mvm sets. */
export const HIERARCHIES = {
  owner: TPM_RH.OWNER,
  endorsement: TPM_RH.ENDORSEMENT,
  lockout: TPM_RH.LOCKOUT,
  platform: TPM_RH.PLATFORM,
} as const

export type Hierarchy = keyof typeof HIERARCHIES

/** Bytes one TPM2_GetRandom may give (a SHA-512 digest), and handles one TPM2_GetCapability may list. */
const MAX_RANDOM_BYTES = 64
const MAX_HANDLES = 254

/** Handles and tag of one page of TPM2_GetCapability. */
export interface HandlePage {
  more: boolean
  handles: number[]
}

/** @spec Part 3 §9.3 */
export function startupCommand(): TpmCommand<void> {
  const parameters = new TpmWriter().u16(TPM_SU_CLEAR).done()
  return { name: "TPM2_Startup", code: TPM_CC.STARTUP, parameters, decode: decodeNothing }
}

/** @spec Part 3 §9.4 */
export function shutdownCommand(): TpmCommand<void> {
  const parameters = new TpmWriter().u16(TPM_SU_CLEAR).done()
  return { name: "TPM2_Shutdown", code: TPM_CC.SHUTDOWN, parameters, decode: decodeNothing }
}

/** @spec Part 3 §16.1 */
export function getRandomCommand(lengthBytes: number): TpmCommand<Uint8Array> {
  return {
    name: "TPM2_GetRandom",
    code: TPM_CC.GET_RANDOM,
    parameters: new TpmWriter().u16(lengthBytes).done(),
    decode: (reader) => readTpm2b(reader, "randomBytes", MAX_RANDOM_BYTES),
  }
}

/** @spec Part 3 §29.1 */
export function readClockCommand(): TpmCommand<ClockInfo> {
  return {
    name: "TPM2_ReadClock",
    code: TPM_CC.READ_CLOCK,
    decode: (reader) => {
      reader.u64be("currentTime.time")
      return readClockInfo(reader)
    },
  }
}

/** @spec Part 3 §30.2, TPM_CAP_HANDLES */
export function getHandlesCommand(first: number): TpmCommand<HandlePage> {
  return getCapability(TPM_CAP.HANDLES, first, MAX_HANDLES, (reader) => {
    const count = readCount(reader, "handles.count", MAX_HANDLES)
    const handles: number[] = []
    for (let i = 0; i < count; i++) handles.push(reader.u32be(`handles[${i}]`))
    return handles
  }).map((more, handles) => ({ more, handles }))
}

/** @spec Part 3 §30.2, TPM_CAP_PCRS */
export function getPcrBanksCommand(): TpmCommand<PcrSelection[]> {
  return getCapability(TPM_CAP.PCRS, 0, 1, readPcrSelection).map((_more, banks) => banks)
}

/** @spec Part 3 §30.2, TPM_CAP_TPM_PROPERTIES; undefined when the TPM does not have the property */
export function getPropertyCommand(property: number): TpmCommand<number | undefined> {
  return getCapability(TPM_CAP.TPM_PROPERTIES, property, 1, (reader) => {
    const count = readCount(reader, "tpmProperties.count", 1)
    if (count === 0) return undefined
    const found = reader.u32be("tpmProperties[0].property")
    const value = reader.u32be("tpmProperties[0].value")
    return found === property ? value : undefined
  }).map((_more, value) => value)
}

/** @spec Part 3 §24.8 */
export function hierarchyChangeAuthCommand(
  hierarchy: Hierarchy,
  newAuth: Uint8Array,
  auth: Uint8Array,
): TpmCommand<void> {
  return {
    name: "TPM2_HierarchyChangeAuth",
    code: TPM_CC.HIERARCHY_CHANGE_AUTH,
    handles: [HIERARCHIES[hierarchy]],
    auths: [auth],
    parameters: new TpmWriter().tpm2b(newAuth).done(),
    decode: decodeNothing,
  }
}

/** @spec Part 3 §24.7 */
export function clearControlCommand(disable: boolean, auth: Uint8Array): TpmCommand<void> {
  return {
    name: "TPM2_ClearControl",
    code: TPM_CC.CLEAR_CONTROL,
    handles: [TPM_RH.LOCKOUT],
    auths: [auth],
    parameters: new TpmWriter().u8(disable ? 1 : 0).done(),
    decode: decodeNothing,
  }
}

/** Dictionary attack parameters; times in seconds. */
export interface LockoutParameters {
  maxTries: number
  recoveryTimeSeconds: number
  lockoutRecoverySeconds: number
}

/** @spec Part 3 §25.3 */
export function dictionaryAttackParametersCommand(
  { maxTries, recoveryTimeSeconds, lockoutRecoverySeconds }: LockoutParameters,
  auth: Uint8Array,
): TpmCommand<void> {
  return {
    name: "TPM2_DictionaryAttackParameters",
    code: TPM_CC.DICTIONARY_ATTACK_PARAMETERS,
    handles: [TPM_RH.LOCKOUT],
    auths: [auth],
    parameters: new TpmWriter().u32(maxTries).u32(recoveryTimeSeconds).u32(lockoutRecoverySeconds).done(),
    decode: decodeNothing,
  }
}

interface Capability<T> {
  map<R>(make: (more: boolean, value: T) => R): TpmCommand<R>
}

function getCapability<T>(
  capability: number,
  property: number,
  count: number,
  read: (reader: ByteReader) => T,
): Capability<T> {
  return {
    map: (make) => ({
      name: "TPM2_GetCapability",
      code: TPM_CC.GET_CAPABILITY,
      parameters: new TpmWriter().u32(capability).u32(property).u32(count).done(),
      decode: (reader) => {
        const more = reader.u8("moreData")
        if (more > 1) throw reader.error("moreData", `${more} is neither no nor yes`)
        const found = reader.u32be("capabilityData.capability")
        if (found !== capability) throw reader.error("capabilityData.capability", `unknown value ${found}`)
        return make(more === 1, read(reader))
      },
    }),
  }
}
