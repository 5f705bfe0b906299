/**
 * @module mvm/vtpm/session
 *
 * The MVM's own connection to a vTPM that no VM is using: swtpm with both sockets in the MVM's run directory, TPM
 * started, and everything stopped again afterwards, whatever happened.
 */

import { chmodSync, existsSync, mkdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { type SwtpmProcess, startSwtpm } from "../../platform/swtpm.ts"
import { connectSwtpm } from "../../tpm/swtpm-transport.ts"
import { Tpm } from "../../tpm/tpm.ts"

/** Where a VM's vTPM lives. */
export interface VtpmPlace {
  /** Absolute directory of the encrypted TPM state. */
  stateDir: string
  /** Absolute directory for sockets and the log; short, for socket paths are limited to 107 bytes. */
  runDir: string
  /** 32-byte AES-256 key of the state. */
  stateKey: Uint8Array
}

export interface VtpmSession {
  tpm: Tpm
  swtpm: SwtpmProcess
  controlSocket: string
}

/** swtpm's name for a TPM 2.0's permanent state. */
const STATE_FILE = "tpm2-00.permall"

/** The log of the VM's swtpm processes; each start begins it anew. */
export function vtpmLogFile(place: VtpmPlace): string {
  return join(place.runDir, "swtpm.log")
}

/** @throws MvmError `state` when swtpm would make a new TPM there instead of opening one */
export function requireVtpmState(place: VtpmPlace): void {
  if (existsSync(join(place.stateDir, STATE_FILE))) return
  throw new MvmError("state", `no vtpm state in ${place.stateDir}`, {
    hint: "restore the state directory, or remove the vm and create it again",
  })
}

/** Makes both directories, closed to everybody else. @throws MvmError `state` */
export function prepareVtpmDirectories(place: VtpmPlace): void {
  for (const path of [place.stateDir, place.runDir]) {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 })
    } catch (cause) {
      throw new MvmError("state", `cannot make ${path}: ${errnoOf(cause) ?? "failed"}`, { cause })
    }
  }
  chmodSync(place.stateDir, 0o700)
}

/**
 * Starts swtpm, powers the TPM on, sends TPM2_Startup(CLEAR), runs `use`. The TPM is shut down in order after
 * success; the process is gone in any case.
 *
 * @throws MvmError of {@link startSwtpm} and of `use`
 */
export async function withVtpm<T>(place: VtpmPlace, use: (session: VtpmSession) => Promise<T>): Promise<T> {
  const dataSocket = join(place.runDir, "vtpm-mvm.sock")
  const controlSocket = join(place.runDir, "vtpm-mvm.ctrl")
  const { stateDir, stateKey } = place
  const logFile = vtpmLogFile(place)
  const swtpm = await startSwtpm({ stateDir, stateKey, dataSocket, controlSocket, logFile })
  try {
    const tpm = new Tpm(await connectSwtpm(dataSocket))
    try {
      await tpm.startup()
      const result = await use({ tpm, swtpm, controlSocket })
      await tpm.shutdown()
      return result
    } finally {
      tpm.close()
    }
  } finally {
    await swtpm.stop()
    for (const path of [dataSocket, controlSocket]) rmSync(path, { force: true })
  }
}
