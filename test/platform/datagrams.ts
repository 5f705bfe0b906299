/**
 * @module test/platform/datagrams
 *
 * A unix datagram socket as systemd has one, held by socat, which writes down what arrives.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs"

export class Datagrams {
  readonly address: string
  readonly #file: string
  readonly #socat: Bun.Subprocess

  private constructor(address: string, file: string, socat: Bun.Subprocess) {
    this.address = address
    this.#file = file
    this.#socat = socat
  }

  /** @param address a path, or an abstract name that begins with "@" @param file where the datagrams are kept */
  static async listen(address: string, file: string): Promise<Datagrams> {
    writeFileSync(file, "")
    const name = address.startsWith("@") ? `ABSTRACT-RECV:${address.slice(1)}` : `UNIX-RECV:${address}`
    const socat = Bun.spawn(["socat", "-u", name, `OPEN:${file},append`], {
      stdio: ["ignore", "ignore", "inherit"],
    })
    const isBound = (): boolean => readFileSync("/proc/net/unix", "utf8").includes(` ${address}\n`)
    const deadline = performance.now() + 10_000
    while (!isBound() && performance.now() < deadline) await Bun.sleep(10)
    return new Datagrams(address, file, socat)
  }

  /** Lines that arrived so far. */
  lines(): string[] {
    return existsSync(this.#file) ? readFileSync(this.#file, "utf8").split("\n").filter(Boolean) : []
  }

  /** Resolves when `ready` says so of the lines. */
  async until(what: string, ready: (lines: string[]) => boolean): Promise<string[]> {
    const deadline = performance.now() + 20_000
    while (!ready(this.lines())) {
      if (performance.now() > deadline)
        throw new Error(`waited in vain for ${what}: ${this.lines().join(", ")}`)
      await Bun.sleep(10)
    }
    return this.lines()
  }

  async close(): Promise<void> {
    this.#socat.kill()
    await this.#socat.exited
  }
}
