/**
 * @module guest/doctor/ima-facts
 *
 * What the kernel measured, and what runs now without having been measured. Only looks: a program that was started
 * to see whether the kernel notices would be one that no reference table knows. {@link runUnknownProgram} does
 * just that where it is asked for.
 */

import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { fromHex, toHex } from "../../lib/bytes.ts"
import { random, sha256 } from "../../lib/crypto.ts"
import { MvmError, asMvmError } from "../../lib/errors.ts"
import { parseImaEntries, type ImaEntry } from "../../tcb/measurement/ima-log.ts"
import { MeasurementLog } from "../../tcb/measurement/replay.ts"
import { kernelPathText } from "../../tcb/measurement/measured-path.ts"
import { BOOT_AGGREGATE, IMA_POLICY_PATHS } from "../../tcb/measurement/reference-table.ts"
import { kernelLog } from "../measurement-source.ts"

/** First programs of a boot: an initramfs, systemd, another init. */
const FIRST_PROGRAMS = new Set(["/init", "/sbin/init", "/usr/lib/systemd/systemd", "/usr/sbin/init"])
/** File systems of memory, where a policy for disks looks away. */
const IN_MEMORY = ["/dev/shm", "/run", "/tmp"]
const PCR_10 = "/sys/class/tpm/tpm0/pcr-sha256/10"

export interface ImaFacts {
  readonly entries: number
  /** Hex; undefined where the log does not begin with it. */
  readonly bootAggregate: string | undefined
  /** Path and digest (hex) of the policy that was loaded. */
  readonly policy: { readonly path: string; readonly digest: string } | undefined
  /** What was measured first; undefined where that is no init, so that something ran before unmeasured. */
  readonly firstProgram: string | undefined
  /** Programs that run and are not in the log. */
  readonly unmeasured: readonly string[]
  readonly running: number
  /** Whether the log leads to the value of PCR 10 in the TPM; undefined where the kernel does not show that. */
  readonly isInTpm: boolean | undefined
}

/** From which folders a program was run that nobody knew, and which of these runs were not measured. */
export interface ProbeFacts {
  readonly ran: readonly string[]
  readonly unmeasured: readonly string[]
}

/** The facts, or why there is no log. */
export function imaFacts(): ImaFacts | MvmError {
  try {
    // The kernel lists an entry before it extends the PCR: what was read first is no further than the log.
    const pcr = readKernel(PCR_10)
    const log = kernelLog().read(0)
    const { entries } = parseImaEntries(log, 0)
    const measured = new Set(entries.map(({ path }) => path))
    const programs = runningPrograms()
    const policy = entries.find(({ path }) => IMA_POLICY_PATHS.some((known) => known === path))
    const [first, second] = entries
    return {
      entries: entries.length,
      bootAggregate: first?.path === BOOT_AGGREGATE ? first.fileDigest.hex : undefined,
      policy: policy && { path: policy.path, digest: policy.fileDigest.hex },
      firstProgram: second && FIRST_PROGRAMS.has(second.path) ? second.path : undefined,
      unmeasured: programs.filter((path) => !measured.has(path)),
      running: programs.length,
      isInTpm: pcr === undefined ? undefined : leadsTo(log, pcr),
    }
  } catch (error) {
    return asMvmError(error, "setup")
  }
}

/** Whether a log, or a beginning of it, leads to a value of PCR 10. @param pcr 64 hex digits, as sysfs has them */
export function leadsTo(log: Uint8Array, pcr: string): boolean {
  try {
    new MeasurementLog().advance(log, 0, fromHex(pcr.toLowerCase()))
    return true
  } catch {
    return false
  }
}

/**
 * Runs a program that was never there before from each file system that lies in memory. Afterwards this VM has run
 * what nobody knows.
 */
export function runUnknownProgram(): ProbeFacts {
  const ran: string[] = []
  const unmeasured = IN_MEMORY.filter((place) => {
    let folder: string
    try {
      folder = mkdtempSync(join(place, "mvm-doctor-"))
    } catch {
      return false
    }
    try {
      const path = join(folder, "unknown")
      const content = `#!/bin/sh\n# ${toHex(random(16))}\nexit 0\n`
      writeFileSync(path, content)
      chmodSync(path, 0o755)
      // A file system that lets nothing run needs no measuring.
      if (Bun.spawnSync([path], { stdio: ["ignore", "ignore", "ignore"] }).exitCode !== 0) return false
      const digest = toHex(sha256(new TextEncoder().encode(content)))
      const isMeasured = readLog().entries.some(({ fileDigest }) => fileDigest.hex === digest)
      ran.push(place)
      return !isMeasured
    } catch {
      return false
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
  return { ran, unmeasured }
}

function readLog(): { entries: ImaEntry[] } {
  return parseImaEntries(kernelLog().read(0), 0)
}

/** Paths of what other processes and this one execute, as IMA writes them. Kernel threads execute nothing. */
function runningPrograms(): string[] {
  const paths = new Set<string>()
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const path = readlinkSync(`/proc/${pid}/exe`)
      // What was replaced or removed since is measured under the name it had.
      paths.add(kernelPathText(path.replace(/ \(deleted\)$/, "")))
    } catch {
      // It ended, or is the kernel's.
    }
  }
  return [...paths].toSorted()
}

/** A file of sysfs or procfs without its line feed, or undefined. */
export function readKernel(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    return undefined
  }
}
