/** Runs of real programs as their callers have them: three streams, signals, a status. */

import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { NO_LIMITS } from "../../../src/guest/services/limits.ts"
import { fromUtf8, utf8 } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { identifyProcess } from "../../../src/platform/process.ts"
import { Called, Kept, Typed, inputOf } from "./called.ts"

let called: Called | undefined

function shell(...options: Parameters<typeof Called.shell>): Called {
  called = Called.shell(...options)
  return called
}

afterEach(async () => {
  await called?.end()
  called = undefined
})

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "none",
    (error: unknown) => (error instanceof MvmError ? error.code : String(error)),
  )
}

async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await Bun.sleep(5)
}

describe("a run", () => {
  test("has each of the 256 exit statuses", async () => {
    const service = shell('exit "$MVM_ARG"')
    const statuses: number[] = []
    for (let first = 0; first < 256; first += 16) {
      const some = Array.from({ length: 16 }, (_, index) =>
        service.run(undefined, { arg: String(first + index) }),
      )
      for (const { status, signal } of await Promise.all(some)) {
        expect(signal).toBeUndefined()
        statuses.push(status)
      }
    }
    expect(statuses).toEqual(Array.from({ length: 256 }, (_, status) => status))
  })

  test("that a signal ended has 128 and the signal's number, and its name", async () => {
    const service = shell('kill -"$MVM_ARG" $$')
    for (const [name, number] of [
      ["KILL", 9],
      ["TERM", 15],
      ["SEGV", 11],
    ] as const) {
      const { status, signal } = await service.run(undefined, { arg: name })
      expect([status, signal]).toEqual([128 + number, `SIG${name}`])
    }
  })

  test("keeps standard output and standard error apart, and hands all of both on before its end", async () => {
    const service = shell("i=0; while [ $i -lt 2000 ]; do echo out $i; echo error $i >&2; i=$((i+1)); done")
    const { stdout, stderr } = await service.run()
    const lines = (word: string): string => Array.from({ length: 2000 }, (_, i) => `${word} ${i}\n`).join("")
    expect([stdout === lines("out"), stderr === lines("error")]).toEqual([true, true])
  })

  test("sees the end of its input, and what it writes after that arrives", async () => {
    const { stdout, status } = await shell("wc -c; echo after").run(new Uint8Array(100_000))
    expect([stdout.trim(), status]).toEqual(["100000\nafter", 0])
  })

  test("that ends early stops its caller's input, which may never end", async () => {
    const input = new Typed()
    expect(await shell("echo enough").run(input)).toMatchObject({ stdout: "enough\n", status: 0 })
    expect(input.stopped).toBe(true)
  })

  test("that never reads blocks nobody: its caller has its status while input is still waiting", async () => {
    const service = shell("sleep 0.2; exit 5")
    expect((await service.run(new Uint8Array(8_000_000))).status).toBe(5)
  })

  test("whose output nobody wants is told by SIGPIPE", async () => {
    const output = {
      write: () => Promise.reject(new MvmError("sink", "no more")),
      end: () => {},
    }
    const run = shell("exec yes").start({ input: inputOf(new Uint8Array(0)), output, errors: new Kept() })
    expect(await run.over).toEqual({ status: 141, signal: "SIGPIPE" })
  })

  test("gets the signals of its caller, and so does what it started", async () => {
    // Ready only when the other one is itself: a signal to the shell's copy before that would be lost on it.
    const service = shell("trap 'echo caught; exit 3' TERM; sh -c 'echo ready; exec sleep 100' & wait")
    const output = new Kept()
    const run = service.start({ input: new Typed(), output, errors: new Kept() })
    await until(() => output.text.includes("ready"))
    run.signal("SIGTERM")
    expect(await run.over).toMatchObject({ status: 3 })
    expect(output.text).toBe("ready\ncaught\n")
  })

  test("is given the caller's facts and no more of this process's surroundings", async () => {
    process.env["MVM_STATE"] = "/nowhere"
    try {
      const { stdout } = await shell("env").run(undefined, { arg: "$(id); `id` 'x\" *" })
      const facts = stdout.split("\n").filter((line) => line.startsWith("MVM_"))
      expect(facts.toSorted()).toEqual([
        "MVM_ARG=$(id); `id` 'x\" *",
        "MVM_PEER=web",
        "MVM_PEER_PROGRAM=/usr/bin/mvm",
        "MVM_PEER_VERDICT=trusted",
        "MVM_SERVICE=tested",
      ])
    } finally {
      delete process.env["MVM_STATE"]
    }
  })

  test.each(["line\nbreak", "escape\u001b[31m", "nul\u0007"])(
    "with the argument %j is refused",
    async (arg) => {
      expect(await codeOf(shell("true").run(undefined, { arg }))).toBe("usage")
    },
  )
})

describe("a caller that goes", () => {
  test("takes its run with it, and everything that belongs to it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "mvx-"))
    try {
      const service = Called.shell(
        `sleep 1000 & echo $! >${folder}/child; echo $$ >${folder}/self; echo ready; wait`,
      )
      const output = new Kept()
      const run = service.start({ input: new Typed(), output, errors: new Kept() })
      await until(() => output.text.includes("ready"))
      const pids = ["child", "self"].map((name) => Number(readFileSync(join(folder, name), "utf8")))
      expect(pids.map((pid) => identifyProcess(pid) !== undefined)).toEqual([true, true])
      service.pair.asker.fail(new MvmError("aborted", "gone"))
      service.pair.answerer.fail(new MvmError("aborted", "the other end went"))
      expect(await codeOf(run.over)).toBe("aborted")
      await until(() => pids.every((pid) => identifyProcess(pid) === undefined))
      await until(() => service.calls.active.size === 0)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe("limits", () => {
  test("of runs at once refuse the next, and count down again", async () => {
    const service = shell("cat", {}, { ...NO_LIMITS, maxRuns: 2 })
    const held = [service.connect(), service.connect()]
    for (const stream of held) {
      await stream.write(utf8("x"))
      await stream.read()
    }
    expect(await codeOf(service.run())).toBe("busy")
    for (const stream of held) {
      await stream.end()
      await stream.read()
    }
    await until(() => service.calls.active.size === 0)
    expect((await service.run(utf8("again"))).stdout).toBe("again")
  })

  test.each([undefined, { name: "dumb", columns: 80, rows: 24 }])(
    "of runs at once count a run until it has ended, not until its caller went (terminal %p)",
    async (terminal) => {
      const service = shell(
        "trap '' HUP; echo $$; while :; do sleep 0.1; done",
        { terminal: true },
        { ...NO_LIMITS, maxRuns: 1, maxMs: 300 },
      )
      const output = new Kept()
      const run = service.start({ input: new Typed(), output, errors: new Kept() }, { terminal })
      expect(await codeOf(run.over)).toBe("timeout")
      const pid = Number(output.text)
      expect(identifyProcess(pid)).toBeDefined()
      expect(await codeOf(service.run())).toBe("busy")
      await until(() => service.calls.active.size === 0)
      expect(identifyProcess(pid)).toBeUndefined()
    },
    15_000,
  )

  test("of time end a run that takes longer", async () => {
    const service = shell("exec sleep 100", {}, { ...NO_LIMITS, maxMs: 100 })
    expect(await codeOf(service.run())).toBe("timeout")
    await until(() => service.calls.active.size === 0)
  })

  test("of bytes end a run that takes or gives more", async () => {
    const limits = { ...NO_LIMITS, maxBytes: 10_000 }
    expect((await shell("cat", {}, limits).run(new Uint8Array(10_000))).stdout.length).toBe(10_000)
    expect(await codeOf(called!.run(new Uint8Array(10_001)))).toBe("too_large")
    await called!.end()
    expect(await codeOf(shell("exec head -c 10001 /dev/zero", {}, limits).run())).toBe("too_large")
    await called!.end()
    // Both streams together, neither of which is more than it.
    const both = shell('head -c "$MVM_ARG" /dev/zero; head -c "$MVM_ARG" /dev/zero >&2', {}, limits)
    expect((await both.run(undefined, { arg: "5000" })).stderr.length).toBe(5000)
    expect(await codeOf(both.run(undefined, { arg: "5001" }))).toBe("too_large")
  })
})

describe("the end of the caller's input", () => {
  test("ends the run where its owner says so", async () => {
    const { status, signal } = await shell("exec sleep 100", { endOfInput: "end" }).run()
    expect([status, signal]).toEqual([129, "SIGHUP"])
  })

  test("is kept from the run where its owner says so", async () => {
    const { stdout, status } = await shell("timeout 0.3 cat; echo $?", { endOfInput: "ignore" }).run(
      utf8("in "),
    )
    expect([stdout, status]).toEqual(["in 124\n", 0])
  })
})

describe("a terminal", () => {
  const terminal = { name: "xterm", columns: 100, rows: 30 }

  test("has the caller's name and size, and both are one stream", async () => {
    const service = shell('tty >/dev/null && echo "$TERM"; stty size; echo error >&2; exit 4', {
      terminal: true,
    })
    const { stdout, stderr, status } = await service.run(new Typed(), { terminal })
    expect([stdout, stderr, status]).toEqual(["xterm\r\n30 100\r\nerror\r\n", "", 4])
  })

  test("follows the caller's window, and takes its keys", async () => {
    const service = shell(
      "echo ready; until stty size | grep -x '41 121'; do sleep 0.05; done; read -r line; echo got $line",
      {
        terminal: true,
      },
    )
    const output = new Kept()
    const input = new Typed()
    const run = service.start({ input, output, errors: new Kept() }, { terminal })
    await until(() => output.text.includes("ready"))
    run.resize(121, 41)
    await until(() => output.text.includes("41 121"))
    input.type(utf8("keys\r"))
    expect(await run.over).toEqual({ status: 0 })
    expect(output.text).toContain("got keys")
  })

  test("takes Ctrl-C from the caller as the interrupt of what runs in it", async () => {
    const output = new Kept()
    const input = new Typed()
    const run = shell("echo ready; exec sleep 100", { terminal: true }).start(
      { input, output, errors: new Kept() },
      { terminal },
    )
    await until(() => output.text.includes("ready"))
    input.type(new Uint8Array([3]))
    expect(await run.over).toEqual({ status: 130, signal: "SIGINT" })
  })

  test("holds its output back while the caller does not read, and loses none of it", async () => {
    const service = shell("seq 1 400000", { terminal: true })
    const gate = Promise.withResolvers<void>()
    const output = new Kept()
    const slow = {
      write: async (bytes: Uint8Array) => {
        await gate.promise
        await output.write(bytes)
      },
      end: () => {},
    }
    const run = service.start({ input: new Typed(), output: slow, errors: new Kept() }, { terminal })
    await Bun.sleep(500)
    gate.resolve()
    expect(await run.over).toEqual({ status: 0 })
    const lines = fromUtf8(output.bytes).split("\r\n")
    expect([lines.length, lines[0], lines.at(-2)]).toEqual([400_001, "1", "400000"])
  })

  test("brings what others that hold it still say after its program has ended, but not for ever", async () => {
    const later = "trap '' HUP; (for i in 1 2 3 4 5; do sleep 0.2; echo later $i; done) & exit 3"
    const { stdout, status } = await shell(later, { terminal: true }).run(new Typed(), { terminal })
    expect([stdout, status]).toEqual(["later 1\r\nlater 2\r\nlater 3\r\nlater 4\r\nlater 5\r\n", 3])
    await called?.end()
    const endless = "trap '' HUP; (while echo more; do sleep 0.1; done) & exit 4"
    expect((await shell(endless, { terminal: true }).run(new Typed(), { terminal })).status).toBe(4)
  }, 15_000)

  test("is given only where the service's owner allows it", async () => {
    expect(await codeOf(shell("true").run(undefined, { terminal }))).toBe("refused")
  })
})
