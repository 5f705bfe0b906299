/**
 * @module mvm/vm/launch
 *
 * What the MVM knows of the start of a VM before it starts it: digests of kernel, initrd, command line and firmware,
 * and, where the firmware measures them, what it will measure. Kept with the registry, so that a boot that outlives
 * the MVM's process is still held to it.
 */

import { readFileSync, statSync } from "node:fs"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { hashLaunch, type LaunchDigests, type LaunchFiles } from "../../platform/launch-digest.ts"
import type { Launch, PredictedEvents } from "../../tcb/measurement/launch.ts"
import { predictOvmfEvents } from "../../tcb/measurement/predict.ts"
import type { TrustTable } from "../state/registry-trust.ts"

/** What {@link measureLaunch} finds; `digests` has QEMU's too. */
export interface MeasuredLaunch extends Launch {
  readonly digests: Readonly<LaunchDigests>
}

/** @throws MvmError as hashLaunch; `config` when OVMF is given a kernel that it cannot start. */
export async function measureLaunch(files: LaunchFiles): Promise<MeasuredLaunch> {
  const digests = await hashLaunch(files)
  const { machine, memoryBytes, initrd } = files
  // Of what arm64's firmware is handed nothing is known here.
  const isPredictable = isOvmf(files) && (machine === "pc" || machine === "q35") && memoryBytes !== undefined
  if (!isPredictable || files.kernel === undefined) return { digests }
  const events = predictOvmfEvents({
    kernel: readKernel(files.kernel),
    initrd:
      initrd && digests.initrd
        ? { sha256: fromHex(digests.initrd), lengthBytes: statSync(initrd).size }
        : undefined,
    commandLine: files.append ?? "",
    machine,
    memoryBytes,
  })
  const predicted: PredictedEvents = {
    kernel: events.kernel.map(toHex),
    commandLine: toHex(events.commandLine),
    initrd: events.initrd && toHex(events.initrd),
  }
  return { digests, predicted }
}

/** How the VM's present boot was started, or undefined where that is not known. */
export function lastLaunch(trust: TrustTable, uuid: string): Launch | undefined {
  const stored = trust.lastLaunch(uuid)?.digests as Partial<MeasuredLaunch> | undefined
  const digests = stored?.digests
  if (typeof digests?.firmware !== "string") return undefined
  return { digests, predicted: stored?.predicted }
}

function isOvmf({ firmware }: LaunchFiles): boolean {
  return /\/OVMF_CODE[^/]*$/.test(firmware)
}

function readKernel(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new MvmError("io", `${path}: ${errnoOf(cause) ?? "cannot be read"}`, { cause })
  }
}
