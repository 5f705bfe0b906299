/**
 * @module test/integration/unprivileged
 *
 * The MVM and its vTPMs as a user of no rights: the daemon's limits are those of its unit, the rest is nobody's. And
 * what another such user gets of them: nothing.
 */

import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { hostForFile } from "./host.ts"

const NOBODY = "65534"
const OTHER = "65533"

const as = (uid: string): string[] => [
  "setpriv",
  `--reuid=${uid}`,
  `--regid=${uid}`,
  "--clear-groups",
  "--bounding-set=-all",
  "--no-new-privs",
]

test("all of it runs as an unprivileged user, without a capability, within the unit's limits", async () => {
  const limits = ["prlimit", "--nofile=4096", "--core=0", "--memlock=0"]
  const child = Bun.spawn(
    [...limits, ...as(NOBODY), process.execPath, join(import.meta.dir, "unprivileged-session.ts")],
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, HOME: "/nonexistent", TMPDIR: "/tmp" },
    },
  )
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  expect({ status: await child.exited, errors }).toEqual({ status: 0, errors: "" })
  const { processes, ...outcome } = JSON.parse(output) as {
    processes: { program: string; uid: string; capabilities: string; canGain: boolean }[]
  }
  expect(outcome).toEqual({ statuses: [0, 0], isWhole: true, mode: "700" } as never)
  expect(new Set(processes.map(({ program }) => program))).toEqual(new Set(["mvm", "swtpm"]))
  for (const { program, ...rights } of processes) {
    expect({ program, ...rights }).toEqual({
      program,
      uid: NOBODY,
      capabilities: "0".repeat(16),
      canGain: false,
    })
  }
}, 120_000)

describe("another user of the host", () => {
  const host = hostForFile({ members: ["a"] })

  /** A command of the built program in that user's name, on the state of the MVM. */
  async function attempt(...words: string[]): Promise<{ status: number; errors: string }> {
    const child = Bun.spawn([...as(OTHER), join(import.meta.dir, "../../dist/mvm"), ...words], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      env: { ...process.env, MVM_STATE: host().state },
    })
    const errors = await new Response(child.stderr).text()
    return { status: await child.exited, errors }
  }

  test("gets neither the operator's socket nor an agent's", async () => {
    for (const words of [["status"], ["vm", "list"]]) {
      expect([words, (await attempt(...words)).status]).toEqual([words, 3])
    }
    const { status, errors } = await attempt("guest", "status", "--local", "a")
    expect(status).toBe(6)
    expect(errors).toContain("may not use the agent")
  })

  test("gets nothing of either when the folders are open to it: who asks is what the kernel says", async () => {
    Bun.spawnSync(["chmod", "-R", "a+rwX", host().folder])
    try {
      expect((await attempt("status")).status).toBe(3)
      const { status, errors } = await attempt("guest", "status", "--local", "a")
      expect(status).toBe(3)
      expect(errors).toMatch(/the agent went away|no agent answers/)
    } finally {
      Bun.spawnSync(["chmod", "-R", "go-rwx", host().state])
      await host().free()
    }
  })
})
