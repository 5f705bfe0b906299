/**
 * @module platform/swtpm-setup
 *
 * One run of swtpm_setup: makes a new encrypted TPM state with endorsement keys and certificates for them, signed
 * by a local CA that swtpm_localca keeps in a directory. Works for any user, since every path is given.
 */

import { closeSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../lib/errors.ts"
import { toHex, utf8 } from "../lib/bytes.ts"

/** A run takes about a second; RSA key generation varies. */
const TIMEOUT_MS = 120_000

/** File names of swtpm_localca in the CA's directory. */
export const CA_FILES = {
  signingKey: "signkey.pem",
  issuer: "issuercert.pem",
  root: "swtpm-localca-rootca-cert.pem",
} as const

export interface SwtpmSetupOptions {
  /** Absolute, existing directory for the state. */
  stateDir: string
  /** 32-byte AES key. */
  stateKey: Uint8Array
  /** Absolute, existing directory of the CA; its keys are made at the first run. */
  caDir: string
  /** Absolute, existing, empty directory for configuration, log and the `ek-*.crt` files (DER). */
  workDir: string
  /** Subject of the certificates. */
  vmId: string
  /** Program name or path. */
  program?: string
}

/**
 * @throws MvmError `setup` (swtpm-tools not installed), `config` (a path swtpm_setup cannot take), `swtpm` (it
 *   failed). No process is left then.
 */
export async function runSwtpmSetup(options: SwtpmSetupOptions): Promise<void> {
  const program = requireTool(options.program ?? "swtpm_setup")
  const localca = requireTool("swtpm_localca")
  for (const [field, path] of Object.entries({ stateDir: options.stateDir, caDir: options.caDir })) {
    // Its configuration files have no quoting.
    if (!/^\/[\w./@+-]*$/.test(path)) throw new MvmError("config", `${field}: ${path} has unusual characters`)
  }
  if (!/^[\w.-]{1,128}$/.test(options.vmId)) throw new MvmError("config", "vmId: not a plain name or uuid")
  const logFile = join(options.workDir, "swtpm_setup.log")
  const config = writeConfiguration(options, localca)
  const child = Bun.spawn({
    cmd: [program, "--tpm2", "--tpmstate", options.stateDir, "--config", config, "--logfile", logFile].concat(
      ["--ecc", "--create-ek-cert", "--write-ek-cert-files", options.workDir, "--vmid", options.vmId],
      ["--keyfile-fd", "3", "--cipher", "aes-256-cbc", "--pcr-banks", "sha256"],
    ),
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    cwd: options.workDir,
    // A process group of its own, so that a run that hangs is ended with the swtpm it started.
    detached: true,
  })
  passKey(child.stdio[3], options.stateKey)
  const timer = setTimeout(() => endGroup(child.pid), TIMEOUT_MS)
  const status = await child.exited
  clearTimeout(timer)
  if (status === 0) return
  endGroup(child.pid)
  throw new MvmError("swtpm", `swtpm_setup ended with status ${status}: ${lastLine(logFile)}`)
}

function requireTool(program: string): string {
  const found = Bun.which(program)
  if (found !== null) return found
  throw new MvmError("setup", `${program} is not installed`, { hint: "apt-get install swtpm-tools" })
}

/** @returns the path of the configuration file for swtpm_setup */
function writeConfiguration({ caDir, workDir }: SwtpmSetupOptions, localca: string): string {
  const write = (name: string, lines: string[]): string => {
    const path = join(workDir, name)
    writeFileSync(path, `${lines.join("\n")}\n`, { mode: 0o600 })
    return path
  }
  const caConfig = write("localca.conf", [
    `statedir = ${caDir}`,
    `signingkey = ${join(caDir, CA_FILES.signingKey)}`,
    `issuercert = ${join(caDir, CA_FILES.issuer)}`,
    `certserial = ${join(caDir, "certserial")}`,
  ])
  const caOptions = write("localca.options", [
    "--platform-manufacturer mvm",
    "--platform-version 1",
    "--platform-model vtpm",
  ])
  return write("setup.conf", [
    `create_certs_tool = ${localca}`,
    `create_certs_tool_config = ${caConfig}`,
    `create_certs_tool_options = ${caOptions}`,
    "active_pcr_banks = sha256",
  ])
}

/** swtpm_setup wants the key as hex digits. */
function passKey(fd: number | null | undefined, stateKey: Uint8Array): void {
  if (typeof fd !== "number") return
  try {
    writeSync(fd, utf8(toHex(stateKey)))
  } catch {
    // The child is gone already; its exit status says why.
  } finally {
    closeSync(fd)
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL")
  } catch {
    // Nobody left in it.
  }
}

function lastLine(path: string): string {
  try {
    const lines = readFileSync(path, "utf8").split("\n")
    return lines.findLast((line) => line.trim() !== "")?.trim() ?? "no message"
  } catch {
    return "no message"
  } finally {
    rmSync(path, { force: true })
  }
}
