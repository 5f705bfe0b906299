/**
 * @module mvm/doctor/daemon-facts
 *
 * What the daemon says of itself and its VMs, and who it is: as this user one may see and open what it cannot.
 */

import { statSync } from "node:fs"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { actorNamed, actorOf, thisActor, type Actor } from "../../platform/access.ts"
import { RpcClient } from "../../platform/json-rpc.ts"
import type { Firmware } from "../../platform/qemu-args.ts"
import type { InstalledService } from "../install/installed.ts"
import { controlSocketOf } from "../serve.ts"

/** A daemon that stands still takes a connection and never answers. */
const ANSWER_LIMIT_MS = 5000

/** Of each VM the daemon answers all of this. */
export interface VmFacts {
  readonly name: string
  readonly kind: string
  readonly state: string
  readonly link: string
  readonly verdict: string
  readonly hasReference: boolean
  readonly tags: readonly string[]
  /** Places for devices of shared memory, and how many are free; not known where its monitor does not answer. */
  readonly hotplug: { readonly free: number; readonly all: number; readonly known: boolean }
  readonly config: { readonly firmware?: Firmware; readonly machine?: string }
  /** What its QEMU opens, and what keeps the daemon from it. */
  readonly files: readonly {
    readonly field: string
    readonly path: string
    readonly problem: string | null
    readonly remedy: string | null
  }[]
}

export interface DaemonFacts {
  readonly pid: number
  readonly uptimeSeconds: number
  /** Its MVM_ACCEL. */
  readonly accelOverride: string | null
  readonly arena: { readonly path: string; readonly sizeBytes: number }
  readonly dedicated: { readonly ignored: number; readonly limitBytes: number; readonly usedBytes: number }
  readonly policy: { readonly file: string }
  readonly vms: readonly VmFacts[]
}

/** @returns why it does not answer, as a fact */
export async function askDaemon(state: string): Promise<DaemonFacts | MvmError> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    reject(new MvmError("timeout", `the daemon does not answer within ${ANSWER_LIMIT_MS / 1000} s`))
  }, ANSWER_LIMIT_MS)
  let client: RpcClient | undefined
  try {
    client = await Promise.race([RpcClient.connect(controlSocketOf(state)), late])
    return await Promise.race([everything(client), late])
  } catch (error) {
    return asMvmError(error)
  } finally {
    clearTimeout(timer)
    client?.close()
  }
}

async function everything(client: RpcClient): Promise<DaemonFacts> {
  const status = await client.call<DaemonFacts>("status")
  const vms = await Promise.all(status.vms.map(({ name }) => client.call<VmFacts>("vm.show", { name })))
  return { ...status, vms }
}

/** Who the daemon is, or would be: the service's user, else whoever the state belongs to. */
export function daemonActor(
  pid: number | undefined,
  service: InstalledService | undefined,
  state: string,
): Actor {
  const running = pid === undefined ? undefined : actorOf(pid)
  if (running) return running
  const user = service?.user ?? statSync(state, { throwIfNoEntry: false })?.uid
  return (user === undefined ? undefined : actorNamed(String(user))) ?? thisActor()
}
