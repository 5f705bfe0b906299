/**
 * @module test/terminal/every-command
 *
 * Every command in a real terminal: in a window of 20 columns, into a pipe that nobody reads, and interrupted.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { COMMANDS } from "../../src/cli/commands.ts"
import { verbOf } from "../../src/cli/help.ts"
import { hostForFile } from "../integration/host.ts"
import type { Terminal, TerminalOptions } from "../cli/tmux.ts"
import { coloursIn, inOrder, nothingLeft, openTerminal } from "./terminals.ts"

const host = hostForFile({ members: ["a", "b"] })

interface Drive {
  readonly verb: string
  /** What is typed behind the verb */
  readonly rest?: string
  /** Default 0; several where it depends on the machine */
  readonly status?: number | readonly number[]
  /** It changes what a second time would find. */
  readonly once?: boolean
  /** Its output is what it is for. */
  readonly prints?: boolean
  /** It goes on until it is interrupted; this is on the screen by then. */
  readonly waits?: string
  /** A daemon that is asked to stop has done what it should. */
  readonly isDaemon?: boolean
}

/** In this order: some prepare what later ones need. */
const DRIVES: readonly Drive[] = [
  { verb: "serve", rest: "--state other --arena 16M", waits: "serving", isDaemon: true },
  { verb: "status", prints: true },
  { verb: "status", rest: "--watch", waits: "mvm serve, pid" },
  { verb: "install", rest: "--dry-run --root root", prints: true },
  { verb: "completion", rest: "bash", prints: true },
  { verb: "doctor", status: [0, 1], prints: true },
  { verb: "vm create", rest: "spare --local", once: true },
  { verb: "vm start", rest: "spare", once: true },
  { verb: "vm wait", rest: "idle", waits: "waiting for th" },
  { verb: "guest agent", rest: "--local idle", waits: "linked", isDaemon: true },
  { verb: "vm stop", rest: "spare", once: true },
  { verb: "vm reboot", rest: "spare", status: 2 },
  { verb: "vm set", rest: "a --tag x" },
  { verb: "vm list", prints: true },
  { verb: "vm show", rest: "a", prints: true },
  { verb: "vm console", rest: "spare", status: 2 },
  { verb: "vm certificate", rest: "spare", status: 2 },
  { verb: "vm libvirt-xml", rest: "spare", status: 2 },
  { verb: "vm qemu-args", rest: "spare", status: 2 },
  { verb: "vm rm", rest: "spare", once: true },
  { verb: "measure learn", rest: "a" },
  { verb: "measure show", rest: "a", prints: true },
  { verb: "measure diff", rest: "a", prints: true },
  { verb: "measure run", rest: "a" },
  { verb: "measure approve", rest: "a --all", status: 2 },
  { verb: "measure exclude", rest: "a '/srv/**'" },
  { verb: "measure export", rest: "a", prints: true },
  { verb: "measure import", rest: "a a.manifest" },
  { verb: "measure remove", rest: "a /nowhere", status: 2 },
  { verb: "measure explain", rest: "a", prints: true },
  { verb: "measure evidence", rest: "a", prints: true },
  { verb: "measure verify", rest: "a.evidence", prints: true },
  { verb: "policy check", prints: true },
  { verb: "policy test", rest: "default a b", prints: true },
  { verb: "channel list", prints: true },
  { verb: "channel close", rest: "ffff", status: 2 },
  { verb: "deposit list", prints: true },
  { verb: "deposit rm", rest: "ffff", status: 2 },
  { verb: "audit list", prints: true },
  { verb: "audit list", rest: "--follow", waits: "mvm_start" },
  { verb: "audit verify", prints: true },
  { verb: "audit export", prints: true },
  { verb: "guest send", rest: "b x --local a", status: 3 },
  { verb: "guest send", rest: "b x --local a --wait", waits: "waiting for a" },
  { verb: "guest send", rest: "b x --local a --offer", waits: "offering service" },
  { verb: "guest recv", rest: "--local a", waits: "waiting for anybody" },
  { verb: "guest recv", rest: "b --local a --request", status: 3 },
  { verb: "guest recv", rest: "--deposited --local a", status: 3 },
  { verb: "guest serve", rest: "echo --local b -- cat", waits: "serving echo", isDaemon: true },
  { verb: "guest exec", rest: "b echo --local a", status: 127 },
  { verb: "guest exec", rest: "b echo --local a --wait", waits: "waiting for" },
  { verb: "guest connect", rest: "b:echo --local a --wait", waits: "waiting for" },
  { verb: "guest forward", rest: "127.0.0.1:0 b:echo --local a --wait", waits: "waiting for" },
  { verb: "guest cp", rest: "x b:in --local a", status: 3 },
  { verb: "guest cp", rest: "x b:in --local a --wait", waits: "waiting for" },
  { verb: "guest deposit", rest: "b x --local a", status: 6 },
  { verb: "guest status", rest: "--local a", prints: true },
  { verb: "guest peers", rest: "--local a", prints: true },
  { verb: "guest ping", rest: "b --local a", prints: true },
  { verb: "guest ping", rest: "b --local a --count 9999 --interval 50ms", waits: "b is trusted" },
  { verb: "guest install", rest: "--dry-run --root root", prints: true },
  { verb: "guest doctor", rest: "--local a", status: [0, 1], prints: true },
  { verb: "send", rest: "b x", status: 3 },
  { verb: "recv", waits: "waiting for anybody" },
  { verb: "exec", rest: "b echo", status: 127 },
  { verb: "cp", rest: "x b:in", status: 3 },
  { verb: "connect", rest: "b:echo", status: 3 },
  { verb: "forward", rest: "127.0.0.1:0 b:echo", status: 3 },
  { verb: "ping", rest: "b", status: 4 },
]

const rows = DRIVES.map(
  (drive) => [["mvm", drive.verb, drive.rest].filter(Boolean).join(" "), drive] as const,
)

beforeAll(async () => {
  host().file("x", "x")
  mkdirSync(join(host().folder, "root"))
  // Unlike the spare one it is never removed.
  await host().must("vm", "create", "idle", "--local")
  host().file("a.manifest", await host().must("measure", "export", "a"))
  host().file("a.evidence", await host().must("measure", "evidence", "a"))
}, 60_000)

test("every command is driven here", () => {
  const driven = new Set(DRIVES.map(({ verb }) => verb))
  expect(COMMANDS.map(verbOf).filter((verb) => !driven.has(verb))).toEqual([])
})

/** One for all commands of a kind. */
function terminalFor(options: TerminalOptions): () => Terminal {
  let terminal: Terminal
  beforeAll(async () => {
    terminal = await openTerminal(host(), options)
  })
  afterAll(() => terminal.close())
  return () => terminal
}

function expected({ status = 0, waits, isDaemon }: Drive): readonly number[] {
  if (waits !== undefined) return [isDaemon ? 0 : 130]
  return typeof status === "number" ? [status] : status
}

describe("in a window of 20 columns, with NO_COLOR,", () => {
  const terminal = terminalFor({ columns: 20, rows: 100, env: { NO_COLOR: "1" } })

  test.each(rows)("%s", async (line, drive) => {
    const { waits } = drive
    await terminal().run("clear")
    await terminal().type(line)
    if (waits !== undefined) {
      const shown = async (): Promise<string> => (await terminal().screen()).replaceAll("\n", "")
      await terminal().until(waits, async () => (await shown()).includes(waits))
      await terminal().press("C-c")
    }
    expect(expected(drive)).toContain(await terminal().ended())
    expect(coloursIn(terminal().raw())).toEqual([])
    await inOrder(terminal())
    await nothingLeft(host(), "a", "b")
  })
})

describe("into a pipe that nobody reads", () => {
  const terminal = terminalFor({})

  test.each(rows.filter(([, drive]) => drive.prints))("%s", async (line, drive) => {
    await terminal().run(`(${line}; echo $? >status) 2>said | head -c1 >/dev/null`)
    const [said, ended] = ["said", "status"].map((name) => readFileSync(join(host().folder, name), "utf8"))
    expect(said).not.toMatch(/EPIPE|\n +at |Bun v/)
    // What fits the pipe is written before the reader has left.
    expect([...expected(drive), 1]).toContain(Number(ended))
  })
})

describe("interrupted early", () => {
  const terminal = terminalFor({})

  test.each(rows.filter(([, { once }]) => !once))("%s", async (line, drive) => {
    for (const moment of [10, 60]) {
      await terminal().type(line)
      await terminal().begun()
      await Bun.sleep(moment)
      expect([130, ...expected(drive), ...(drive.isDaemon ? [0] : [])]).toContain(
        await terminal().interrupt(),
      )
    }
    await inOrder(terminal())
    await nothingLeft(host(), "a", "b")
  })
})
