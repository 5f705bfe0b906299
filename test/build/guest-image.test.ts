/** @module test/build/guest-image */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { hashFile } from "../../src/platform/launch-digest.ts"

const root = join(import.meta.dir, "../..")
const folder = mkdtempSync(join(tmpdir(), "mvm-image-"))
const at = (name: string) => join(folder, name)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function image(...args: string[]): { status: number; stderr: string } {
  const child = Bun.spawnSync([join(root, "scripts/guest-image"), ...args])
  return { status: child.exitCode, stderr: child.stderr.toString() }
}

function names(output: string): string[] {
  const list = Bun.spawnSync(["cpio", "--quiet", "--list"], {
    stdin: Bun.file(join(output, "initramfs.cpio")),
  })
  return list.stdout.toString().trim().split("\n")
}

describe("scripts/guest-image", () => {
  beforeAll(() => {
    expect(Bun.spawnSync([join(root, "scripts/build"), "--quiet"]).exitCode).toBe(0)
    expect(image("--quiet", "--output", at("one"))).toEqual({ status: 0, stderr: "" })
  }, 180_000)

  test("gives the same bytes for the same inputs", async () => {
    expect(image("--quiet", "--output", at("two")).status).toBe(0)
    for (const file of ["vmlinuz", "initramfs.cpio"]) {
      expect(await hashFile(at(`one/${file}`))).toBe(await hashFile(at(`two/${file}`)))
    }
  })

  test("does nothing when nothing changed", () => {
    const before = statSync(at("one/initramfs.cpio"))
    expect(image("--output", at("one")).stderr).toContain("up to date")
    expect(statSync(at("one/initramfs.cpio"))).toEqual(before)
  })

  test("holds init, the policy, mvm and the kernel's link driver", () => {
    const wanted = ["init", "etc/ima/policy", "usr/bin/mvm", "bin/busybox", "lib/modules/virtio_console.ko"]
    expect(names(at("one"))).toEqual(expect.arrayContaining(wanted))
  })

  test("overlays the files of a folder, and rebuilds when one changes", async () => {
    mkdirSync(at("extra/etc/mvm"), { recursive: true })
    writeFileSync(at("extra/etc/mvm/rc.local"), "#!/bin/sh\n", { mode: 0o755 })
    const args = ["--quiet", "--output", at("three"), "--extra", at("extra")]
    expect(image(...args).status).toBe(0)
    expect(names(at("three"))).toContain("etc/mvm/rc.local")
    const first = await hashFile(at("three/initramfs.cpio"))
    writeFileSync(at("extra/etc/mvm/rc.local"), "#!/bin/sh\ntrue\n")
    expect(image(...args).status).toBe(0)
    expect(await hashFile(at("three/initramfs.cpio"))).not.toBe(first)
  })

  test("refuses an unknown option and a folder that is not there", () => {
    expect(image("--nonsense").status).toBe(2)
    expect(image("--extra", at("nothing")).stderr).toContain(at("nothing"))
  })
})
