/**
 * @module test/cli/program
 *
 * The program as its users meet it: words in, text and status out. Nothing here needs a daemon.
 */

import { describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const MAIN = join(import.meta.dir, "../../src/main.ts")

interface Ran {
  status: number
  stdout: string
  stderr: string
}

async function mvm(...words: string[]): Promise<Ran> {
  const child = Bun.spawn([process.execPath, MAIN, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, MVM_STATE: "/nonexistent/mvm", MVM_AGENT: "/nonexistent/agent.sock" },
  })
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { status: await child.exited, stdout, stderr }
}

/** What a wrong command line gets: nothing on stdout, one message, one hint. */
function refusal(message: string, hint: string): Ran {
  return { status: 2, stdout: "", stderr: `mvm: ${message}\nmvm: hint: ${hint}\n` }
}

describe("help", () => {
  test("is on stdout with status 0 where it was asked for, whatever the form", async () => {
    const forms = [["--help"], ["-h"], ["help"]]
    const [first, ...others] = await Promise.all(forms.map((words) => mvm(...words)))
    expect(first?.status).toBe(0)
    expect(first?.stdout).toContain("mvm vm create <name>")
    expect(others.every((ran) => ran.stdout === first?.stdout)).toBe(true)
    const create = await Promise.all([
      mvm("vm", "create", "--help"),
      mvm("help", "vm", "create"),
      mvm("vm", "create", "web", "-h"),
    ])
    for (const ran of create) {
      expect(ran.status).toBe(0)
      expect(ran.stdout).toStartWith("mvm vm create <name>\n")
      expect(ran.stderr).toBe("")
    }
    expect((await mvm("vm", "help")).stdout).toBe((await mvm("help", "vm")).stdout)
  })

  test("is on stderr with status 2 where a command is missing", async () => {
    for (const words of [[], ["vm"]]) {
      const ran = await mvm(...words)
      expect(ran.status).toBe(2)
      expect(ran.stdout).toBe("")
      expect(ran.stderr).toContain("mvm vm create <name>")
    }
  })

  test("has no colours and no control characters", async () => {
    const { stdout } = await mvm("--help")
    expect(stdout).toMatch(/^[\n\x20-\x7e]*$/)
  })
})

test("says its version in every usual form", async () => {
  for (const word of ["--version", "-v", "-V", "version"]) {
    expect(await mvm(word)).toEqual({ status: 0, stdout: "mvm source\n", stderr: "" })
  }
})

describe("a wrong command line", () => {
  test.each([
    [["serv"], refusal("there is no command mvm serv", "did you mean mvm serve?")],
    [["gest", "send"], refusal("there is no command mvm gest", "did you mean mvm guest?")],
    [["frobnicate"], refusal("there is no command mvm frobnicate", "mvm --help lists all commands")],
    [["vm", "creat", "x"], refusal("there is no command mvm vm creat", "did you mean mvm vm create?")],
    [
      ["guest", "paint"],
      refusal("there is no command mvm guest paint", "mvm guest --help lists its commands"),
    ],
    [["--json", "status"], refusal("--json comes before the command", "mvm COMMAND [OPTIONS]")],
    [
      ["guest", "send"],
      refusal("an argument is missing: mvm guest send <target> [file]", "mvm guest send --help"),
    ],
    [
      ["guest", "send", "a", "b", "c"],
      refusal("c is one argument too many: mvm guest send <target> [file]", "mvm guest send --help"),
    ],
    [["vm", "list", "--jsn"], refusal("mvm vm list has no option --jsn", "did you mean --json?")],
    [["vm", "list", "--wide"], refusal("mvm vm list has no option --wide", "mvm vm list --help")],
    [
      ["serve", "--log-fromat", "json"],
      refusal("mvm serve has no option --log-fromat", "did you mean --log-format?"),
    ],
    [["vm", "show", "a", "--state"], refusal("--state <dir> needs a value", "mvm vm show --help")],
    [
      ["guest", "send", "db", "--wait", "soon"],
      refusal("--wait: soon is not a time", "for example 30s, 5m or 250ms"),
    ],
    [
      ["guest", "recv", "--wait", "5s"],
      refusal(
        "--wait goes with --request",
        "without --request the sender asks, and a receiver waits until one does",
      ),
    ],
    [
      ["guest", "send", "db", "--offer", "--wait"],
      refusal(
        "--wait does not go with --offer",
        "an offer stands until a receiver requests it, and the receiver says how",
      ),
    ],
  ] as const)("%j says what is wrong and what to do", async (words, expected) => {
    expect(await mvm(...words)).toEqual(expected)
  })
})

describe("a failure", () => {
  test("without a daemon or an agent has status 3 and says what to start", async () => {
    const daemon = await mvm("vm", "list")
    expect(daemon.status).toBe(3)
    expect(daemon.stderr).toContain("no MVM answers at /nonexistent/mvm/control.sock")
    expect(daemon.stderr).toContain("hint: start it with mvm serve")
    const agent = await mvm("guest", "status")
    expect(agent.status).toBe(3)
    expect(agent.stderr).toContain("hint: start it with mvm guest agent")
  })

  test("to read a file names the file and the reason, without a trace", async () => {
    const folder = mkdtempSync(join(tmpdir(), "mvm-cli-"))
    try {
      const missing = join(folder, "absent")
      for (const words of [
        ["guest", "send", "db", missing],
        ["audit", "verify", missing, "--key", `04${"00".repeat(64)}`],
      ]) {
        const { status, stderr } = await mvm(...words)
        expect(status).toBe(2)
        expect(stderr).toBe(`mvm: cannot read ${missing}: no such file\n`)
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test("to write is silent when the reader has left", async () => {
    const child = Bun.spawn(
      ["bash", "-c", `"$0" "$1" --help | head -1; echo "\${PIPESTATUS[0]}"`, process.execPath, MAIN],
      {
        stdout: "pipe",
        stderr: "pipe",
      },
    )
    const [stdout, stderr] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ])
    expect(stderr).toBe("")
    expect(stdout.split("\n")[0]).toStartWith("mvm source:")
    // All of it fits the pipe, so either the writer was done or it was told that nobody reads.
    expect(stdout.split("\n")[1]).toMatch(/^[01]$/)
  })
})
