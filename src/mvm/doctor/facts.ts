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
import { accessTo, type Access, type Actor } from "../../platform/access.ts"
import { firmwareFiles, qemuProgram, usualMachine, type Firmware } from "../../platform/qemu-args.ts"
import { apparmorRules, missingRules } from "../../platform/libvirt/apparmor.ts"
import { securityModels } from "../../platform/libvirt/capabilities.ts"
import { DEFAULT_URI, Virsh } from "../../platform/libvirt/virsh.ts"
import { hasSystemd } from "../../platform/system-programs.ts"
import { arenaPathOf } from "../channels/arena.ts"
import { serviceOf } from "../install/installed.ts"
import { lint, type Warning } from "../policy/lint.ts"
import { readPolicy } from "../policy/policy-file.ts"
import { vmPaths } from "../vm/vm-process.ts"
import { knownKeys } from "../state/state-keys.ts"
import { askDaemon, daemonActor, type DaemonFacts } from "./daemon-facts.ts"

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

export async function probeHost(options: HostOptions): Promise<HostFacts> {
  const state = realPath(options.state)
  const service = serviceOf(state)
  const answer = await askDaemon(state)
  const running = answer instanceof MvmError ? undefined : answer
  const actor = daemonActor(running?.pid, service, state)
  const kvm = accessTo("/dev/kvm", actor, { write: true })
  const host = {
    ...thisHost(),
    kvmOpens: kvm === "open",
    ...(running && { override: running.accelOverride ?? "" }),
  }
  const machine = usualMachine(host.arch)
  const [qemu, swtpm] = await Promise.all([program(qemuProgram(machine)), program("swtpm")])
  const arenaPath = running?.arena.path ?? arenaPathOf(state)
  const policyFile =
    running?.policy.file ?? options.policyFile ?? service?.policy ?? join(state, "policy.toml")
  return {
    kernel: release(),
    isSystemd: hasSystemd(),
    qemu,
    swtpm,
    accel: {
      chosen: attempt(() => chooseAccel(host)),
      host,
      kvm,
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
      wantedBytes: running?.arena.sizeBytes ?? options.arenaBytes,
      file: fileSize(arenaPath),
    },
    dedicated: {
      limitBytes: running?.dedicated.limitBytes ?? options.dedicatedBytes,
      usedBytes: running?.dedicated.usedBytes ?? 0,
    },
    state: stateFacts(state),
    stateKey: attempt(() =>
      knownKeys(state, options.stateKeyFile, actor.uid)?.isChecked ? "right" : "none yet",
    ),
    daemon: answer,
    policy: policyFacts(policyFile, actor, running?.vms),
    libvirt: accessTo(LIBVIRT_SOCKET, actor, { write: true }),
    apparmor: await apparmorFacts(state, arenaPath),
    limits: limitsOf(running?.pid ?? process.pid),
  }
}

function policyFacts(path: string, { uid }: Actor, vms: DaemonFacts["vms"] | undefined): HostFacts["policy"] {
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
