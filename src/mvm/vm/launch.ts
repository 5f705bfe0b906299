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
import { hashLaunch, type LaunchDigests } from "../../platform/launch-digest.ts"
import type { QemuOptions } from "../../platform/qemu-args.ts"
import { LAUNCH_PARTS, type Launch, type PredictedEvents } from "../../tcb/measurement/launch.ts"
import { predictOvmfEvents } from "../../tcb/measurement/predict.ts"
import type { TrustTable } from "../state/registry-trust.ts"

/** What {@link measureLaunch} finds; `digests` has QEMU's too. */
export interface MeasuredLaunch extends Launch {
  readonly digests: Readonly<LaunchDigests>
}

/** @throws MvmError as hashLaunch; `config` when OVMF is given a kernel that it cannot start. */
export async function measureLaunch(options: QemuOptions): Promise<MeasuredLaunch> {
  const digests = await hashLaunch(options)
  const { machine } = options
  // Of what arm64's firmware is handed nothing is known here.
  if (options.firmware !== "ovmf" || machine === "virt") return { digests }
  const { kernel, commandLine, initrd } = predictOvmfEvents({
    kernel: readKernel(options.kernel),
    initrd: { sha256: fromHex(digests.initrd), lengthBytes: statSync(options.initrd).size },
    commandLine: options.append,
    machine,
    memoryBytes: options.memoryMiB * 2 ** 20,
  })
  const predicted: PredictedEvents = {
    kernel: kernel.map(toHex),
    commandLine: toHex(commandLine),
    initrd: initrd && toHex(initrd),
  }
  return { digests, predicted }
}

/** How the VM's present boot was started, or undefined where that is not known. */
export function lastLaunch(trust: TrustTable, uuid: string): Launch | undefined {
  const stored = trust.lastLaunch(uuid)?.digests as Partial<MeasuredLaunch> | undefined
  const digests = stored?.digests
  if (!digests || LAUNCH_PARTS.some((part) => typeof digests[part] !== "string")) return undefined
  return { digests, predicted: stored.predicted }
}

function readKernel(path: string): Uint8Array {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new MvmError("io", `${path}: ${errnoOf(cause) ?? "cannot be read"}`, { cause })
  }
}
