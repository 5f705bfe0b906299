/**
 * @module platform/qemu
 *
 * One QEMU process: started, waited for until its monitor answers, and told apart from one that ended at once. It has
 * a session and a log file of its own, so a VM outlives a restart of its manager.
 */

import { accessSync, closeSync, constants, openSync, readFileSync, rmSync } from "node:fs"
import { MvmError, asMvmError, errnoOf } from "../lib/errors.ts"
import {
  firmwareFiles,
  firmwarePackage,
  qemuArgs,
  qemuPackage,
  qemuProgram,
  type QemuOptions,
} from "./qemu-args.ts"
import { Qmp } from "./qmp.ts"
import { VM_FILES, fileProblem } from "./vm-files.ts"

/** How long QEMU may take until its monitor answers. */
const READY_TIMEOUT_MS = 20_000
/** How long a QEMU whose monitor is gone may take to end. */
const EXIT_GRACE_MS = 2_000
const LOG_TAIL_BYTES = 4096

export interface QemuExit {
  /** Exit code, or null when a signal ended it. */
  code: number | null
  signal: string | null
  /** The end of what QEMU wrote to stderr. */
  stderrTail: string
}

export interface QemuProcess {
  pid: number
  exited: Promise<QemuExit>
  /** Ends the process at once; returns when it is gone. */
  kill(): Promise<void>
}

/**
 * Starts a VM and returns when its monitor answers. Its messages go to `logFile`.
 *
 * @throws MvmError `setup` (QEMU or firmware not installed), `not_found` (kernel, initrd or disk that cannot be opened as
 *   QEMU will), `config` (a value), `qemu` (it ended at its start; the message is QEMU's own). No process or socket is
 *   left then.
 */
export async function launchQemu(options: QemuOptions, logFile: string): Promise<QemuProcess> {
  const args = qemuArgs(options)
  const program = requireFiles(options)
  const sockets = [options.linkSocket, options.qmpSocket, options.consoleSocket]
  for (const path of sockets) rmSync(path, { force: true })
  const qemu = spawnQemu([program, ...args], logFile)
  try {
    await waitUntilReady(qemu, options, logFile)
  } catch (error) {
    await qemu.kill()
    for (const path of sockets) rmSync(path, { force: true })
    throw error
  }
  return qemu
}

/** Checks every file a start needs and returns the path of the QEMU program. */
export function requireFiles(options: QemuOptions): string {
  const name = qemuProgram(options.machine)
  const program = Bun.which(name, { PATH: process.env["PATH"] ?? "" })
  if (program === null) {
    throw new MvmError("setup", `${name} is not installed`, {
      hint: `apt-get install ${qemuPackage(options.machine)}`,
    })
  }
  const { code } = firmwareFiles(options.firmware, options.machine)
  if (!isReadable(code)) {
    const hint = `apt-get install ${firmwarePackage(options.firmware, options.machine)}`
    throw new MvmError("setup", `${options.firmware} is not installed: no ${code}`, { hint })
  }
  for (const field of VM_FILES) {
    const path = options[field]
    const problem = path === undefined ? undefined : fileProblem(field, path)
    if (problem)
      throw new MvmError("not_found", `${field}: ${path}: ${problem.why}`, { hint: problem.remedy })
  }
  return program
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

interface Child extends QemuProcess {
  exit(): QemuExit | undefined
}

function spawnQemu(cmd: string[], logFile: string): Child {
  const log = openSync(logFile, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600)
  try {
    const env = { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" }
    const spawned = Bun.spawn({ cmd, stdio: ["ignore", log, log], env, cwd: "/", detached: true })
    // A manager that has stopped ends, though its VMs go on.
    spawned.unref()
    let ended: QemuExit | undefined
    const exited = spawned.exited.then((): QemuExit => {
      return (ended = {
        code: spawned.exitCode,
        signal: spawned.signalCode as string | null,
        stderrTail: logTail(logFile),
      })
    })
    const kill = async () => {
      if (ended === undefined) spawned.kill("SIGKILL")
      await exited
    }
    return { pid: spawned.pid, exited, kill, exit: () => ended }
  } catch (error) {
    throw new MvmError("qemu", `cannot start qemu: ${errnoOf(error) ?? "spawn failed"}`, { cause: error })
  } finally {
    closeSync(log)
  }
}

/** QEMU greets on its monitor once the machine is made and its files are loaded; its sockets are there before that. */
async function waitUntilReady(qemu: Child, options: QemuOptions, logFile: string): Promise<void> {
  const greeted = Qmp.connect(options.qmpSocket, { timeoutMs: READY_TIMEOUT_MS }).then(
    (qmp) => qmp.close(),
    (error: unknown) => asMvmError(error, "qemu"),
  )
  const problem = await Promise.race([greeted, qemu.exited.then(() => undefined)])
  const exit = qemu.exit() ?? (problem === undefined ? undefined : await exitSoon(qemu))
  if (exit !== undefined) {
    const how = exit.signal ?? `status ${exit.code}`
    const said = exit.stderrTail
      .trim()
      .split("\n")
      .at(-1)
      ?.replace(/^qemu-system-\w+: /, "")
    throw new MvmError("qemu", `qemu ended at its start (${how}): ${said || "no message"}`, {
      hint: `see ${logFile}`,
    })
  }
  if (problem !== undefined) {
    throw new MvmError("qemu", `qemu did not start: ${problem.message}`, { cause: problem })
  }
}

/** A QEMU that ends closes its monitor first. */
async function exitSoon(qemu: Child): Promise<QemuExit | undefined> {
  await Promise.race([qemu.exited, Bun.sleep(EXIT_GRACE_MS)])
  return qemu.exit()
}

function logTail(path: string): string {
  try {
    return readFileSync(path).subarray(-LOG_TAIL_BYTES).toString("utf8")
  } catch {
    return ""
  }
}
