import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { utf8 } from "../../../src/lib/bytes.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { walkReference } from "../../../src/mvm/reference/walk.ts"

let root: string

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "mvm-walk-"))
  const put = (name: string, content: string, mode = 0o644): void => {
    writeFileSync(join(root, name), content)
    chmodSync(join(root, name), mode)
  }
  mkdirSync(join(root, "usr/lib/modules"), { recursive: true })
  mkdirSync(join(root, "usr/bin"))
  put("usr/bin/a tool", "tool", 0o755)
  put("usr/bin/script", "#!/bin/sh\n")
  put("usr/lib/lib.so", "\x7fELF...")
  put("usr/lib/modules/x.ko.xz", "module")
  put("usr/lib/data", "data")
  put("usr/lib/empty", "")
  writeFileSync(Buffer.concat([Buffer.from(`${root}/usr/bin/`), Buffer.from([0xff])]), "#!odd")
  symlinkSync("/etc/hostname", join(root, "usr/bin/link"))
  symlinkSync("/", join(root, "usr/root"))
  await Bun.spawn(["mkfifo", join(root, "usr/bin/pipe")]).exited
})

afterAll(() => rmSync(root, { recursive: true, force: true }))

describe("a walk over a tree", () => {
  test("finds what can become code, by the path ima would log, and follows no link", async () => {
    const files = await walkReference(root)
    expect([...files.keys()].toSorted()).toEqual([
      "/usr/bin/\\xff",
      "/usr/bin/a_tool",
      "/usr/bin/script",
      "/usr/lib/lib.so",
      "/usr/lib/modules/x.ko.xz",
    ])
    expect(files.get("/usr/bin/a_tool")).toEqual(new Set([sha256(utf8("tool")).toHex()]))
  })

  test("finds every regular file when asked to, and a slash behind the root changes nothing", async () => {
    const files = await walkReference(`${root}/`, { all: true })
    expect(files.size).toBe(7)
    expect(files.get("/usr/lib/empty")).toEqual(new Set([sha256().toHex()]))
  })

  test("hashes a file longer than one read", async () => {
    const content = new Uint8Array(3 * 1024 * 1024 + 17).fill(7)
    const dir = mkdtempSync(join(tmpdir(), "mvm-walk-"))
    try {
      writeFileSync(join(dir, "big"), content)
      const files = await walkReference(dir, { all: true })
      expect(files.get("/big")).toEqual(new Set([sha256(content).toHex()]))
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  test("of a place that is not there is an error that names it", async () => {
    await expect(walkReference(join(root, "nowhere"))).rejects.toMatchObject({
      code: "io",
      message: expect.stringContaining("nowhere: ENOENT"),
    })
  })

  test("ends when it is interrupted", async () => {
    const signal = AbortSignal.abort()
    await expect(walkReference(root, { signal })).rejects.toMatchObject({ code: "interrupted" })
  })
})
