/**
 * @module platform/accel
 *
 * How QEMU runs a VM. On x86-64 /dev/kvm may exist and still not run stock kernels (paravirtual nesting), so KVM is
 * used only where the processor's own module is loaded; on arm64, where the device opens. Else QEMU translates.
 */

import { accessSync, constants, existsSync, readFileSync } from "node:fs"
import { MvmError } from "../lib/errors.ts"

export type Accel = "kvm" | "tcg"

export interface AccelHost {
  arch: string
  /** The contents of /proc/modules; empty when there is none. */
  modules: string
  /** Whether a path exists. */
  exists(path: string): boolean
  /** Whether /dev/kvm opens for reading and writing. */
  kvmOpens: boolean
  /** The MVM_ACCEL setting. */
  override: string | undefined
}

/** @throws MvmError `config` when MVM_ACCEL is neither `kvm` nor `tcg`. */
export function chooseAccel(host: AccelHost = thisHost()): Accel {
  if (host.override !== undefined && host.override !== "") {
    if (host.override === "kvm" || host.override === "tcg") return host.override
    throw new MvmError("config", `MVM_ACCEL: ${JSON.stringify(host.override)} is neither kvm nor tcg`)
  }
  return host.kvmOpens && kvmRuns(host) ? "kvm" : "tcg"
}

/** Whether KVM here runs stock kernels, for who may open it. */
export function kvmRuns(host: AccelHost): boolean {
  return (
    host.arch === "arm64" ||
    ["kvm_intel", "kvm_amd"].some(
      (name) => new RegExp(`^${name} `, "m").test(host.modules) || host.exists(`/sys/module/${name}`),
    )
  )
}

/** The `-accel` and `-cpu` arguments. */
export function accelArgs(accel: Accel): string[] {
  return accel === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"]
}

/** What this machine offers now. */
export function thisHost(): AccelHost {
  return {
    arch: process.arch,
    modules: readText("/proc/modules"),
    exists: existsSync,
    kvmOpens: opens("/dev/kvm"),
    override: process.env["MVM_ACCEL"],
  }
}

function opens(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}
