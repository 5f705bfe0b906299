/**
 * @module test/integration/copy
 *
 * `mvm guest cp` between real members, both ways.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { differences, holes, manyFiles, noise, occupied, varied } from "../guest/copy/trees.ts"
import { LONG } from "./host-options.ts"
import { ALLOW_ALL, hostForFile, rule, type Outcome, type Running } from "./host.ts"

const MIB = 1 << 20
/** A copy that is killed, and the time within which that happens. */
const KILLED = LONG
  ? { files: 20_000, sparseMib: 4096, withinMs: 10_000, limitMs: 1_200_000 }
  : { files: 1500, sparseMib: 256, withinMs: 1500, limitMs: 120_000 }
// Before the host's own end.
afterAll(async () => {
  await stopped(service)
}, 30_000)
const host = hostForFile({ members: ["a", "b", "bare"], agents: { bare: ["--map", "none"] } })

/** A service of `b`, until the test file ends. */
async function serve(folder: string, ...words: string[]): Promise<Running> {
  const name = words[0]?.startsWith("-") === false ? words[0] : "cp"
  const service = host().spawn(["guest", "serve", ...words, "--copy", folder, "--local", "b"])
  await service.says(`serving ${name}`)
  return service
}

function cp(...words: string[]): Promise<Outcome> {
  return host().run("guest", "cp", "--local", "a", ...words)
}

async function stopped(service: Running): Promise<void> {
  service.kill("SIGTERM")
  expect(await service.over()).toBe(0)
}

let count = 0
function folder(name: string): string {
  const path = join(host().folder, "trees", String(count), name)
  mkdirSync(path, { recursive: true })
  return path
}

/** Everything is shown, for reading and writing. */
let shown: string
let service: Running
beforeAll(async () => {
  shown = join(host().folder, "shown")
  mkdirSync(shown)
  service = await serve(shown)
}, 30_000)

function place(): { source: string; name: string; target: string } {
  count += 1
  const name = `t${count}`
  return { source: folder("source"), name, target: join(shown, name) }
}

interface Event {
  event: string
  path?: string
  outcome?: string
  sent?: number
  entries?: number
  refused?: number
}

function eventsOf({ stdout }: Outcome): Event[] {
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Event)
}

describe("cp", () => {
  test("puts a varied tree there and takes it back as it was; a second run transfers nothing", async () => {
    const { source, name, target } = place()
    varied(source)
    expect(await cp("-r", `${source}/.`, `b:${name}`)).toMatchObject({ status: 0 })
    expect(differences(source, target)).toBe("")
    const again = eventsOf(await cp("-r", `${source}/.`, `b:${name}`, "--json"))
    expect(again.at(-1)).toMatchObject({ event: "end", sent: 0, refused: 0 })
    const back = folder("back")
    expect(await cp("--recursive", `b:${name}/.`, back)).toMatchObject({ status: 0 })
    expect(differences(source, back)).toBe("")
    const taken = eventsOf(await cp("-r", `b:${name}/`, `b:${name}/deep`, back, "--json"))
    expect(taken.at(-1)).toMatchObject({ event: "end", refused: 0 })
    expect(readdirSync(back)).toContain(name)
    expect(readdirSync(back)).toContain("deep")
  })

  test("names each file on a line where no terminal is, and each entry in JSON", async () => {
    const { source, name } = place()
    writeFileSync(join(source, "one"), noise(1500))
    writeFileSync(join(source, "two\u001b[31m"), "x")
    symlinkSync("one", join(source, "three"))
    const said = await cp("-r", `${source}/.`, `b:${name}`)
    expect(said.status).toBe(6)
    expect(said.stderr).toContain("mvm: one, 1.46 KiB\n")
    expect(said.stderr).toContain("mvm: three, a link\n")
    expect(said.stderr).toContain("mvm: two\\u001b[31m: names with control characters are not taken\n")
    expect(said.stderr).toContain("mvm: hint: everything else was copied\n")
    expect(said.stderr).not.toContain("\u001b")
    rmSync(join(source, "two\u001b[31m"))
    writeFileSync(join(source, "four"), "4444")
    const events = eventsOf(await cp("-r", `${source}/.`, `b:${name}`, "--json"))
    expect(events[0]).toMatchObject({ event: "begin", peer: "b", peerVerdict: "trusted", service: "cp" })
    expect(events.filter(({ event }) => event === "entry")).toMatchObject(
      [
        { path: "one", outcome: "same" },
        { path: "three", outcome: "same" },
        { path: "four", outcome: "copied", sent: 4 },
      ].sort(
        (x, y) =>
          events.findIndex(({ path }) => path === x.path) - events.findIndex(({ path }) => path === y.path),
      ),
    )
    expect((await cp("-r", `${source}/.`, `b:${name}`, "--quiet")).stderr).toBe("")
  })

  test.each([
    ["../outside", 6, "leads out of the folder that is served"],
    ["/etc", 6, "is absolute"],
    ["a/../../b", 6, "leads out of the folder that is served"],
  ])("to b:%s is refused with status %d", async (path, status, message) => {
    const { source } = place()
    writeFileSync(join(source, "file"), "x")
    for (const outcome of [
      await cp(join(source, "file"), `b:${path}`),
      await cp(`b:${path}`, folder("back")),
    ]) {
      expect([outcome.status, outcome.stderr]).toEqual([status, expect.stringContaining(message)])
    }
  })

  test.each([
    [["a"], "an argument is missing"],
    [["a", "b"], "no VM is named"],
    [["a:b", "c:d"], "one end of a copy is this machine"],
    [["no-such-file", "b:"], "no-such-file: no such file or folder"],
    [["b:", "no-such-folder"], "no-such-folder: no such file or folder"],
    [["b:", ".", "--links", "some"], "--links: some is none of inside, all"],
  ])("%j is wrong usage", async (words, message) => {
    const { status, stderr } = await cp(...words)
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)])
  })

  test.each([
    ["over the relay", ["guest", "cp", "--local", "bare"]],
    ["with the content hashed as well", ["guest", "cp", "--local", "a", "--digest", "sha256"]],
    ["from the host itself", ["cp"]],
  ])("%s puts there what it takes back", async (_, words) => {
    const { source, name, target } = place()
    if (words[0] === "cp") {
      // The first who uses it makes it; what it runs is learnt after that.
      await host().run("send", "b")
      await host().must("measure", "learn", "host")
    }
    manyFiles(source, 50)
    writeFileSync(join(source, "large"), noise(3 * MIB))
    const put = await host().run(...words, "-r", `${source}/.`, `b:${name}`)
    expect([put.status, put.stderr]).toEqual([0, expect.stringContaining("51 files")])
    expect(differences(source, target)).toBe("")
    const back = folder("back")
    expect((await host().run(...words, "-r", `b:${name}/.`, back)).status).toBe(0)
    expect(differences(source, back)).toBe("")
  })

  test("says so where nobody serves, and waits for it where asked", async () => {
    const { source } = place()
    writeFileSync(join(source, "file"), "x")
    const nobody = await cp(join(source, "file"), "b:", "--service", "later")
    expect(nobody.status).toBe(3)
    const waiting = host().spawn([
      "guest",
      "cp",
      "--local",
      "a",
      join(source, "file"),
      "b:",
      "--service",
      "later",
      "--wait",
      "20s",
    ])
    const late = folder("late")
    const other = await serve(late, "later")
    expect(await waiting.over()).toBe(0)
    expect(readdirSync(late)).toEqual(["file"])
    await stopped(other)
  })

  test("resumes what broke off when the service died, and when this end did", async () => {
    const { source, name, target } = place()
    writeFileSync(join(source, "large"), noise(96 * MIB))
    for (const who of ["here", "there", "here"]) {
      const copying = host().spawn(
        ["guest", "cp", "--local", "a", join(source, "large"), `b:${name}`, "--json"],
        {
          stdout: join(host().folder, "events"),
        },
      )
      const before = occupiedOrNone(target)
      await host().until(
        "some of it",
        () => occupiedOrNone(target) > before + 4 * MIB || copying.process.exitCode !== null,
      )
      if (who === "here") copying.kill("SIGKILL")
      else service.kill("SIGKILL")
      await copying.over()
      if (who === "there") {
        await service.over()
        service = await serve(shown)
      }
    }
    const events = eventsOf(await cp(join(source, "large"), `b:${name}`, "--json"))
    expect(events.at(-1)).toMatchObject({ event: "end", refused: 0 })
    expect(events.at(-1)?.sent ?? Infinity).toBeLessThan(90 * MIB)
    expect(differences(source, target)).toBe("")
  })
})

function occupiedOrNone(path: string): number {
  return statSync(path, { throwIfNoEntry: false }) ? occupied(path) : 0
}

describe("a service for copies", () => {
  test("is for reading or for writing where it says so", async () => {
    const { source } = place()
    writeFileSync(join(source, "file"), "x")
    const [out, into] = [folder("out"), folder("in")]
    writeFileSync(join(out, "there"), "y")
    const reading = await serve(out, "reading", "--read-only")
    const writing = await serve(into, "writing", "--write-only")
    const refused = await cp(join(source, "file"), "b:", "--service", "reading")
    expect([refused.status, refused.stderr]).toEqual([6, expect.stringContaining("this folder is read-only")])
    const hidden = await cp("b:file", folder("back"), "--service", "writing")
    expect([hidden.status, hidden.stderr]).toEqual([6, expect.stringContaining("this folder is write-only")])
    expect((await cp("b:there", folder("back"), "--service", "reading")).status).toBe(0)
    expect((await cp(join(source, "file"), "b:", "--service", "writing")).status).toBe(0)
    expect([readdirSync(out), readdirSync(into)]).toEqual([["there"], ["file"]])
    await stopped(reading)
    await stopped(writing)
  })

  test("keeps to its limits, and goes on serving", async () => {
    const { source } = place()
    for (const name of ["a", "b", "c"]) writeFileSync(join(source, name), noise(MIB))
    const into = folder("in")
    const bounded = await serve(into, "bounded", "--max-bytes", "2M", "--max-files", "2")
    const files = await cp(...["a", "b", "c"].map((name) => join(source, name)), "b:", "--service", "bounded")
    expect([files.status, files.stderr]).toEqual([6, expect.stringContaining("takes at most 2")])
    writeFileSync(join(source, "d"), noise(3 * MIB))
    const bytes = await cp(join(source, "d"), "b:", "--service", "bounded")
    expect([bytes.status, bytes.stderr]).toEqual([
      6,
      expect.stringContaining("takes at most 2.00 MiB at a time"),
    ])
    expect(readdirSync(into)).not.toContain("d")
    expect((await cp(join(source, "a"), "b:", "--service", "bounded")).status).toBe(0)
    await stopped(bounded)
    const free = await serve(into, "full", "--min-free", "900T")
    const full = await cp(join(source, "d"), "b:", "--service", "full")
    expect([full.status, full.stderr]).toEqual([1, expect.stringContaining("of its disk free")])
    await stopped(free)
  })

  test.each([
    [["guest", "serve", "--copy", "/no/such/folder"], "there is no directory /no/such/folder"],
    [["guest", "serve", "--copy", ".", "--read-only", "--write-only"], "exclude each other"],
    [["guest", "serve", "x", "--tcp", "127.0.0.1:1", "--read-only"], "--read-only is for --copy"],
    [["guest", "serve", "--copy", ".", "--user", "root"], "--user is for a command"],
    [
      ["guest", "serve", "--copy", ".", "--tcp", "127.0.0.1:1"],
      "one of --tcp, --unix, --copy and -- COMMAND",
    ],
  ])("%j is wrong usage", async (words, message) => {
    const { status, stderr } = await host().run(...words, "--local", "b")
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)])
  })

  test("is denied where the policy allows no service of that name", async () => {
    const { source } = place()
    writeFileSync(join(source, "file"), "x")
    await host().policy(rule('service = "other"', 'from = "*"', 'to = "*"'), "a", "b", "deny")
    expect((await cp(join(source, "file"), "b:")).status).toBe(6)
    await host().policy(ALLOW_ALL, "a", "b", "allow")
    expect((await cp(join(source, "file"), "b:")).status).toBe(0)
  })
})

test(
  `${KILLED.files} small files and a sparse one of ${KILLED.sparseMib} MiB, killed at 20 random points, end as they were`,
  async () => {
    const { source, name, target } = place()
    manyFiles(join(source), KILLED.files)
    holes(join(source, "sparse"), KILLED.sparseMib * MIB)
    writeFileSync(join(source, "dense"), noise(24 * MIB))
    const copy = (): Running =>
      host().spawn(["guest", "cp", "-r", "--quiet", "--local", "a", `${source}/.`, `b:${name}`])
    for (let round = 0; round < 20; round += 1) {
      const copying = copy()
      await Bun.sleep(Math.random() * KILLED.withinMs)
      if (round % 5 === 4) service.kill("SIGKILL")
      else copying.kill("SIGKILL")
      await copying.over()
      if (round % 5 === 4) {
        await service.over()
        service = await serve(shown)
      }
      // What has its name is whole.
      for (const found of ["sparse", "dense"]) {
        if (!existsSync(join(target, found))) continue
        expect(Bun.spawnSync(["cmp", join(target, found), join(source, found)]).exitCode).toBe(0)
      }
    }
    const last = copy()
    expect([await last.over(300_000), last.stderr()]).toEqual([0, ""])
    expect(differences(source, target)).toBe("")
    expect(occupied(join(target, "sparse"))).toBeLessThan(2 * MIB)
    renameSync(target, `${target}-done`)
  },
  KILLED.limitMs,
)
