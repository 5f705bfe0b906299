/**
 * @module platform/service-manager
 *
 * What a daemon tells systemd of itself: that it is ready, what it does, that it still lives, that it ends. Without
 * a service manager nothing is said and nothing is different.
 *
 * Not here: RELOADING, MAINPID, descriptors in the manager's keeping.
 *
 * @spec sd_notify(3), sd_watchdog_enabled(3)
 */

import { ptr } from "bun:ffi"
import { closeSync } from "node:fs"
import { libc, systemError } from "./ffi.ts"
import { socketAddress } from "./unix-address.ts"

const AF_UNIX = 1
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const MSG_DONTWAIT_NOSIGNAL = 0x40 | 0x4000
const MAX_STATUS = 200
const STATUS_PERIOD_MS = 1000

/** Environment of a process, as far as it concerns its service manager. */
type Environment = Record<string, string | undefined>

export interface LifeSigns {
  /** One line for people, asked for every second. */
  status(): string
  /** Whether the daemon can do its work; what it throws means no. */
  isAlive(): boolean
}

export class ServiceManager {
  readonly #address: Uint8Array | undefined
  readonly #watchdogMs: number | undefined
  #timers: ReturnType<typeof setInterval>[] = []
  #status = ""

  private constructor(address: Uint8Array | undefined, watchdogMs: number | undefined) {
    this.#address = address
    this.#watchdogMs = watchdogMs
  }

  /**
   * The manager that `environment` names, if any. Its variables are taken out: they are not for this process's own
   * children.
   */
  static from(environment: Environment, pid: number): ServiceManager {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: period, WATCHDOG_PID: watched } = environment
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete environment[name]
    const isWatched = watched === undefined || watched === String(pid)
    const microseconds = isWatched && /^[1-9]\d{0,15}$/.test(period ?? "") ? Number(period) : undefined
    return new ServiceManager(
      socket === undefined ? undefined : socketAddress(socket),
      microseconds === undefined ? undefined : microseconds / 1000,
    )
  }

  /**
   * The daemon is ready for its users. From now on it says what it does whenever that changes, and as long as it is
   * alive keeps the watchdog quiet: a process whose event loop stands still, or that cannot do its work, does not.
   */
  ready(signs: LifeSigns): void {
    if (!this.#address || this.#timers.length > 0) return
    this.#status = signs.status()
    this.#send(`READY=1\nSTATUS=${oneLine(this.#status)}`)
    this.#every(STATUS_PERIOD_MS, () => {
      const status = signs.status()
      if (status === this.#status) return
      this.#status = status
      this.#send(`STATUS=${oneLine(status)}`)
    })
    // Twice a period, as sd_watchdog_enabled(3) asks for.
    if (this.#watchdogMs !== undefined) {
      this.#every(this.#watchdogMs / 2, () => {
        if (signs.isAlive()) this.#send("WATCHDOG=1")
      })
    }
  }

  /** The daemon has begun to end; nothing is said after this. */
  stopping(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
    if (this.#address) this.#send("STOPPING=1")
  }

  #every(periodMs: number, work: () => void): void {
    const timer = setInterval(() => {
      try {
        work()
      } catch {
        // No sign of life is the sign.
      }
    }, periodMs)
    timer.unref()
    this.#timers.push(timer)
  }

  /** A manager that is gone, or slow, is no reason for the daemon to fail. */
  #send(state: string): void {
    try {
      sendDatagram(this.#address as Uint8Array, Buffer.from(`${state}\n`))
    } catch {
      // It will see that nothing came.
    }
  }
}

/** @throws MvmError `io`. */
export function sendDatagram(address: Uint8Array, message: Uint8Array): void {
  const fd = libc().socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)
  if (fd < 0) throw systemError("socket")
  try {
    const sent = libc().sendto(
      fd,
      ptr(message),
      message.length,
      MSG_DONTWAIT_NOSIGNAL,
      ptr(address),
      address.length,
    )
    if (Number(sent) !== message.length) throw systemError("sendto")
  } finally {
    closeSync(fd)
  }
}

function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f]+/g, " ").slice(0, MAX_STATUS)
}
