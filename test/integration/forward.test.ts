/** `mvm guest forward` and `mvm guest serve --all` between two local endpoints. */

import { beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { MIB, hostForFile, rule, type Running } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

/** A server that answers with everything it was sent, once its client has said all. */
async function echoServer(): Promise<{ port: number; server: Server }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const pieces: Buffer[] = []
    socket.on("data", (piece) => pieces.push(piece as Buffer))
    socket.on("end", () => socket.end(Buffer.concat(pieces)))
    socket.on("error", () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { port: (server.address() as AddressInfo).port, server }
}

/** What comes back for `bytes` over one connection whose sending side ends first. */
function exchange(at: { port: number } | { path: string }, bytes: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({
      ...("port" in at ? { host: "127.0.0.1", ...at } : at),
      allowHalfOpen: true,
    })
    const pieces: Buffer[] = []
    socket.on("data", (piece) => pieces.push(piece as Buffer))
    socket.on("end", () => resolve(Buffer.concat(pieces)))
    socket.on("error", reject)
    socket.end(bytes)
  })
}

/** A forward of member a, and where it listens. */
async function forward(listen: string, to: string, ...words: string[]): Promise<Running & { port: number }> {
  const out = join(host().folder, `forward-${Math.random()}`)
  const running = host().spawn(["guest", "forward", listen, to, "--local", "a", "--json", ...words], {
    stdout: out,
  })
  await host().until(`the forward to ${to}`, async () => {
    if (running.process.exitCode !== null) throw new Error(running.stderr())
    return (await Bun.file(out).text()).includes('"listening"')
  })
  const { address } = JSON.parse((await Bun.file(out).text()).split("\n")[0] ?? "") as { address: string }
  return Object.assign(running, { port: Number(address.split(":").at(-1)) })
}

async function end(running: Running, signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
  running.kill(signal)
  return running.over()
}

let echo: { port: number; server: Server }

beforeAll(async () => {
  echo = await echoServer()
  await host().serves("b", "echo", "--tcp", `127.0.0.1:${echo.port}`)
  await host().serves("b", "cat", "--", "/bin/cat")
}, 60_000)

describe("forward", () => {
  test("carries many connections at once over one session, each half-closed by itself", async () => {
    const before = (await host().audit("grant")).length
    const running = await forward("127.0.0.1:0", "b:echo")
    const all = Array.from({ length: 60 }, (_, index) => randomBytes(index * 20_000))
    const back = await Promise.all(all.map((bytes) => exchange(running, bytes)))
    expect(back.map((bytes, index) => bytes.equals(all[index]!))).toEqual(all.map(() => true))
    expect((await host().audit("grant")).length).toBe(before + 1)
    expect(await end(running)).toBe(0)
    await host().until("both receipts", async () => (await host().audit("receipt")).length >= 2)
  })

  test("listens on a unix socket of its owner's alone, or with the mode that was asked for", async () => {
    for (const [words, mode] of [
      [[], 0o600],
      [["--mode", "660"], 0o660],
    ] as const) {
      const path = join(host().folder, "f.sock")
      const running = await forward(path, "b:cat", ...words)
      expect(statSync(path).mode & 0o777).toBe(mode)
      expect((await exchange({ path }, Buffer.from("over a path"))).toString()).toBe("over a path")
      // An interrupt ends it as it ends any command.
      expect(await end(running, "SIGINT")).toBe(130)
      expect(existsSync(path)).toBe(false)
    }
  })

  test("has a connection broken off at one side broken off at the other", async () => {
    const running = await forward("127.0.0.1:0", "b:cat")
    const socket = connect({ host: "127.0.0.1", port: running.port })
    await new Promise<void>((resolve) => socket.write("x", () => resolve()))
    await new Promise((resolve) => socket.once("data", resolve))
    socket.resetAndDestroy()
    // The session and the others are none the worse.
    expect((await exchange(running, randomBytes(MIB))).length).toBe(MIB)
    expect(await end(running)).toBe(0)
  })

  test("tells its clients when the service's own socket does not answer, and goes on", async () => {
    await host().serves("b", "dead", "--tcp", "127.0.0.1:1")
    const running = await forward("127.0.0.1:0", "b:dead")
    await expect(exchange(running, Buffer.from("x"))).rejects.toMatchObject({ code: "ECONNRESET" })
    await expect(exchange(running, Buffer.from("x"))).rejects.toMatchObject({ code: "ECONNRESET" })
    expect(await end(running)).toBe(0)
  })

  test("makes its session again when the service was started again, and says so", async () => {
    const first = await host().serves("b", "again", "--", "/bin/cat")
    const running = host().spawn([
      "guest",
      "forward",
      join(host().folder, "g.sock"),
      "b:again",
      "--local",
      "a",
    ])
    await running.says("g.sock is service again of b")
    expect(await end(first)).toBe(0)
    await running.says("the session with service again of b ended")
    await host().serves("b", "again", "--", "/bin/cat")
    await running.says("connected to service again of b again")
    const path = join(host().folder, "g.sock")
    expect((await exchange({ path }, Buffer.from("still"))).toString()).toBe("still")
    expect(await end(running)).toBe(0)
  })

  test("ends with status 7 when the policy no longer allows it", async () => {
    const running = await forward("127.0.0.1:0", "b:cat")
    host().writePolicy(rule('service = "default"', 'from = "a"', 'to = "b"'))
    expect(await running.over()).toBe(7)
    host().writePolicy(rule('service = "*"', 'from = "*"', 'to = "*"'))
    await host().until(
      "the policy",
      async () => (await host().run("policy", "test", "cat", "a", "b")).status === 0,
    )
  })

  test("goes on with a new session when a rule's time is over", async () => {
    // On another line than the rule before, so that it can be told which one is in force.
    host().writePolicy(`\n\n\n${rule('service = "*"', 'from = "*"', 'to = "*"', "max_seconds = 1")}`)
    await host().until("the policy", async () => {
      const { stdout } = await host().run("policy", "test", "cat", "a", "b")
      return stdout.includes("policy.toml:4")
    })
    const path = join(host().folder, "timed.sock")
    const running = host().spawn(["guest", "forward", path, "b:cat", "--local", "a"])
    await running.says("is service cat of b")
    await running.says("the rule allows 1 seconds")
    await running.says("connected to service cat of b again")
    host().writePolicy(rule('service = "*"', 'from = "*"', 'to = "*"'))
    expect(await end(running)).toBe(0)
  })

  test("ends by itself when nobody connects", async () => {
    const running = await forward("127.0.0.1:0", "b:cat", "--exit-on-idle", "3s")
    expect((await exchange(running, Buffer.from("x"))).toString()).toBe("x")
    expect(await running.over()).toBe(0)
  })

  test.each([
    [["nowhere", "b:cat"], 2, "LISTEN: nowhere is not HOST:PORT"],
    [["127.0.0.1:99999", "b:cat"], 2, "LISTEN: 127.0.0.1:99999 is not HOST:PORT"],
    [["127.0.0.1:0", "b"], 2, "b names no service"],
    [["127.0.0.1:0", "b:nobody"], 3, "nobody on b serves service nobody"],
    [["127.0.0.1:0", "nobody:cat"], 3, "there is no VM nobody"],
    [["/nowhere/at/all", "b:cat"], 1, "cannot listen at /nowhere/at/all"],
  ] as const)("of %p ends with status %d and says why", async (words, status, message) => {
    const ran = await host().run("guest", "forward", ...words, "--local", "a")
    expect([ran.status, ran.stderr]).toEqual([status, expect.stringContaining(message)])
  })

  test("at a port in use ends at once, and whoever has it is undisturbed", async () => {
    const ran = await host().run(
      "guest",
      "forward",
      `127.0.0.1:${echo.port}`,
      "b:cat",
      "--local",
      "a",
      "--wait",
    )
    expect([ran.status, ran.stderr]).toEqual([1, expect.stringContaining("it is in use")])
    expect((await exchange(echo, Buffer.from("x"))).toString()).toBe("x")
  })
})

describe("serve --all", () => {
  test("serves what the good files say, names the place in the others, and reads them again on SIGHUP", async () => {
    const folder = join(host().folder, "services.d")
    mkdirSync(folder)
    const write = (name: string, text: string): void =>
      writeFileSync(join(folder, `${name}.toml`), text, { mode: 0o644 })
    write(
      "first",
      'command = ["/bin/sh", "-c", "echo $GREETING $MVM_SERVICE"]\nenvironment = { GREETING = "hello" }',
    )
    write("second", 'comand = ["/bin/cat"]')
    write("third", 'command = ["/no/such/program"]')
    const running = host().spawn(["guest", "serve", "--all", folder, "--local", "b"])
    await running.says("serving service=first")
    expect(running.stderr()).toContain(`${folder}/second.toml:1:1: unknown key "comand"`)
    expect(running.stderr()).toContain("third: there is no program /no/such/program")
    const ask = async (service: string) =>
      (await host().run("guest", "exec", "b", service, "--local", "a", "--wait", "10s")).stdout
    expect(await ask("first")).toBe("hello first\n")
    write("first", 'command = ["/bin/echo", "changed"]')
    write("second", 'command = ["/bin/echo", "mended"]')
    running.kill("SIGHUP")
    await running.says("serving service=second")
    expect([await ask("first"), await ask("second")]).toEqual(["changed\n", "mended\n"])
    expect(await end(running)).toBe(0)
  })

  test("counts what runs for a service still when its file is read anew, and ends that too when it stops", async () => {
    const folder = join(host().folder, "counted.d")
    mkdirSync(folder)
    const write = (greeting: string): void =>
      writeFileSync(
        join(folder, "counted.toml"),
        `command = ["/bin/sh", "-c", "echo ${greeting}; exec sleep 1000"]\nmax_runs = 1\n`,
        { mode: 0o644 },
      )
    write("first")
    const running = host().spawn(["guest", "serve", "--all", folder, "--local", "b"])
    await running.says("serving service=counted")
    const out = join(host().folder, "counted.out")
    const held = host().spawn(["guest", "exec", "b", "counted", "--local", "a"], { stdout: out })
    await host().until("the first run", () => readFileSync(out, "utf8") === "first\n")
    write("second")
    running.kill("SIGHUP")
    await running.says("leaving service=counted")
    const next = await host().run("guest", "exec", "b", "counted", "--local", "a", "--wait", "10s")
    expect([next.status, next.stderr]).toEqual([125, expect.stringContaining("serves 1 at a time")])
    expect(await end(running)).toBe(0)
    expect(await held.over()).toBe(125)
  })

  test("serves one file alone with --file", async () => {
    const path = host().file("one.toml", 'command = ["/bin/echo", "one"]')
    const running = host().spawn(["guest", "serve", "--file", path, "--local", "b"])
    await running.says("serving service=one")
    expect((await host().run("guest", "exec", "b", "one", "--local", "a")).stdout).toBe("one\n")
    expect(await end(running)).toBe(0)
  })

  test("of a folder that is not there, or where nothing can be served, ends with status 2", async () => {
    const none = await host().run("guest", "serve", "--all", "/nowhere", "--local", "b")
    expect([none.status, none.stderr]).toEqual([2, expect.stringContaining("cannot read /nowhere")])
    const folder = join(host().folder, "bad.d")
    mkdirSync(folder)
    writeFileSync(join(folder, "x.toml"), "x = 1", { mode: 0o644 })
    const bad = await host().run("guest", "serve", "--all", folder, "--local", "b")
    expect([bad.status, bad.stderr]).toEqual([2, expect.stringContaining('x.toml:1:1: unknown key "x"')])
  })

  test.each([
    [["x", "--tcp", "1", "--", "/bin/cat"], "one of --tcp, --unix, --copy and -- COMMAND"],
    [["x"], "one of --tcp, --unix, --copy and -- COMMAND"],
    [["x", "--tcp", "nowhere"], "--tcp: nowhere is not HOST:PORT"],
    [["x", "--", "/no/program"], "there is no program /no/program"],
    [["x", "--user", "nobody-at-all", "--", "/bin/cat"], "there is no user nobody-at-all"],
    [["x", "--tcp", "127.0.0.1:1", "--pty"], "--pty is for a command"],
    [["--all", "x.d", "--", "/bin/cat"], "--all takes no service"],
    [["--file", "x", "--pty"], "--file takes no service"],
    [["--file", "/no/such/x.toml"], "/no/such/x.toml: there is no such file"],
    [["bad/name", "--", "/bin/cat"], "bad/name is not a name"],
  ] as const)("a wrong command line is status 2: %p", async (words, message) => {
    const ran = await host().run("guest", "serve", "--local", "b", ...words)
    expect([ran.status, ran.stderr]).toEqual([2, expect.stringContaining(message)])
  })
})
