/** @module test/platform/socket-file */

import { afterEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connectTo, listenAt } from "../../src/guest/streams/address.ts"
import { MvmError } from "../../src/lib/errors.ts"
import { serveMetrics } from "../../src/platform/metrics-server.ts"
import { listenUnix } from "../../src/platform/unix-socket.ts"

interface Listening {
  close(): void
}

const undo: (() => void)[] = []

afterEach(() => {
  for (const step of undo.splice(0).reverse()) step()
})

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "mvm-file-"))
  undo.push(() => rmSync(made, { recursive: true, force: true }))
  return made
}

/** A socket file whose listener was killed. */
function stale(path: string): void {
  const code = `
    Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } })
    process.kill(process.pid, "SIGKILL")
  `
  Bun.spawnSync([process.execPath, "-e", code])
  if (!lstatSync(path).isSocket()) throw new Error("no socket was left")
}

const WAYS: [string, (path: string) => Promise<Listening>][] = [
  ["a forward", (path) => listenAt({ kind: "unix", path }, () => {}, 0o640)],
  ["a link or a door", async (path) => listenUnix(path, 0o640, () => {})],
  ["metrics", async (path) => serveMetrics({ unix: path }, "text/plain", () => "")],
]

describe.each(WAYS)("%s at a unix socket", (name, listen) => {
  test("takes the place of a socket that was left, with its mode, and leaves nothing", async () => {
    const here = folder()
    const path = join(here, "s")
    stale(path)
    const listening = await listen(path)
    expect(readdirSync(here)).toEqual(["s"])
    expect(statSync(path).mode & 0o777).toBe(name === "metrics" ? 0o660 : 0o640)
    const connection = await connectTo({ kind: "unix", path }, new AbortController().signal)
    connection.reset(new MvmError("aborted", "only looked"))
    listening.close()
    expect(readdirSync(here)).toEqual([])
  })

  test("takes the place of no other file, nor of a link to one", async () => {
    const here = folder()
    const file = join(here, "precious")
    writeFileSync(file, "x")
    symlinkSync(file, join(here, "link"))
    for (const path of [file, join(here, "link")]) {
      const failure = await listen(path).then(
        () => undefined,
        (error: MvmError) => error,
      )
      expect(failure).toMatchObject({ code: "exists", message: `${path} is there and is no socket` })
    }
    expect(readFileSync(file, "utf8")).toBe("x")
    expect(readdirSync(here).sort()).toEqual(["link", "precious"])
  })

  test("leaves at its end what another has put there meanwhile", async () => {
    const path = join(folder(), "s")
    const listening = await listen(path)
    unlinkSync(path)
    writeFileSync(path, "another's")
    listening.close()
    await Bun.sleep(50)
    expect(existsSync(path) && readFileSync(path, "utf8")).toBe("another's")
  })
})

test("a forward at a socket that is listened at is refused, and the other goes on", async () => {
  const path = join(folder(), "s")
  const first = await listenAt({ kind: "unix", path }, (connection) => void connection.end())
  undo.push(() => first.close())
  expect(listenAt({ kind: "unix", path }, () => {})).rejects.toMatchObject({ code: "exists" })
  const connection = await connectTo({ kind: "unix", path }, new AbortController().signal)
  expect(await connection.read()).toBe(null)
})
