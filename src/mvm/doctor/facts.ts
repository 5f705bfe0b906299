/**
 * @module mvm/doctor/facts
 *
 * What there is to know of a host before anybody judges it. Nothing is changed, and nothing that cannot be found out
 * is an error: it is a fact too.
 */

import { readFileSync, realpathSync, statfsSync, statSync } from "node:fs"
import { release } from "node:os"
import { join } from "node:path"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { chooseAccel, thisHost, type Accel, type AccelHost } from "../../platform/accel.ts"
import { isShared } from "../../platform/acl.ts"
import { accessTo, actorOf, thisActor, type Access, type Actor } from "../../platform/access.ts"
import { RpcClient } from "../../platform/json-rpc.ts"
import { firmwareFiles, qemuProgram, usualMachine, type Firmware } from "../../platform/qemu-args.ts"
import { apparmorRules, missingRules } from "../../platform/libvirt/apparmor.ts"
import { securityModels } from "../../platform/libvirt/capabilities.ts"
import { DEFAULT_URI, Virsh } from "../../platform/libvirt/virsh.ts"
import { hasSystemd } from "../../platform/system-programs.ts"
import { arenaPathOf } from "../channels/arena.ts"
import { lint, type Warning } from "../policy/lint.ts"
import { readPolicy } from "../policy/policy-file.ts"
import { controlSocketOf } from "../serve.ts"
import { vmPaths } from "../vm/vm-process.ts"
import { knownKeys } from "../state/state-keys.ts"

const SHARED_MEMORY = "/dev/shm"
const LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
const VERSION_LIMIT_MS = 10_000

/** As `mvm serve` would be started. */
export interface HostOptions {
  readonly state: string
  readonly stateKeyFile?: string | undefined
  readonly policyFile?: string | undefined
  readonly arenaBytes: number
  readonly dedicatedBytes: number
}

export interface ProgramFacts {
  readonly name: string
  /** Undefined where there is none. */
  readonly path: string | undefined
  /** What it says of itself; why it says nothing. */
  readonly version: string
}

export interface VmFacts {
  readonly name: string
  readonly kind: string
  readonly state: string
  readonly link: string
  readonly verdict: string
  readonly hasReference: boolean
  /** Places for devices of shared memory, and how many are free; not known where its monitor does not answer. */
  readonly hotplug: { readonly free: number; readonly all: number; readonly known: boolean }
  readonly firmware: Firmware | undefined
  readonly machine: string | undefined
  /** Its files, and whether the daemon may read them. */
  readonly files: readonly { readonly field: string; readonly path: string; readonly access: Access }[]
}

export interface HostFacts {
  readonly kernel: string
  readonly isSystemd: boolean
  readonly qemu: ProgramFacts
  readonly swtpm: ProgramFacts
  readonly accel: { readonly chosen: Accel | MvmError; readonly host: AccelHost; readonly kvm: Access }
  readonly firmware: readonly { readonly name: Firmware; readonly path: string; readonly isThere: boolean }[]
  /** Whoever is or would be the daemon. */
  readonly actor: Actor
  readonly sharedMemory: { readonly totalBytes: number; readonly freeBytes: number } | MvmError
  /** Memory that channels have for themselves: what there may be of it, and is. */
  readonly dedicated: { readonly limitBytes: number; readonly usedBytes: number }
  readonly arena: {
    readonly path: string
    readonly wantedBytes: number
    /** Undefined where there is no file. */
    readonly file: { readonly sizeBytes: number; readonly usedBytes: number } | undefined
  }
  readonly state: {
    readonly path: string
    readonly owner: number | undefined
    /** Permission bits; undefined where there is no directory. */
    readonly mode: number | undefined
    /** Single other users were let in: those of QEMUs that others start. */
    readonly isShared: boolean
    readonly freeBytes: number
  }
  readonly stateKey: "none yet" | "right" | MvmError
  readonly daemon: DaemonFacts | MvmError
  readonly policy: {
    readonly path: string
    readonly rules: number | MvmError
    readonly warnings: readonly Warning[]
  }
  readonly libvirt: Access
  /** Lines that AppArmor's file for its QEMUs lacks; undefined where it does not confine them */
  readonly apparmor: readonly string[] | undefined
  readonly limits: { readonly openFiles: number; readonly lockedBytes: number }
}

export interface DaemonFacts {
  readonly pid: number
  /** Devices that a guest did not let go of. */
  readonly ignoredUnplugs: number
  readonly uptimeSeconds: number
  readonly vms: readonly VmFacts[]
}

/** Answers of the daemon, as far as they are looked at. */
interface StatusAnswer {
  pid: number
  uptimeSeconds: number
  arena: { path: string; sizeBytes: number }
  dedicated: { ignored: number; limitBytes: number; usedBytes: number }
  policy: { file: string }
  vms: { name: string; tags: string[] }[]
}

interface ShowAnswer extends Omit<VmFacts, "files" | "firmware" | "machine"> {
  config: { firmware?: Firmware; machine?: string } & Record<string, unknown>
}

export async function probeHost(options: HostOptions): Promise<HostFacts> {
  const state = realPath(options.state)
  const answer = await askDaemon(state)
  const status = answer instanceof MvmError ? undefined : answer.status
  const actor = (status && actorOf(status.pid)) ?? thisActor()
  const host = thisHost()
  const machine = usualMachine(host.arch)
  const [qemu, swtpm] = await Promise.all([program(qemuProgram(machine)), program("swtpm")])
  const arenaPath = status?.arena.path ?? arenaPathOf(state)
  const policyFile = status?.policy.file ?? options.policyFile ?? join(state, "policy.toml")
  return {
    kernel: release(),
    isSystemd: hasSystemd(),
    qemu,
    swtpm,
    accel: {
      chosen: attempt(() => chooseAccel(host)),
      host,
      kvm: accessTo("/dev/kvm", actor, { write: true }),
    },
    firmware: (machine === "virt" ? (["ovmf"] as const) : (["seabios", "ovmf"] as const)).map((name) => {
      const path = firmwareFiles(name, machine).code
      return { name, path, isThere: accessTo(path, actor) === "open" }
    }),
    actor,
    sharedMemory: attempt(() => {
      const { blocks, bavail, bsize } = statfsSync(SHARED_MEMORY)
      return { totalBytes: blocks * bsize, freeBytes: bavail * bsize }
    }),
    arena: {
      path: arenaPath,
      wantedBytes: status?.arena.sizeBytes ?? options.arenaBytes,
      file: fileSize(arenaPath),
    },
    dedicated: {
      limitBytes: status?.dedicated.limitBytes ?? options.dedicatedBytes,
      usedBytes: status?.dedicated.usedBytes ?? 0,
    },
    state: stateFacts(state),
    stateKey: attempt(() =>
      knownKeys(state, options.stateKeyFile, actor.uid)?.isChecked ? "right" : "none yet",
    ),
    daemon:
      answer instanceof MvmError
        ? answer
        : {
            pid: answer.status.pid,
            ignoredUnplugs: answer.status.dedicated.ignored,
            uptimeSeconds: answer.status.uptimeSeconds,
            vms: answer.shown.map((vm) => vmFacts(vm, actor)),
          },
    policy: policyFacts(policyFile, actor, status?.vms),
    libvirt: accessTo(LIBVIRT_SOCKET, actor, { write: true }),
    apparmor: await apparmorFacts(state, arenaPath),
    limits: limitsOf(status?.pid ?? process.pid),
  }
}

async function askDaemon(state: string): Promise<{ status: StatusAnswer; shown: ShowAnswer[] } | MvmError> {
  try {
    const client = await RpcClient.connect(controlSocketOf(state))
    try {
      const status = await client.call<StatusAnswer>("status")
      const shown = status.vms.map(({ name }) => client.call<ShowAnswer>("vm.show", { name }))
      return { status, shown: await Promise.all(shown) }
    } finally {
      client.close()
    }
  } catch (error) {
    return asMvmError(error)
  }
}

function vmFacts(vm: ShowAnswer, actor: Actor): VmFacts {
  const files = ["kernel", "initrd", "disk"].flatMap((field) => {
    const path = vm.config[field]
    return typeof path === "string" ? { field, path, access: accessTo(path, actor) } : []
  })
  const { name, kind, state, link, verdict, hasReference, hotplug } = vm
  const { firmware, machine } = vm.config
  return { name, kind, state, link, verdict, hasReference, hotplug, firmware, machine, files }
}

function policyFacts(
  path: string,
  { uid }: Actor,
  vms: StatusAnswer["vms"] | undefined,
): HostFacts["policy"] {
  try {
    const policy = readPolicy(path, uid)
    return { path, rules: policy.rules.length, warnings: lint(policy, vms) }
  } catch (error) {
    return { path, rules: asMvmError(error), warnings: [] }
  }
}

/** What the administrator's file says in words is all that can be known: a daemon may not read the profiles. */
async function apparmorFacts(state: string, arena: string): Promise<HostFacts["apparmor"]> {
  try {
    const capabilities = await new Virsh(DEFAULT_URI).run(["capabilities"], VERSION_LIMIT_MS)
    if (!securityModels(capabilities).includes("apparmor")) return undefined
  } catch (error) {
    // Without libvirt there is nothing that it could confine.
    if (error instanceof MvmError) return undefined
    throw error
  }
  const { vtpmControl: vtpmSocket, link: linkSocket } = vmPaths(state, "*", "*")
  return missingRules(apparmorRules({ vtpmSocket, linkSocket, arena }))
}

async function program(name: string): Promise<ProgramFacts> {
  // The search path of now, not the one this process was started with.
  const path = Bun.which(name, { PATH: process.env["PATH"] ?? "" }) ?? undefined
  if (path === undefined) return { name, path, version: "" }
  try {
    const child = Bun.spawn([path, "--version"], {
      stdio: ["ignore", "pipe", "ignore"],
      timeout: VERSION_LIMIT_MS,
    })
    const [line = ""] = (await new Response(child.stdout).text()).split("\n")
    return { name, path, version: (await child.exited) === 0 ? line : "" }
  } catch {
    return { name, path, version: "" }
  }
}

function stateFacts(path: string): HostFacts["state"] {
  const stat = statSync(path, { throwIfNoEntry: false })
  const place = attempt(() => statfsSync(path))
  const freeBytes = place instanceof MvmError ? 0 : place.bavail * place.bsize
  const shared = stat === undefined ? false : attempt(() => isShared(path))
  return { path, owner: stat?.uid, mode: stat && stat.mode & 0o7777, isShared: shared === true, freeBytes }
}

function fileSize(path: string): HostFacts["arena"]["file"] {
  const stat = statSync(path, { throwIfNoEntry: false })
  return stat && { sizeBytes: stat.size, usedBytes: stat.blocks * 512 }
}

/** @spec proc(5), /proc/PID/limits */
function limitsOf(pid: number): HostFacts["limits"] {
  const text = attempt(() => readFileSync(`/proc/${pid}/limits`, "latin1"))
  const hard = (name: string): number => {
    const value = new RegExp(`^${name}\\s+\\S+\\s+(\\S+)`, "m").exec(String(text))?.[1]
    return value === undefined || value === "unlimited" ? Infinity : Number(value)
  }
  return { openFiles: hard("Max open files"), lockedBytes: hard("Max locked memory") }
}

function realPath(path: string): string {
  const real = attempt(() => realpathSync(path))
  return real instanceof MvmError ? path : real
}

function attempt<T>(work: () => T): T | MvmError {
  try {
    return work()
  } catch (error) {
    return asMvmError(error, "io")
  }
}
