/**
 * @module platform/swtpm
 *
 * One swtpm process: started as a child with its state key on a file descriptor, waited for until it answers,
 * stopped in order. The process does not depend on its parent's descriptors or terminal, so a VM outlives a
 * restart of its manager.
 *
 * ```
 *  spawn ──► (sockets appear, control answers) ready ──► stop(): CMD_SHUTDOWN ─► SIGTERM ─► SIGKILL
 *    └── exits first: reason from its log, nothing left behind          └── exited
 * ```
 */

import { closeSync, constants, fchmodSync, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { lstat } from "node:fs/promises"
import { isAbsolute } from "node:path"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { connectNow } from "./unix-address.ts"
import { probeSwtpm, shutdownSwtpm } from "./swtpm-control.ts"

const READY_TIMEOUT_MS = 10_000
const READY_POLL_MS = 5
const STOP_STEP_MS = 2_000

/** An idle swtpm answers in a millisecond; one that does not has QEMU on its control channel. */
const STOP_ANSWER_MS = 500
const STATE_KEY_BYTES = 32

/** sockaddr_un.sun_path with its NUL. */
const MAX_SOCKET_PATH_BYTES = 107

/** Log bytes looked at for the reason of a failure. */
const LOG_TAIL_BYTES = 4096

export interface SwtpmOptions {
  /** Absolute directory of the encrypted state; it must exist. */
  stateDir: string
  /** 32-byte AES key of the state. */
  stateKey: Uint8Array
  /** Absolute path of the control socket. */
  controlSocket: string
  /**
   * A socket that listens at `controlSocket` already, and that swtpm takes over: others may wait there before it runs,
   * and its path outlives it. `pidFile` then names the process to whoever looks for it.
   */
  controlListener?: { readonly fd: number; readonly pidFile: string }
  /** Absolute path of the data socket; without one, whoever holds the control socket passes it (QEMU does). */
  dataSocket?: string
  /** Absolute path of the file that gets swtpm's messages. */
  logFile: string
  /** Program name or path. */
  program?: string
}

export interface SwtpmExit {
  /** Exit code, or null when a signal ended it. */
  code: number | null
  signal: string | null
}

export interface SwtpmProcess {
  pid: number
  exited: Promise<SwtpmExit>
  /** Whether the process has ended. */
  isOver(): boolean
  /** Ends the process and returns when it is gone. Idempotent. */
  stop(): Promise<void>
}

/**
 * Starts swtpm and returns when it answers. With a data socket the TPM is powered on and waits for TPM2_Startup;
 * without one it is powered on through the control channel. One that takes a listener over is not asked: whoever waits
 * there comes first.
 *
 * @throws MvmError `setup` (not installed), `state_key` (wrong key), `swtpm` (state in use, other failures),
 *   `config` (a path). No process is left then.
 */
export async function startSwtpm(options: SwtpmOptions): Promise<SwtpmProcess> {
  const program = requireProgram(options.program ?? "swtpm")
  requireOptions(options)
  const sockets = [
    ...(options.controlListener ? [] : [options.controlSocket]),
    ...(options.dataSocket === undefined ? [] : [options.dataSocket]),
  ]
  for (const path of sockets) await removeStaleSocket(path, path === options.controlSocket)
  const child = spawnSwtpm(program, options)
  try {
    if (!options.controlListener) await waitUntilReady(child, options)
  } catch (error) {
    await child.stop()
    for (const path of sockets) rmSync(path, { force: true })
    throw error
  }
  return child
}

function requireProgram(program: string): string {
  const found = Bun.which(program)
  if (found !== null) return found
  throw new MvmError("setup", `${program} is not installed`, { hint: "apt-get install swtpm" })
}

function requireOptions(options: SwtpmOptions): void {
  if (options.stateKey.length !== STATE_KEY_BYTES) {
    throw new MvmError(
      "state_key",
      `state key: ${options.stateKey.length} bytes, ${STATE_KEY_BYTES} expected`,
    )
  }
  const paths = { stateDir: options.stateDir, logFile: options.logFile, controlSocket: options.controlSocket }
  for (const [field, path] of Object.entries({ ...paths, dataSocket: options.dataSocket ?? "/" })) {
    // swtpm separates its options with commas.
    if (!isAbsolute(path) || path.includes(",")) {
      throw new MvmError("config", `${field}: ${path} is not an absolute path without commas`)
    }
    if (field.endsWith("Socket") && Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
      throw new MvmError("config", `${field}: ${path} is longer than a unix socket path may be`)
    }
  }
}

/** A socket nobody listens on is removed; anything else at its path is an error. */
async function removeStaleSocket(path: string, isControl: boolean): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return undefined
    throw error
  })
  if (found === undefined) return
  if (!found.isSocket()) throw new MvmError("swtpm", `${path} exists and is not a socket`)
  if (isControl && isListening(path)) {
    throw new MvmError("swtpm", `another swtpm listens on ${path}`, {
      hint: "stop the vm that uses it first",
    })
  }
  rmSync(path, { force: true })
}

function isListening(path: string): boolean {
  try {
    closeSync(connectNow(path))
    return true
  } catch (error) {
    return errnoOf(error) === "EAGAIN"
  }
}

interface Child extends SwtpmProcess {
  exit(): SwtpmExit | undefined
}

function spawnSwtpm(program: string, options: SwtpmOptions): Child {
  const log = openSync(options.logFile, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600)
  try {
    fchmodSync(log, 0o600)
    const spawned = Bun.spawn({
      cmd: [program, ...swtpmArguments(options)],
      stdio: ["ignore", log, log, "pipe", "pipe", options.controlListener?.fd ?? "ignore"],
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
      cwd: options.stateDir,
      // Its own session: Ctrl-C at the manager's terminal is not for the TPM of a running VM.
      detached: true,
    })
    // A manager that has stopped ends, though its VMs go on.
    spawned.unref()
    for (const fd of [spawned.stdio[3], spawned.stdio[4]]) passKey(fd, options.stateKey)
    return follow(spawned, options)
  } finally {
    closeSync(log)
  }
}

function swtpmArguments(options: SwtpmOptions): string[] {
  const key = (fd: number) => `fd=${fd},format=binary,mode=aes-256-cbc`
  const args = ["socket", "--tpm2", "--tpmstate", `dir=${options.stateDir},mode=0600`]
  // Without a migration key, a state blob read over the control channel would hold private keys in plain.
  args.push("--key", key(3), "--migration-key", key(4))
  const listener = options.controlListener
  if (listener) args.push("--ctrl", "type=unixio,fd=5", "--pid", `file=${listener.pidFile}`)
  else args.push("--ctrl", `type=unixio,path=${options.controlSocket},mode=0600`)
  if (options.dataSocket !== undefined) {
    args.push("--server", `type=unixio,path=${options.dataSocket},mode=0600`, "--flags", "not-need-init")
  }
  return args
}

/** A write to a child that is already gone fails; its exit is reported instead. */
function passKey(fd: number | null | undefined, stateKey: Uint8Array): void {
  if (typeof fd !== "number") return
  try {
    writeSync(fd, stateKey)
  } catch {
    // Reported by waitUntilReady.
  } finally {
    closeSync(fd)
  }
}

function follow(spawned: Bun.Subprocess, options: SwtpmOptions): Child {
  let ended: SwtpmExit | undefined
  const exited = spawned.exited.then((): SwtpmExit => {
    const signal = spawned.signalCode
    return (ended = { code: spawned.exitCode, signal: signal === null ? null : String(signal) })
  })
  const within = async (ms: number) => {
    let timer: ReturnType<typeof setTimeout> | undefined
    await Promise.race([exited, new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))])
    clearTimeout(timer)
    return ended !== undefined
  }
  let stopping: Promise<void> | undefined
  const stop = async () => {
    if (ended !== undefined) return
    const isAnswered = await shutdownSwtpm(options.controlSocket, STOP_ANSWER_MS).then(
      () => true,
      () => false,
    )
    if (isAnswered && (await within(STOP_STEP_MS))) return
    // QEMU holds the control channel, or the process hangs.
    spawned.kill("SIGTERM")
    if (await within(STOP_STEP_MS)) return
    spawned.kill("SIGKILL")
    await exited
  }
  return {
    pid: spawned.pid,
    exited,
    isOver: () => ended !== undefined,
    exit: () => ended,
    stop: () => (stopping ??= stop()),
  }
}

async function waitUntilReady(child: Child, options: SwtpmOptions): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS
  let last: unknown
  while (performance.now() < deadline) {
    if (child.isOver()) throw startFailure(child, options)
    try {
      await probeSwtpm(options.controlSocket, READY_TIMEOUT_MS)
      return
    } catch (error) {
      last = error
    }
    await Promise.race([child.exited, Bun.sleep(READY_POLL_MS)])
  }
  throw new MvmError("swtpm", `swtpm did not answer within ${READY_TIMEOUT_MS / 1000} s`, { cause: last })
}

function startFailure(child: Child, options: SwtpmOptions): MvmError {
  const log = logTail(options.logFile)
  if (/Verification of HMAC failed|decrypt/i.test(log)) {
    return new MvmError(
      "state_key",
      `the vtpm state in ${options.stateDir} does not open with this state key`,
      {
        hint: "restore the state key that created this vm, or remove the vm and create it again",
      },
    )
  }
  if (/lock(file)?/i.test(log) && /Could not|access/i.test(log)) {
    return new MvmError("swtpm", `the vtpm state in ${options.stateDir} is in use by another swtpm`, {
      hint: "stop the vm that uses it first",
    })
  }
  const exit = child.exit()
  const status = exit?.signal ?? `status ${exit?.code ?? "unknown"}`
  const lines = log.split("\n").filter((line) => line.trim() !== "")
  const reason = lines.at(0)?.replace(/^swtpm:\s*/, "") ?? "no message"
  return new MvmError("swtpm", `swtpm ended at its start (${status}): ${reason}`, {
    hint: `see ${options.logFile}`,
  })
}

function logTail(path: string): string {
  try {
    return readFileSync(path).subarray(-LOG_TAIL_BYTES).toString("utf8")
  } catch {
    return ""
  }
}
