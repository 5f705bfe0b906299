/**
 * @module platform/terminal-line
 *
 * The program's side of a pseudo-terminal, held by whoever is at the other side: to stop its output as Ctrl-S does,
 * and to let it go on.
 *
 * @spec tcflow(3), ioctl_tty(2)
 */

import { closeSync, constants, fchownSync, fstatSync, openSync } from "node:fs"
import { libc, systemError } from "./ffi.ts"

const TCXONC = 0x540a
const TCOOFF = 0
const TCOON = 1

export class TerminalLine {
  readonly #fd: number

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** @param path "/dev/pts/3" @throws Error when it is gone, MvmError `io` */
  static open(path: string): TerminalLine {
    return new TerminalLine(openSync(path, constants.O_RDWR | constants.O_NOCTTY))
  }

  /** Programs that open the terminal by its name need it to be their user's. */
  giveTo(uid: number): void {
    fchownSync(this.#fd, uid, fstatSync(this.#fd).gid)
  }

  hold(): void {
    this.#flow(TCOOFF)
  }

  resume(): void {
    this.#flow(TCOON)
  }

  close(): void {
    closeSync(this.#fd)
  }

  #flow(action: number): void {
    if (libc().ioctl(this.#fd, TCXONC, action) !== 0) throw systemError("ioctl TCXONC")
  }
}
