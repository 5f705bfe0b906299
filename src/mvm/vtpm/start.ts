/**
 * @module mvm/vtpm/start
 *
 * Hands a provisioned vTPM over to its VM, after looking at it. QEMU gets the control socket alone and passes the
 * data channel itself; firmware then sets platformAuth. A local endpoint has no firmware, so the MVM sets
 * platformAuth itself and keeps the control socket, through which the TPM could be reset.
 */

import { rmSync } from "node:fs"
import { join } from "node:path"
import { random } from "../../lib/crypto.ts"
import { type SwtpmExit, type SwtpmOptions, type SwtpmProcess, startSwtpm } from "../../platform/swtpm.ts"
import type { ClockInfo } from "../../tpm/attest.ts"
import { connectSwtpm } from "../../tpm/swtpm-transport.ts"
import { Tpm } from "../../tpm/tpm.ts"
import { type VtpmNames, checkVtpm } from "./check.ts"
import { rewritePin } from "./pin.ts"
import { type VtpmPlace, prepareVtpmDirectories, requireVtpmState, vtpmLogFile, withVtpm } from "./session.ts"

const PLATFORM_AUTH_BYTES = 32

export interface StartOptions extends VtpmPlace {
  /** 65-byte SEC1 point to pin. */
  mvmPublicKey: Uint8Array
  /** The Names recorded at provisioning. */
  names: VtpmNames
}

export interface RunningVtpm {
  pid: number
  /** Resolves when swtpm ends, for whatever reason. */
  exited: Promise<SwtpmExit>
  /** Ends swtpm; returns when it is gone. Idempotent. */
  stop(): Promise<void>
  /**
   * The counters as the MVM last saw them. Under QEMU the firmware's start of the TPM adds one to resetCount; at a
   * local endpoint the agent's quotes show this very resetCount.
   */
  clockBefore: ClockInfo
}

/**
 * Checks the vTPM in a start of its own, then starts it with the control socket only, for QEMU.
 *
 * @throws MvmError `state` (naming the key or setting that was changed), `state_key`, `swtpm`, `setup`, `tpm`
 */
export async function startVtpmForQemu(
  options: StartOptions & Pick<SwtpmOptions, "controlSocket" | "controlListener">,
): Promise<RunningVtpm> {
  requireVtpmState(options)
  prepareVtpmDirectories(options)
  const clockBefore = await withVtpm(options, ({ tpm }) => inspect(tpm, options))
  const { stateDir, stateKey, controlSocket, controlListener } = options
  const swtpm = await startSwtpm({
    ...{ stateDir, stateKey, controlSocket, logFile: vtpmLogFile(options) },
    ...(controlListener && { controlListener }),
  })
  return running(swtpm, { clockBefore, sockets: controlListener ? [] : [controlSocket] })
}

/**
 * A new TPM boot for a local endpoint: checked, its platform hierarchy closed under a value nobody keeps, and its
 * data socket left for one agent.
 *
 * @throws MvmError as {@link startVtpmForQemu}
 */
export async function startVtpmLocal(options: StartOptions & { dataSocket: string }): Promise<RunningVtpm> {
  requireVtpmState(options)
  prepareVtpmDirectories(options)
  const { stateDir, stateKey, dataSocket } = options
  const controlSocket = join(options.runDir, "vtpm-local.ctrl")
  const logFile = vtpmLogFile(options)
  const swtpm = await startSwtpm({ stateDir, stateKey, controlSocket, dataSocket, logFile })
  try {
    const tpm = new Tpm(await connectSwtpm(dataSocket))
    try {
      await tpm.startup()
      const clockBefore = await inspect(tpm, options)
      await tpm.hierarchyChangeAuth("platform", random(PLATFORM_AUTH_BYTES))
      return running(swtpm, { clockBefore, sockets: [controlSocket, dataSocket] })
    } finally {
      tpm.close()
    }
  } catch (error) {
    await swtpm.stop()
    for (const path of [controlSocket, dataSocket]) rmSync(path, { force: true })
    throw error
  }
}

async function inspect(tpm: Tpm, options: StartOptions): Promise<ClockInfo> {
  await checkVtpm(tpm, options.names)
  await rewritePin(tpm, options.mvmPublicKey)
  return await tpm.readClock()
}

function running(
  swtpm: SwtpmProcess,
  { clockBefore, sockets }: { clockBefore: ClockInfo; sockets: readonly string[] },
): RunningVtpm {
  const stop = async () => {
    await swtpm.stop()
    for (const path of sockets) rmSync(path, { force: true })
  }
  return { pid: swtpm.pid, exited: swtpm.exited, stop, clockBefore }
}
