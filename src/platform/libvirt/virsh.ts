/**
 * @module platform/libvirt/virsh
 *
 * Commands to a libvirt daemon through its own client, and the client's failures as ours. Domains are named by their
 * UUIDs once they are known: a name may be given to another domain later.
 */

import { MvmError } from "../../lib/errors.ts"
import { shellWord } from "../../lib/shell.ts"

export const DEFAULT_URI = "qemu:///system"

/** A start may have to make devices and labels first. */
const DEFAULT_TIMEOUT_MS = 60_000
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024

export class Virsh {
  readonly uri: string

  /** @throws MvmError `config` for a connection that is not to QEMU on this host: memory and sockets are here. */
  constructor(uri: string) {
    if (!/^qemu(\+unix)?:\/\/\/(system|session)(\?[\x21-\x7e]*)?$/.test(uri)) {
      throw new MvmError("config", `--connect: ${uri} is no connection to QEMU on this host`, {
        hint: `use ${DEFAULT_URI}`,
      })
    }
    this.uri = uri
  }

  /** Whether the daemon is one user's own. */
  get isSession(): boolean {
    return /^[^:]*:\/\/\/session(\?|$)/.test(this.uri)
  }

  /** How a person types this command: the words after `virsh`. */
  command(...words: string[]): string {
    const where = this.uri === DEFAULT_URI ? [] : ["-c", shellWord(this.uri)]
    // An option is told from a domain whose name begins like one.
    const typed = words.map((word) => (/^--[a-z-]+$/.test(word) ? word : shellWord(word)))
    return ["virsh", ...where, ...typed].join(" ")
  }

  /**
   * Runs one command and returns what it printed.
   *
   * @throws MvmError `setup` (virsh not installed), `unreachable` (no daemon), `not_found` (no such domain),
   *   `timeout`, `libvirt` with the daemon's own words.
   */
  async run(words: readonly string[], timeoutMs = DEFAULT_TIMEOUT_MS): Promise<string> {
    const child = Bun.spawn([requireVirsh(), "-q", "-c", this.uri, ...words], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LC_ALL: "C" },
      timeout: timeoutMs,
      maxBuffer: MAX_OUTPUT_BYTES,
    })
    const [output, errors] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ])
    if ((await child.exited) === 0) return output
    if (child.signalCode !== null) {
      throw new MvmError("timeout", `virsh ${words[0]}: no answer from libvirt within ${timeoutMs / 1000} s`)
    }
    throw this.failure(words[0] ?? "", errors)
  }

  /** What `virsh` wrote to its standard error, as an error. */
  failure(command: string, errors: string): MvmError {
    const lines = errors
      .split("\n")
      .map((line) => line.replace(/^error:\s*/, "").trim())
      .filter((line) => line !== "")
    const said = lines.at(-1) ?? "no message"
    if (/failed to connect to the hypervisor|client socket is closed|Disconnected from/.test(errors)) {
      return new MvmError("unreachable", `libvirt does not answer at ${this.uri}: ${said}`, {
        hint: `start it (systemctl start libvirtd), be root or in the group libvirt, or name it with --connect; ${this.command("list")} must work`,
      })
    }
    if (/failed to get domain|Domain not found/.test(errors)) {
      return new MvmError("not_found", `libvirt at ${this.uri} has no such domain: ${said}`, {
        hint: `${this.command("list", "--all")} shows them`,
      })
    }
    return new MvmError("libvirt", `virsh ${command}: ${said}`)
  }
}

/** The program's path. @throws MvmError `setup`. */
export function requireVirsh(): string {
  const found = Bun.which("virsh", { PATH: process.env["PATH"] ?? "" })
  if (found !== null) return found
  throw new MvmError("setup", "virsh is not installed", { hint: "apt-get install libvirt-clients" })
}
