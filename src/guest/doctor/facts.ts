/**
 * @module guest/doctor/facts
 *
 * What there is to know of a VM from inside, before anybody judges it. Nothing is changed, and nothing that cannot
 * be found out is an error: it is a fact too.
 */

import { existsSync, readdirSync, statSync } from "node:fs"
import { release } from "node:os"
import { toHex } from "../../lib/bytes.ts"
import { sha256 } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { findIvshmem, type SharedMemoryDevice } from "../../platform/ivshmem.ts"
import { CACHE_TYPES, type MappingProbe } from "../../platform/mapping.ts"
import { groupMembers } from "../../platform/system-programs.ts"
import { findVirtioPort } from "../../platform/virtio-port.ts"
import { BOOT_AGGREGATE_PCRS } from "../../tcb/measurement/quote.ts"
import { openTpmDevice } from "../../tpm/device-transport.ts"
import { AgentClient } from "../agent-client.ts"
import { PORT_NAME } from "../environment.ts"
import { GROUP } from "../install/plan.ts"
import { GuestVtpm } from "../vtpm.ts"
import { imaFacts, readKernel, runUnknownProgram, type ImaFacts, type ProbeFacts } from "./ima-facts.ts"

const TPM_DEVICE = "/dev/tpmrm0"
const TPM_SYSFS = "/sys/class/tpm/tpm0"
const ANSWER_MS = 15_000

/** A device file: whether others than root may open it. */
export interface DeviceFacts {
  readonly path: string
  readonly isOthers: boolean
}

export interface AgentFacts {
  readonly linked: boolean
  readonly name: string | null
  readonly mapping: string | null
  readonly memoryBytes: number
  /** Every way to map every device, as the agent measured them. */
  readonly mappings: readonly MappingProbe[]
  /** The MVM's opinion of this VM, and its clock ahead of ours; why there is none. */
  readonly standing: { readonly verdict: string; readonly clockAheadMs: number } | MvmError
}

export interface GuestFacts {
  readonly kernel: string
  readonly isRoot: boolean
  readonly port: DeviceFacts | undefined
  readonly portDriver: boolean
  readonly tpm: {
    readonly device: DeviceFacts | undefined
    readonly version: string | undefined
    /** Names of the banks that hold PCRs: "sha256". */
    readonly banks: readonly string[]
    /** SHA-256 (hex) over PCRs 0-9 as an MVM's vTPM gave them; why it is none. */
    readonly provisioned: string | MvmError
  }
  readonly ima: ImaFacts | MvmError
  /** What became of new programs; undefined where none was run. */
  readonly probe: ProbeFacts | undefined
  readonly commandLine: readonly string[]
  readonly memory: readonly SharedMemoryDevice[]
  /** Text of the kernel's list of cache types, where it can be read */
  readonly cacheTypes: string | undefined
  readonly lockdown: string
  /** Ways to sleep that the kernel offers: "freeze mem disk". */
  readonly sleep: string
  readonly deepestSleep: string
  readonly ptraceScope: string | undefined
  readonly kexecDisabled: string | undefined
  readonly sigEnforce: string | undefined
  readonly groupMembers: readonly string[] | undefined
  readonly agent: AgentFacts | MvmError
}

export interface GuestOptions {
  readonly socket: string
  /** Runs unknown programs. */
  readonly probe: boolean
}

export async function probeGuest({ socket, probe }: GuestOptions): Promise<GuestFacts> {
  const port = findVirtioPort(PORT_NAME)
  const agent = await agentFacts(socket)
  return {
    kernel: release(),
    isRoot: process.geteuid?.() === 0,
    port: device(port),
    portDriver: existsSync("/sys/bus/virtio/drivers/virtio_console"),
    tpm: {
      device: device(TPM_DEVICE),
      version: readKernel(`${TPM_SYSFS}/tpm_version_major`),
      banks: banks(),
      provisioned: await provisioned(),
    },
    ima: imaFacts(),
    probe: probe ? runUnknownProgram() : undefined,
    commandLine: (readKernel("/proc/cmdline") ?? "").split(/\s+/),
    memory: findIvshmem(),
    cacheTypes: readKernel(CACHE_TYPES),
    lockdown: /\[(\w+)\]/.exec(readKernel("/sys/kernel/security/lockdown") ?? "")?.[1] ?? "none",
    sleep: readKernel("/sys/power/state") ?? "",
    deepestSleep: readKernel("/sys/power/mem_sleep") ?? "",
    ptraceScope: readKernel("/proc/sys/kernel/yama/ptrace_scope"),
    kexecDisabled: readKernel("/proc/sys/kernel/kexec_load_disabled"),
    sigEnforce: readKernel("/sys/module/module/parameters/sig_enforce"),
    groupMembers: groupMembers(GROUP),
    agent,
  }
}

/** The agent, and through it the MVM. */
export async function agentFacts(socket: string): Promise<AgentFacts | MvmError> {
  try {
    const state = JSON.parse(await askAgent(socket, "STATUS")) as Omit<AgentFacts, "standing">
    const standing = await askAgent(socket, "STANDING").then(
      (json) => JSON.parse(json) as { verdict: string; clockAheadMs: number },
      asMvmError,
    )
    const { linked, name, mapping, memoryBytes, mappings } = state
    return { linked, name, mapping, memoryBytes, mappings, standing }
  } catch (error) {
    return asMvmError(error)
  }
}

async function askAgent(socket: string, question: "STATUS" | "STANDING"): Promise<string> {
  const agent = await AgentClient.connect(socket)
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, ANSWER_MS, new MvmError("timeout", "the agent does not answer"))
  try {
    agent.send(question, {})
    return await Promise.race([agent.until(() => agent.state), late])
  } finally {
    clearTimeout(timer)
    agent.close()
  }
}

async function provisioned(): Promise<string | MvmError> {
  try {
    const vtpm = await GuestVtpm.open(await openTpmDevice(TPM_DEVICE))
    try {
      return toHex(sha256(...(await vtpm.pcrRead(BOOT_AGGREGATE_PCRS))))
    } finally {
      vtpm.close()
    }
  } catch (error) {
    return asMvmError(error, "tpm")
  }
}

function banks(): string[] {
  try {
    return readdirSync(TPM_SYSFS).flatMap((entry) => /^pcr-(\w+)$/.exec(entry)?.[1] ?? [])
  } catch {
    return []
  }
}

function device(path: string | undefined): DeviceFacts | undefined {
  const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })
  if (path === undefined || !stat?.isCharacterDevice()) return undefined
  const isOthers =
    stat.uid !== 0 || (stat.mode & 0o006) !== 0 || (stat.gid !== 0 && (stat.mode & 0o060) !== 0)
  return { path, isOthers }
}
