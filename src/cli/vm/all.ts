/**
 * @module cli/vm/all
 *
 * All VMs that the MVM starts itself, as a host's boot and shutdown need it. Domains of libvirt are libvirt's affair,
 * and local endpoints are processes that somebody else starts.
 */

import { MvmError, STATUS, asMvmError } from "../../lib/errors.ts"
import type { Call } from "../command.ts"
import { ask } from "../connect.ts"
import { note, print } from "../output.ts"
import type { VmView } from "./list.ts"

/** The name that was given; undefined where it is all of them. @throws MvmError `usage` for both or neither. */
export function nameOrAll(call: Call): string | undefined {
  const [name] = call.args
  if ((name === undefined) !== call.flag("all")) throw new MvmError("usage", "a name, or --all")
  return name
}

/** Those that are to start with the host and do not run. @returns the exit status: that of the first that failed */
export async function startAll(call: Call): Promise<number> {
  const wanted = await ownVms(call, (vm) => vm.autostart && vm.state === "stopped")
  const outcomes = []
  // One after another: a boot is work enough for a host.
  for (const { name } of wanted) outcomes.push(await attempt(call, "vm.start", { name }, "started"))
  return worst(outcomes)
}

/** Those that run. @param params more of the request @returns as {@link startAll} */
export async function stopAll(call: Call, params: Record<string, unknown>): Promise<number> {
  const running = await ownVms(call, (vm) => vm.state === "running")
  const each = running.map(({ name }) => attempt(call, "vm.stop", { name, ...params }, "stopped"))
  return worst(await Promise.all(each))
}

async function ownVms(call: Call, isMeant: (vm: VmView) => boolean): Promise<VmView[]> {
  return (await ask<VmView[]>(call, "vm.list")).filter((vm) => vm.kind === "qemu" && isMeant(vm))
}

async function attempt(
  call: Call,
  method: string,
  params: Record<string, unknown>,
  done: string,
): Promise<number> {
  const name = String(params["name"])
  try {
    await ask(call, method, params)
    print(`${name}: ${done}`)
    return STATUS.ok
  } catch (error) {
    const { message, hint, status } = asMvmError(error)
    note(`${name}: ${message}${hint === undefined ? "" : ` (${hint})`}`)
    return status
  }
}

function worst(outcomes: readonly number[]): number {
  return outcomes.find((status) => status !== STATUS.ok) ?? STATUS.ok
}
