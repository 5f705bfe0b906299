/**
 * @module platform/terminal
 *
 * The terminal this process was started in: its size, and raw mode. The runtime's own way to raw mode takes standard
 * input over for good; here nothing changes but the terminal, and all of it is put back.
 *
 * @spec termios(3), ioctl_tty(2); the layout is that of Linux on x86-64 and arm64
 */

import { ptr } from "bun:ffi"
import { closeSync, constants, openSync } from "node:fs"
import { libc, systemError } from "./ffi.ts"

const TIOCGWINSZ = 0x5413
const TCSADRAIN = 1
/** struct termios: four flag words, c_line, 32 control characters, two speeds */
const TERMIOS_BYTES = 60
const [IFLAG, OFLAG, CFLAG, LFLAG] = [0, 4, 8, 12] as const
const CC = 17
const [VTIME, VMIN] = [5, 6] as const

// cfmakeraw(3)
const RAW_INPUT_OFF = 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000
const RAW_OUTPUT_OFF = 0o1
const RAW_LOCAL_OFF = 0o10 | 0o100 | 0o2 | 0o1 | 0o100000
const CSIZE_PARENB = 0o60 | 0o400
const CS8 = 0o60

export interface WindowSize {
  readonly columns: number
  readonly rows: number
}

/** The size of the terminal at `fd`; undefined where there is none, or it has no size. */
export function windowSize(fd: number): WindowSize | undefined {
  const size = new Uint16Array(4)
  if (libc().ioctl(fd, TIOCGWINSZ, BigInt(ptr(size))) !== 0) return undefined
  const [rows = 0, columns = 0] = size
  return columns > 0 && rows > 0 ? { columns, rows } : undefined
}

/**
 * Puts the terminal at `fd` into raw mode: every key is a byte at once, nothing is echoed, nothing signals.
 *
 * @returns what puts it back as it was; called again it does nothing
 * @throws MvmError `io` where there is no terminal.
 */
export function makeRaw(fd: number): () => void {
  const before = new Uint8Array(TERMIOS_BYTES)
  if (libc().tcgetattr(fd, ptr(before)) !== 0) throw systemError("tcgetattr")
  // A description of its own: `fd` may be something else by the time the terminal is put back.
  const own = openSync(`/proc/self/fd/${fd}`, constants.O_RDWR | constants.O_NOCTTY)
  set(own, rawFrom(before))
  let isRaw = true
  return () => {
    if (!isRaw) return
    isRaw = false
    try {
      set(own, before)
    } catch {
      // The terminal has gone, and nobody is left to miss its mode.
    }
    closeSync(own)
  }
}

function rawFrom(before: Uint8Array): Uint8Array {
  const raw = before.slice()
  const flags = new DataView(raw.buffer)
  const change = (at: number, off: number, on = 0): void =>
    flags.setUint32(at, ((flags.getUint32(at, true) & ~off) | on) >>> 0, true)
  change(IFLAG, RAW_INPUT_OFF)
  change(OFLAG, RAW_OUTPUT_OFF)
  change(CFLAG, CSIZE_PARENB, CS8)
  change(LFLAG, RAW_LOCAL_OFF)
  raw[CC + VMIN] = 1
  raw[CC + VTIME] = 0
  return raw
}

function set(fd: number, termios: Uint8Array): void {
  if (libc().tcsetattr(fd, TCSADRAIN, ptr(termios)) !== 0) throw systemError("tcsetattr")
}
