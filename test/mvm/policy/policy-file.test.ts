/** @module test/mvm/policy/policy-file */

import { describe, expect, test } from "bun:test"
import { appendFileSync, chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { decide } from "../../../src/mvm/policy/decide.ts"
import { PolicyFile, readPolicy } from "../../../src/mvm/policy/policy-file.ts"
import { closeLater, failure, scratchFolder } from "../scratch-state.ts"

const RULE = '[[rule]]\nservice = "web"\nfrom = "a"\nto = "b"\naction = "allow"\n'
const QUESTION = { service: "web", from: { name: "a", tags: [] }, to: { name: "b", tags: [] } }

function scratchPolicy(text?: string): { path: string; file: PolicyFile } {
  const path = join(scratchFolder(), "policy.toml")
  if (text !== undefined) writeFileSync(path, text)
  const file = new PolicyFile(path)
  closeLater(() => file.close())
  return { path, file }
}

function action(file: PolicyFile): string {
  return decide(file.current, QUESTION).action
}

/** Resolves when the file was taken over with `state`. */
async function becomes(file: PolicyFile, state: "ok" | "broken"): Promise<void> {
  while (file.describe().state !== state) await Bun.sleep(10)
}

describe("a policy file", () => {
  test("is read when it is opened", () => {
    const { path, file } = scratchPolicy(RULE)
    expect(action(file)).toBe("allow")
    expect(file.describe()).toMatchObject({ file: path, state: "ok", rules: 1, reason: undefined })
    expect(readPolicy(path).rules.length).toBe(1)
  })

  test("denies everything when absent, and says what to write", async () => {
    const { path, file } = scratchPolicy()
    expect(action(file)).toBe("deny")
    expect(file.describe().reason).toContain("there is no policy")
    const error = await failure(() => readPolicy(path))
    expect([error.code, error.hint?.includes("[[rule]]")]).toEqual(["policy_broken", true])
  })

  test("denies everything when broken, unreadable or not text", () => {
    const broken = scratchPolicy(`${RULE}bogus = 1\n`)
    expect(action(broken.file)).toBe("deny")
    expect(broken.file.describe().reason).toBe('policy.toml:6:1: unknown key "bogus"')
    const { path, file } = scratchPolicy()
    writeFileSync(path, Uint8Array.of(0xff, 0xfe, 0x00))
    file.reload()
    expect(file.describe().reason).toContain("not UTF-8")
    rmSync(path)
    mkdirSync(path)
    file.reload()
    expect(file.describe().reason).toContain("not a regular file")
  })

  test("denies everything when anybody could have written it", () => {
    const { path, file } = scratchPolicy(RULE)
    chmodSync(path, 0o646)
    file.reload()
    expect(action(file)).toBe("deny")
    expect(file.describe().reason).toContain("other users can write")
    chmodSync(path, 0o644)
    file.reload()
    expect(action(file)).toBe("allow")
  })

  test("is taken over anew when it is written, replaced, broken, removed and made again", async () => {
    const { path, file } = scratchPolicy(RULE)
    let changes = 0
    file.watch(() => changes++)
    const sinceMs = performance.now()
    writeFileSync(path, "rule = 1\n")
    await becomes(file, "broken")
    // As editors do: a new file in the place of the old one.
    writeFileSync(`${path}.swp`, RULE)
    renameSync(`${path}.swp`, path)
    await becomes(file, "ok")
    expect(action(file)).toBe("allow")
    rmSync(path)
    await becomes(file, "broken")
    expect(action(file)).toBe("deny")
    writeFileSync(path, RULE + RULE)
    await becomes(file, "ok")
    expect(file.describe().rules).toBe(2)
    expect(changes).toBe(4)
    // The poll alone would take two seconds for each of the last three.
    expect(performance.now() - sinceMs).toBeLessThan(5000)
  })

  test("is not taken over half written", async () => {
    const { path, file } = scratchPolicy(RULE)
    const seen: number[] = []
    file.watch((current) => seen.push("error" in current ? -1 : current.rules.length))
    writeFileSync(path, "")
    for (let part = 0; part < 10; part++) {
      appendFileSync(path, RULE)
      await Bun.sleep(5)
    }
    while (file.describe().rules !== 10) await Bun.sleep(10)
    expect(seen.at(-1)).toBe(10)
    expect(seen).not.toContain(-1)
  })

  test("is left alone once it is closed", async () => {
    const { path, file } = scratchPolicy(RULE)
    let changes = 0
    file.watch(() => changes++)
    file.close()
    writeFileSync(path, "")
    await Bun.sleep(300)
    expect([changes, action(file)]).toEqual([0, "allow"])
  })
})
