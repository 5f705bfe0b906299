/**
 * @module bench/tls-peer
 *
 * socat over TLS 1.3 with AES-256-GCM on loopback, from a file in the page cache to /dev/null. The file lies where files
 * do, on a disk's file system: tmpfs keeps it in pages of 4 KiB, which costs who maps it a quarter of its speed.
 */

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const BLOCK_BYTES = 262144

export class TlsPeer implements Disposable {
  readonly #directory: string
  readonly #lengthBytes: number

  private constructor(directory: string, lengthBytes: number) {
    this.#directory = directory
    this.#lengthBytes = lengthBytes
  }

  static async start(lengthBytes: number): Promise<TlsPeer> {
    const directory = mkdtempSync(join(tmpdir(), "mvm-bench-tls-"))
    const file = join(directory, "file")
    writeFileSync(file, "")
    truncateSync(file, lengthBytes)
    await run([
      "dd",
      "if=/dev/zero",
      `of=${file}`,
      "bs=1M",
      `count=${lengthBytes / 2 ** 20}`,
      // On the disk as well, or writing it back falls into the rounds.
      "conv=notrunc,fsync",
      "status=none",
    ])
    const pem = join(directory, "pem")
    const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    await run([
      "openssl",
      ...request,
      "-subj",
      "/CN=localhost",
      "-days",
      "1",
      "-keyout",
      pem,
      "-out",
      `${pem}.crt`,
    ])
    return new TlsPeer(directory, lengthBytes)
  }

  get file(): string {
    return join(this.#directory, "file")
  }

  /**
   * Sends the file once: GB/s from the sender's start to the receiver's end. `through` puts a cat on each side, as
   * in a pipeline.
   */
  async round(through: "file" | "cats" = "file"): Promise<number> {
    const port = freePort()
    const pem = join(this.#directory, "pem")
    const block = String(BLOCK_BYTES)
    const listen = `OPENSSL-LISTEN:${port},bind=127.0.0.1,reuseaddr,cert=${pem}.crt,key=${pem},verify=0,openssl-min-proto-version=TLS1.3`
    const receive = ["socat", "-u", "-b", block, listen, through === "file" ? "OPEN:/dev/null" : "-"]
    const receiver = Bun.spawn(through === "file" ? receive : pipeline(receive, ["cat"]), {
      stdout: Bun.file("/dev/null"),
      stderr: "ignore",
    })
    try {
      await listening(port)
      const connect = `OPENSSL:127.0.0.1:${port},verify=0,openssl-min-proto-version=TLS1.3`
      const start = Bun.nanoseconds()
      const send = ["socat", "-u", "-b", block, through === "file" ? `OPEN:${this.file}` : "-", connect]
      await run(through === "file" ? send : pipeline(["cat", this.file], send))
      await receiver.exited
      return this.#lengthBytes / (Bun.nanoseconds() - start)
    } finally {
      receiver.kill()
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** A shell pipeline of two commands whose words need no quoting. */
export function pipeline(left: readonly string[], right: readonly string[]): string[] {
  return ["sh", "-c", `${left.join(" ")} | ${right.join(" ")}`]
}

export function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const { port } = server
  server.stop(true)
  return port
}

/** Waits until somebody listens, without connecting: a connection would be the one the listener serves. */
export async function listening(port: number): Promise<void> {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`
  for (let attempt = 0; attempt < 500; attempt++) {
    const lines = (await Bun.file("/proc/net/tcp").text()).split("\n")
    if (lines.some((line) => line.trim().split(/\s+/)[1]?.endsWith(wanted) && / 0A /.test(line))) return
    await Bun.sleep(10)
  }
  throw new Error(`nobody listens on port ${port}`)
}

export async function run(command: readonly string[]): Promise<void> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "ignore", stderr: "pipe" })
  if ((await child.exited) !== 0) {
    throw new Error(`${command[0]}: ${(await new Response(child.stderr).text()).trim()}`)
  }
}
