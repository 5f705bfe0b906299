/**
 * @module bench/ssh-peer
 *
 * OpenSSH with aes256-gcm on loopback, from a file to /dev/null: a server of its own with keys of its own, which
 * ends with the benchmark.
 */

import { mkdtempSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { freePort, listening, run } from "./tls-peer.ts"

export class SshPeer implements Disposable {
  readonly #directory: string
  readonly #server: Bun.Subprocess
  readonly #port: number

  private constructor(directory: string, server: Bun.Subprocess, port: number) {
    this.#directory = directory
    this.#server = server
    this.#port = port
  }

  static async start(): Promise<SshPeer> {
    const directory = mkdtempSync(join(tmpdir(), "mvm-bench-ssh-"))
    const at = (name: string): string => join(directory, name)
    for (const key of ["host", "user"]) {
      await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(key)])
    }
    writeFileSync(at("authorized"), readFileSync(at("user.pub")), { mode: 0o600 })
    const port = freePort()
    const settings = [
      `Port ${port}`,
      "ListenAddress 127.0.0.1",
      `HostKey ${at("host")}`,
      `AuthorizedKeysFile ${at("authorized")}`,
      `PidFile ${at("pid")}`,
      "StrictModes no",
      "UsePAM no",
      "PasswordAuthentication no",
      "PermitRootLogin prohibit-password",
      "Ciphers aes256-gcm@openssh.com",
    ]
    writeFileSync(at("config"), `${settings.join("\n")}\n`)
    if (process.geteuid?.() === 0) mkdirSync("/run/sshd", { recursive: true })
    const server = Bun.spawn(["/usr/sbin/sshd", "-D", "-f", at("config")], {
      stdio: ["ignore", "ignore", "ignore"],
    })
    const peer = new SshPeer(directory, server, port)
    try {
      await listening(port)
      await peer.#ssh("true", "/dev/null")
      return peer
    } catch (error) {
      peer[Symbol.dispose]()
      throw error
    }
  }

  /** Sends `file` once: GB/s. */
  async round(file: string): Promise<number> {
    const start = Bun.nanoseconds()
    await this.#ssh("cat >/dev/null", file)
    return statSync(file).size / (Bun.nanoseconds() - start)
  }

  async #ssh(command: string, input: string): Promise<void> {
    const options = [
      "StrictHostKeyChecking=no",
      "UserKnownHostsFile=/dev/null",
      "LogLevel=ERROR",
      "BatchMode=yes",
    ]
    const child = Bun.spawn(
      [
        "ssh",
        "-F",
        "none",
        "-i",
        join(this.#directory, "user"),
        "-p",
        String(this.#port),
        "-c",
        "aes256-gcm@openssh.com",
        ...options.flatMap((option) => ["-o", option]),
        `${userName()}@127.0.0.1`,
        command,
      ],
      { stdin: Bun.file(input), stdout: "ignore", stderr: "pipe" },
    )
    if ((await child.exited) !== 0)
      throw new Error(`ssh: ${(await new Response(child.stderr).text()).trim()}`)
  }

  [Symbol.dispose](): void {
    this.#server.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** The runtime does not ask the system's user database. */
function userName(): string {
  return Bun.spawnSync(["id", "-un"]).stdout.toString().trim()
}
