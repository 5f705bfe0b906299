import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { concat, utf8 } from "../../../src/lib/bytes.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { cpioReference } from "../../../src/mvm/reference/cpio.ts"
import { walkReference } from "../../../src/mvm/reference/walk.ts"

let folder: string
let archive: Uint8Array<ArrayBuffer>

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "mvm-cpio-"))
  const put = (path: string, content: string, mode: number): void => {
    mkdirSync(join(folder, path, ".."), { recursive: true })
    writeFileSync(join(folder, path), content, { mode })
  }
  put("init", "#!/bin/sh\n", 0o755)
  put("usr/lib/libx.so", "\x7fELF library", 0o644)
  put("lib/modules/a b.ko", "module", 0o644)
  put("etc/ima/policy", "measure", 0o644)
  put("etc/hostname", "web", 0o644)
  symlinkSync("init", join(folder, "sbin"))
  archive = await pack()
})
afterAll(() => rmSync(folder, { recursive: true }))

/** As GNU cpio writes it. */
async function pack(): Promise<Uint8Array<ArrayBuffer>> {
  const child = Bun.spawn(["sh", "-c", "find . -print0 | cpio --quiet --null --create --format=newc"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "ignore"],
  })
  return new Uint8Array(await new Response(child.stdout).arrayBuffer())
}

function problemOf(image: Uint8Array): MvmError {
  try {
    cpioReference(image)
  } catch (error) {
    if (error instanceof MvmError) return error
  }
  throw new Error("nothing was refused")
}

describe("an initramfs", () => {
  test("gives the values that a walk of the same tree gives", async () => {
    const files = cpioReference(archive)
    expect([...files.keys()].sort()).toEqual([
      "/etc/ima/policy",
      "/init",
      "/lib/modules/a_b.ko",
      "/usr/lib/libx.so",
    ])
    expect(files).toEqual(await walkReference(folder))
    expect(cpioReference(archive, { all: true })).toEqual(await walkReference(folder, { all: true }))
  })

  test("may be compressed, behind another archive, and padded", () => {
    const files = cpioReference(archive)
    expect(cpioReference(Bun.gzipSync(archive))).toEqual(files)
    expect(cpioReference(Bun.zstdCompressSync(archive))).toEqual(files)
    const early = concat(archive, new Uint8Array(512), Bun.gzipSync(archive))
    expect(cpioReference(early)).toEqual(files)
  })

  test("cut anywhere before its trailer is refused with the offset", () => {
    const trailer = Buffer.from(archive).indexOf("TRAILER!!!")
    for (let cut = 1; cut < trailer; cut += 1) {
      expect(problemOf(archive.subarray(0, cut)).message).toMatch(/^image at \d+: /)
    }
  })

  test("with any byte of a header changed is refused or is other values, and never a crash", () => {
    for (let at = 0; at < 300; at += 1) {
      const changed = archive.slice()
      changed[at]! ^= 0x15
      try {
        cpioReference(changed)
      } catch (error) {
        expect(error).toBeInstanceOf(MvmError)
      }
    }
  })

  test("that is no archive, or has no code in it, is refused", () => {
    expect(problemOf(utf8("an image of another kind")).code).toBe("config")
    expect(problemOf(new Uint8Array(1024)).message).toContain("no file")
    expect(problemOf(concat(Uint8Array.of(0x1f, 0x8b), archive)).message).toContain("cannot be unpacked")
  })

  test("that would unpack to gigabytes is refused where it passes the bound, and not unpacked to its end", () => {
    const block = Bun.zstdCompressSync(new Uint8Array(64 << 20))
    const before = process.memoryUsage().rss
    expect(problemOf(concat(...Array.from({ length: 64 }, () => block))).code).toBe("too_large")
    expect(process.memoryUsage().rss - before).toBeLessThan(1 << 30)
  })
})
