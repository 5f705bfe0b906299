/**
 * @module test/cli/output
 *
 * What reaches a terminal, tried on a real one.
 */

import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { counted } from "../../src/cli/output.ts"

const OUTPUT = JSON.stringify(join(import.meta.dir, "../../src/cli/output.ts"))

/** Runs `code` with everything of output.ts in scope. */
async function piped(code: string): Promise<{ stdout: string; stderr: string }> {
  const child = Bun.spawn([process.execPath, "-e", `import * as out from ${OUTPUT}\n${code}`], {
    stdout: "pipe",
    stderr: "pipe",
  })
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { stdout, stderr }
}

async function onTerminal(code: string, cols = 80): Promise<string> {
  const chunks: Uint8Array[] = []
  const child = Bun.spawn([process.execPath, "-e", `import * as out from ${OUTPUT}\n${code}`], {
    terminal: { cols, rows: 24, data: (_terminal, chunk) => void chunks.push(chunk.slice()) },
  })
  await child.exited
  // The last bytes may still be on their way.
  await Bun.sleep(50)
  child.terminal?.close()
  return Buffer.concat(chunks).toString()
}

describe("notes", () => {
  test("go to stderr with control characters made visible", async () => {
    const { stdout, stderr } = await piped(`out.note("a\\x1b[31mb\\u202ec")`)
    expect(stdout).toBe("")
    expect(stderr).toBe("mvm: a\\u001b[31mb\\u202ec\n")
  })

  test("that only suggest are for terminals alone", async () => {
    expect((await piped(`out.suggest("next")`)).stderr).toBe("")
    expect(await onTerminal(`out.suggest("next")`)).toBe("mvm: next\r\n")
  })
})

describe("a table", () => {
  test("aligns columns and ends lines without blanks", async () => {
    const { stdout } = await piped(`out.printTable(["NAME", "X"], [["a", "1"], ["longer", ""]])`)
    expect(stdout).toBe("NAME    X\na       1\nlonger\n")
  })

  test("without rows is a word on stderr", async () => {
    expect(await piped(`out.printTable(["NAME"], [])`)).toEqual({ stdout: "", stderr: "mvm: none\n" })
  })
})

describe("progress", () => {
  const CODE = `const line = new out.ProgressLine("to db", 2048, false); await Bun.sleep(220); line.update(1024); line.end()`

  test("is not written where nobody watches", async () => {
    expect(await piped(CODE)).toEqual({ stdout: "", stderr: "" })
  })

  test("says share, amount and rate, within the width of the terminal", async () => {
    const wide = await onTerminal(CODE)
    expect(wide).toContain("to db: 50 %, 1.00 KiB,")
    expect(wide).toEndWith("\r\u001b[K")
    for (const part of (await onTerminal(CODE, 20)).split("\r")) {
      expect(part.replace("\u001b[K", "").trimEnd().length).toBeLessThan(20)
    }
  })

  test("of a wait is cleared and leaves what came of it", async () => {
    const code = `const line = new out.WaitingLine("waiting for x"); line.end("x is there")`
    expect(await piped(code)).toEqual({ stdout: "", stderr: "" })
    expect(await onTerminal(code)).toMatch(
      /^\r\u001b\[Kmvm: waiting for x, 0 s\r\u001b\[Kmvm: x is there after \d+ ms\r\n$/,
    )
  })
})

test("counts in words that fit the number", () => {
  expect([0, 1, 2].map((count) => counted(count, "rule"))).toEqual(["0 rules", "1 rule", "2 rules"])
})
