/**
 * @module test/integration/carried-services
 *
 * Services and copies where a command does not map its channel's memory: over the relay, and as an ordinary user whose
 * records the agent carries.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { differences, noise, varied } from "../guest/copy/trees.ts"
import { MIB, hostForFile, type Running } from "./host.ts"
import type { RunOptions } from "./host-options.ts"

const GROUP = 61_000
const anna = { uid: 61_001, gid: GROUP }

// Before the host's own end.
afterAll(async () => {
  copies.kill("SIGTERM")
  await copies.over()
}, 30_000)
const host = hostForFile({
  members: ["a", "bare", "b"],
  agents: { a: ["--group", String(GROUP)], bare: ["--map", "none"] },
})

let copies: Running

beforeAll(async () => {
  for (const folder of ["", "s", "s/run", "s/run/a"]) chmodSync(join(host().folder, folder), 0o711)
  await host().serves("b", "cat", "--", "/bin/cat")
  await host().serves("b", "status", "--", "/bin/sh", "-c", 'echo out; echo error >&2; exit "$MVM_ARG"')
  mkdirSync(join(host().folder, "shown"))
  copies = host().spawn(["guest", "serve", "--copy", join(host().folder, "shown"), "--local", "b"])
  await copies.says("serving cp")
}, 60_000)

describe.each([
  ["over the relay", "bare", {}],
  ["as an ordinary user", "a", { user: anna }],
] as const)("%s", (_, member, who: RunOptions) => {
  const spawn = (words: readonly string[], options: RunOptions = {}): Running => {
    return host().spawn(["guest", ...words, "--local", member], { ...who, ...options })
  }

  test("a run has its streams apart, and its status", async () => {
    const running = spawn(["exec", "b", "status", "7"], { stdout: "pipe" })
    const stdout = await new Response(running.process.stdout as ReadableStream).text()
    expect([await running.over(), stdout, running.stderr()]).toEqual([7, "out\n", "error\n"])
    expect(await spawn(["exec", "b", "nobody"]).over()).toBe(127)
  })

  test("8 MiB go each way at once", async () => {
    const bytes = noise(8 * MIB)
    const out = join(host().folder, `echo-${member}`)
    const input = Bun.file(host().file(`input-${member}`, bytes)) as unknown as number
    const running = spawn(["exec", "b", "cat"], { stdin: input, stdout: out })
    expect([await running.over(), running.stderr()]).toEqual([0, ""])
    expect(Buffer.compare(readFileSync(out), bytes)).toBe(0)
  })

  test("a session goes on through a restart of the MVM", async () => {
    const out = join(host().folder, `long-${member}`)
    const running = spawn(["exec", "b", "cat"], { stdin: "pipe", stdout: out })
    const stdin = running.process.stdin as Bun.FileSink
    const halves = [noise(3 * MIB), noise(2 * MIB)]
    stdin.write(halves[0]!)
    await stdin.flush()
    await host().until("the first half", () => readFileSync(out).length === halves[0]!.length)
    await host().stopServe("SIGKILL")
    // Not waited for: what is held on the way takes less than this.
    stdin.write(halves[1]!)
    await host().serve()
    await Promise.all([host().linked(member), host().linked("b")])
    await stdin.end()
    expect([await running.over(), running.stderr()]).toEqual([0, ""])
    expect(Buffer.compare(readFileSync(out), Buffer.concat(halves))).toBe(0)
  })

  test("a folder is copied with all that belongs to it", async () => {
    const source = join(host().folder, `tree-${member}`)
    mkdirSync(source)
    varied(source)
    if (who.user) {
      const { uid, gid } = who.user
      Bun.spawnSync(["chmod", "-R", "u+rw", source])
      Bun.spawnSync(["chown", "-R", "--no-dereference", `${uid}:${gid}`, source])
    }
    const running = spawn(["cp", "-r", `${source}/.`, `b:of-${member}`])
    expect([await running.over(), running.stderr()]).toEqual([0, expect.any(String)])
    expect(differences(source, join(host().folder, "shown", `of-${member}`))).toBe("")
  })
})
