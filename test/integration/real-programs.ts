/**
 * @module test/integration/real-programs
 *
 * Servers and clients that people use, for tests: each in a folder of its own, ended by its pid.
 */

import { chownSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { findUser, type User } from "../../src/platform/users.ts"
import { HANG_MS } from "./host.ts"

const POSTGRES = "/usr/lib/postgresql"

export interface Ran {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export interface Surroundings {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly user?: User | undefined
}

/** Runs a program to its end. */
export async function run(words: readonly string[], { cwd, env, user }: Surroundings = {}): Promise<Ran> {
  const child = Bun.spawn([...words], {
    ...(cwd === undefined ? {} : { cwd }),
    ...(user ? { uid: user.uid, gid: user.gid } : {}),
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  } as Parameters<typeof Bun.spawn>[1])
  const text = (stream: unknown): Promise<string> => new Response(stream as ReadableStream).text()
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { status: await child.exited, stdout, stderr }
}

/** A status other than 0 is an error. */
export async function must(words: readonly string[], surroundings?: Surroundings): Promise<string> {
  const { status, stdout, stderr } = await run(words, surroundings)
  if (status !== 0) throw new Error(`${words.join(" ")}: status ${status}: ${stdout}${stderr}`)
  return stdout
}

/** A server with a folder of its own. */
export class Server {
  readonly folder: string
  #child: Bun.Subprocess | undefined

  private constructor(folder: string) {
    this.folder = folder
  }

  /** PostgreSQL on a unix socket in {@link folder}. It refuses to be root. */
  static async postgres(): Promise<Server> {
    const server = new Server(mkdtempSync(join(tmpdir(), "mvpg-")))
    const [version] = readdirSync(POSTGRES).toSorted((a, b) => Number(b) - Number(a))
    const bin = (name: string): string => join(POSTGRES, version ?? "", "bin", name)
    const user = process.geteuid?.() === 0 ? findUser("postgres") : undefined
    if (user) chownSync(server.folder, user.uid, user.gid)
    const data = join(server.folder, "data")
    await must([bin("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-N", "--no-locale"], { user })
    const settings = ["listen_addresses=", "fsync=off", `unix_socket_directories=${server.folder}`]
    const options = settings.flatMap((setting) => ["-c", setting])
    server.#start([bin("postgres"), "-D", data, ...options], user)
    await server.#answers(join(server.folder, ".s.PGSQL.5432"))
    return server
  }

  /** Redis on a unix socket in {@link folder}. */
  static async redis(): Promise<Server> {
    const server = new Server(mkdtempSync(join(tmpdir(), "mvrd-")))
    const path = join(server.folder, "redis.sock")
    server.#start(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", server.folder])
    await server.#answers(path)
    return server
  }

  /** Ends it, and removes its folder. */
  async end(): Promise<void> {
    this.#child?.kill("SIGINT")
    await this.#child?.exited
    rmSync(this.folder, { recursive: true, force: true })
  }

  #start(words: readonly string[], user?: User): void {
    this.#child = Bun.spawn([...words], {
      ...(user ? { uid: user.uid, gid: user.gid } : {}),
      cwd: this.folder,
      stdio: ["ignore", Bun.file(join(this.folder, "out")), Bun.file(join(this.folder, "errors"))],
    } as Parameters<typeof Bun.spawn>[1])
  }

  async #answers(path: string): Promise<void> {
    const deadline = performance.now() + HANG_MS
    while (!(await canConnect(path))) {
      if (this.#child?.exitCode !== null || performance.now() > deadline) {
        throw new Error(`the server did not start: ${readFileSync(join(this.folder, "errors"), "utf8")}`)
      }
      await Bun.sleep(50)
    }
  }
}

/** What an SSH server without a port needs, and the words of a client that reaches it through `proxy`. */
export async function sshKeys(
  folder: string,
): Promise<{ config: string; client: (proxy: string) => string[] }> {
  const at = (name: string): string => join(folder, name)
  for (const key of ["host", "user"])
    await must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(key)])
  writeFileSync(at("authorized"), readFileSync(at("user.pub")), { mode: 0o600 })
  const settings = [
    `HostKey ${at("host")}`,
    `AuthorizedKeysFile ${at("authorized")}`,
    "PidFile none",
    "StrictModes no",
    "UsePAM no",
    "PasswordAuthentication no",
    "PermitRootLogin prohibit-password",
    "Subsystem sftp internal-sftp",
  ]
  writeFileSync(at("sshd_config"), `${settings.join("\n")}\n`)
  if (process.geteuid?.() === 0) mkdirSync("/run/sshd", { recursive: true })
  const options = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "BatchMode=yes",
  ]
  return {
    config: at("sshd_config"),
    client: (proxy) => [
      ...["ssh", "-F", "none", "-i", at("user")],
      ...[...options, `ProxyCommand=${proxy}`].flatMap((option) => ["-o", option]),
    ],
  }
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path })
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", () => resolve(false))
  })
}
