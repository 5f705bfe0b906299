/** `mvm guest exec` between two local endpoints, as a shell sees it. */

import { beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { appendFileSync, existsSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { LONG } from "./host-options.ts"
import { MIB, hostForFile, rule, type Outcome, type Running } from "./host.ts"
import { anonymousMib } from "./processes.ts"

const host = hostForFile({ members: ["a", "b"] })
const EACH_WAY_MIB = LONG ? 1024 : 64
/** At the same time: the processors of a small machine, twice. */
const CALLERS = 4
/** ECHO and ICANON of a terminal's local flags */
const COOKED = 0o10 | 0o2
let deaf: Running

function exec(service: string, ...words: string[]): Promise<Outcome> {
  return host().run("guest", "exec", "b", service, "--local", "a", ...words)
}

/** The same in a terminal, with what it showed. */
function inTerminal(service: string, ...words: string[]) {
  let shown = ""
  const child = Bun.spawn([host().mvm, "guest", "exec", "b", service, "--local", "a", ...words], {
    terminal: { cols: 90, rows: 20, data: (_, bytes) => (shown += Buffer.from(bytes).toString()) },
    // The terminal is its own to be signalled by.
    detached: true,
    env: { ...process.env, MVM_STATE: host().state, TERM: "vt100" },
  })
  const terminal = child.terminal as Bun.Terminal
  return { child, terminal, shown: () => shown, isCooked: () => (terminal.localFlags & COOKED) === COOKED }
}

beforeAll(async () => {
  const shell = (service: string, text: string, ...options: string[]): Promise<Running> =>
    host().serves("b", service, ...options, "--", "/bin/sh", "-c", text)
  await shell("status", 'echo out; echo error >&2; exit "$MVM_ARG"')
  deaf = await shell("deaf", "sleep 3; exit 5")
  await shell("sleep", "echo asleep; exec sleep 1000")
  await shell("escapes", "printf 'a\\033[31mb\\tc\\n'; printf 'd\\033]0;title\\007e\\n' >&2")
  await shell("shell", "exec sh -i", "--pty")
  await host().serves("b", "cat", "--", "/bin/cat")
  await host().serves("b", "yes", "--", "/usr/bin/yes")
}, 60_000)

describe("exec", () => {
  test.each([0, 1, 2, 7, 125, 126, 127, 255])(
    "ends with the run's status %d, its streams apart",
    async (status) => {
      expect(await exec("status", String(status))).toEqual({ status, stdout: "out\n", stderr: "error\n" })
    },
  )

  test("ends with each of the 256 statuses, as each run did", async () => {
    const statuses: number[] = []
    const next = Array.from({ length: 256 }, (_, status) => status).values()
    const caller = async (): Promise<void> => {
      // More at an instant than stand ready wait for the next offer.
      for (const wanted of next) {
        const { status } = await exec("status", String(wanted), "--wait", "10s")
        statuses[wanted] = status
      }
    }
    await Promise.all(Array.from({ length: CALLERS }, caller))
    expect(statuses).toEqual(Array.from({ length: 256 }, (_, status) => status))
  }, 60_000)

  test("ends with 127 where nobody serves, and 126 where the policy or the service refuses", async () => {
    expect(await exec("nobody")).toMatchObject({ status: 127 })
    await host().serves("b", "once", "--max-runs", "1", "--", "/bin/sh", "-c", "echo held; exec sleep 1000")
    const out = join(host().folder, "once.out")
    const held = host().spawn(["guest", "exec", "b", "once", "--local", "a"], { stdout: out })
    await host().until("the first run", () => readFileSync(out, "utf8") === "held\n")
    expect((await exec("once")).stderr).toContain("serves 1 at a time")
    expect((await exec("once")).status).toBe(125)
    held.kill("SIGTERM")
    expect(await held.over()).toBe(143)
    expect(await exec("cat", "--pty")).toMatchObject({
      status: 126,
      stderr: "mvm: the service gives no terminal\n",
    })
  })

  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const)("passes %s on, and ends as the run did", async (signal, status) => {
    const out = join(host().folder, `${signal}.out`)
    const running = host().spawn(["guest", "exec", "b", "sleep", "--local", "a"], { stdout: out })
    await host().until("the run", () => readFileSync(out, "utf8") === "asleep\n")
    running.kill(signal)
    expect([await running.over(), running.stderr()]).toEqual([status, ""])
  })

  test(`carries ${EACH_WAY_MIB} MiB each way at once`, async () => {
    const out = join(host().folder, "echoed")
    const input = host().file("large", "")
    for (let mib = 0; mib < EACH_WAY_MIB; mib += 64) appendFileSync(input, randomBytes(64 * MIB))
    const running = host().spawn(["guest", "exec", "b", "cat", "--local", "a"], {
      stdin: Bun.file(input) as unknown as number,
      stdout: out,
    })
    expect([await running.over(300_000), running.stderr()]).toEqual([0, ""])
    expect(Bun.spawnSync(["cmp", input, out]).exitCode).toBe(0)
    for (const file of [input, out]) rmSync(file)
  }, 600_000)

  test("of a service that never reads holds its caller's input back: no process fills its memory with it", async () => {
    const running = host().spawn(["guest", "exec", "b", "deaf", "--local", "a"], {
      stdin: Bun.file("/dev/zero") as unknown as number,
    })
    const pids = [running.pid, deaf.pid]
    await Bun.sleep(1500)
    for (const pid of pids) expect(anonymousMib(pid)).toBeLessThan(120)
    expect([await running.over(), running.stderr()]).toEqual([5, ""])
  })

  test("whose reader has had enough ends the run by SIGPIPE", async () => {
    const command = `${host().mvm} guest exec b yes --local a | head -c 100 | wc -c; echo \${PIPESTATUS[0]}`
    const child = Bun.spawn(["bash", "-c", command], {
      env: { ...process.env, MVM_STATE: host().state },
      stdout: "pipe",
      stderr: "pipe",
    })
    expect(await new Response(child.stdout).text()).toBe("100\n141\n")
    expect(await new Response(child.stderr).text()).toBe("")
  })

  test("says what it was with --json", async () => {
    const { stderr } = await exec("status", "3", "--json")
    expect(JSON.parse(stderr.replace("error\n", ""))).toMatchObject({
      peer: "b",
      service: "status",
      status: 3,
    })
  })

  test("ends with 126 while no rule allows it", async () => {
    host().writePolicy(rule('service = "default"', 'from = "a"', 'to = "b"'))
    await host().until("the policy", async () => (await exec("status", "0")).status === 126)
    host().writePolicy(rule('service = "*"', 'from = "*"', 'to = "*"'))
    await host().until("the policy", async () => (await exec("status", "0")).status === 0)
  })
})

describe("a service that is told to end", () => {
  test("ends what runs for its callers first, whatever that does about it", async () => {
    const text = "trap '' HUP TERM; echo $$; while :; do sleep 0.1; done"
    const service = host().spawn(["guest", "serve", "stubborn", "--local", "b", "--", "/bin/sh", "-c", text])
    await service.says("serving stubborn")
    const out = join(host().folder, "stubborn.out")
    const running = host().spawn(["guest", "exec", "b", "stubborn", "--local", "a"], { stdout: out })
    await host().until("the run", () => readFileSync(out, "utf8").endsWith("\n"))
    const pid = Number(readFileSync(out, "utf8"))
    service.kill("SIGTERM")
    expect(await running.over()).toBe(125)
    expect(existsSync(`/proc/${pid}`)).toBe(true)
    expect(await service.over()).toBe(0)
    expect(existsSync(`/proc/${pid}`)).toBe(false)
  })
})

describe("at a terminal", () => {
  test("control characters of the service are shown as text, on both streams", async () => {
    const { child, terminal, shown } = inTerminal("escapes")
    expect(await child.exited).toBe(0)
    await host().until("what it showed", () => shown().includes("e\r\n"))
    expect(shown()).toContain("a\\u001b[31mb\tc\r\n")
    expect(shown()).toContain("d\\u001b]0;title\\u0007e\r\n")
    terminal.close()
  })

  test("control characters are passed on where that was asked for", async () => {
    const { child, terminal, shown } = inTerminal("escapes", "--raw")
    expect(await child.exited).toBe(0)
    await host().until("what it showed", () => shown().includes("e\r\n"))
    expect(shown()).toContain("a\u001b[31mb")
    terminal.close()
  })

  test("--pty is a shell with this terminal's name and size, raw while it runs and cooked after", async () => {
    const { child, terminal, shown, isCooked } = inTerminal("shell", "--pty")
    expect(isCooked()).toBe(true)
    await host().until("the prompt", () => /[#$] $/.test(shown()))
    expect(isCooked()).toBe(false)
    terminal.write("echo $TERM $(stty size)\r")
    await host().until("the answer", () => shown().includes("vt100 20 90\r\n"))
    terminal.resize(70, 15)
    await host().until("the new size", async () => {
      terminal.write("stty size\r")
      await Bun.sleep(100)
      return shown().includes("15 70\r\n")
    })
    terminal.write("exit 9\r")
    expect(await child.exited).toBe(9)
    expect(isCooked()).toBe(true)
    terminal.close()
  })

  test("--pty leaves the terminal cooked when it is told to end, and when its service ends under it", async () => {
    const first = inTerminal("shell", "--pty")
    await host().until("the prompt", () => /[#$] $/.test(first.shown()))
    // The shell does not end by the one that is passed on.
    first.child.kill("SIGTERM")
    await Bun.sleep(100)
    first.child.kill("SIGTERM")
    expect(await first.child.exited).toBe(143)
    expect(first.isCooked()).toBe(true)
    first.terminal.close()
    const service = await host().serves("b", "passing", "--pty", "--", "/bin/sh", "-i")
    const second = inTerminal("passing", "--pty")
    await host().until("the prompt", () => /[#$] $/.test(second.shown()))
    service.kill("SIGTERM")
    expect(await second.child.exited).toBe(125)
    expect(second.isCooked()).toBe(true)
    expect(second.shown()).toContain("the service stopped")
    expect(await service.over()).toBe(0)
    second.terminal.close()
  })
})
