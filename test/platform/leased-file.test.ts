/** @module test/platform/leased-file */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { random, sha256 } from "../../src/lib/crypto.ts"
import { libc } from "../../src/platform/ffi.ts"
import { LeasedFile } from "../../src/platform/leased-file.ts"

/** Not a whole number of windows, nor of pages. */
const SIZE_BYTES = 20 * 2 ** 20 + 12_345
const content = random(SIZE_BYTES)

let folder: string
let path: string
let fd: number

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mvml-"))
  path = join(folder, "file")
  writeFileSync(path, content)
  fd = openSync(path, "r")
})
afterEach(() => {
  closeSync(fd)
  rmSync(folder, { recursive: true })
})

function position(): number {
  return Number(libc().lseek(fd, 0, 1))
}

/** All that `file` yields, and whether it ended by itself. */
function drain(file: LeasedFile, mostBytes: number): { bytes: Uint8Array; whole: boolean } {
  const parts: Uint8Array[] = []
  for (;;) {
    const part = file.next(mostBytes)
    if (part === undefined || part.length === 0)
      return { bytes: Buffer.concat(parts), whole: part !== undefined }
    expect(part.length).toBeLessThanOrEqual(mostBytes)
    parts.push(part.slice())
  }
}

/** Another process that does `shell` to the file. */
function other(shell: string): Bun.Subprocess {
  return Bun.spawn(["sh", "-c", shell], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] })
}

/** By truncate(2). coreutils' truncate opens the file without waiting, and is told to come back (EAGAIN). */
function truncateTo(lengthBytes: number): string {
  return `exec ${process.execPath} -e 'fs.truncateSync("file", ${lengthBytes})'`
}

async function until(ready: () => boolean): Promise<void> {
  while (!ready()) await Bun.sleep(5)
}

describe("a leased file", () => {
  test.each([262_080, 1 << 20, 999_999, 64 << 20])(
    "yields what is in it, in pieces of %d bytes",
    (mostBytes) => {
      const file = LeasedFile.take(fd)!
      const { bytes, whole } = drain(file, mostBytes)
      expect(whole).toBe(true)
      expect(sha256(bytes)).toEqual(sha256(content))
      file.release()
      expect(position()).toBe(SIZE_BYTES)
    },
  )

  test("begins where its descriptor stands, and leaves it where it ended", () => {
    readSync(fd, new Uint8Array(100), 0, 100, null)
    const file = LeasedFile.take(fd)!
    expect(file.next(7)!.slice()).toEqual(content.slice(100, 107))
    file.release()
    expect(position()).toBe(107)
    expect(file.next(7)).toBeUndefined()
  })

  test.each([
    ["truncates it by name", truncateTo(1000)],
    ["opens it to write", ": >>file"],
    ["empties it", ": >file"],
  ])("is let go of when another %s, who waits until then", async (_, shell) => {
    const file = LeasedFile.take(fd)!
    expect(file.next(1000)!.length).toBe(1000)
    const writer = other(shell)
    // No call of this end's in between: the signal alone.
    expect(await writer.exited).toBe(0)
    expect(file.next(1000)).toBeUndefined()
    expect(position()).toBe(1000)
    file.release()
  })

  test("is let go of at the next look, should the signal not have been seen yet", async () => {
    const file = LeasedFile.take(fd)!
    file.next(1000)
    const writer = other(truncateTo(500))
    while (file.next(1) !== undefined) Bun.sleepSync(1)
    expect(await writer.exited).toBe(0)
    expect(fstatSync(fd).size).toBe(500)
  })

  test("is free at once when its holder is killed, though others hold what it was given", async () => {
    const holder = Bun.spawn(
      [
        process.execPath,
        "-e",
        `const { LeasedFile } = await import(${JSON.stringify(join(import.meta.dir, "../../src/platform/leased-file.ts"))})
        const file = LeasedFile.take(0)
        process.stdout.write(String(file.next(10).length))
        await Bun.sleep(60_000)`,
      ],
      { stdin: fd, stdout: "pipe", stderr: "inherit" },
    )
    const { value } = await holder.stdout.getReader().read()
    expect(new TextDecoder().decode(value)).toBe("10")
    expect(position()).toBe(10)
    holder.kill("SIGKILL")
    await holder.exited
    const began = performance.now()
    expect(await other(": >>file").exited).toBe(0)
    // The kernel waits 45 s for a lease that nobody gives back.
    expect(performance.now() - began).toBeLessThan(20_000)
  })

  test("is none where somebody has it open to write", async () => {
    const writer = other("exec 3>>file; echo >there; exec sleep 60")
    await until(() => Bun.file(join(folder, "there")).size > 0)
    expect(LeasedFile.take(fd)).toBeUndefined()
    writer.kill()
    await writer.exited
  })

  test("is none of a short file, a device, a pipe or a file of the kernel's", async () => {
    const short = join(folder, "short")
    writeFileSync(short, "short")
    for (const name of [short, "/dev/zero", "/proc/kallsyms", folder]) {
      const opened = openSync(name, "r")
      expect(LeasedFile.take(opened)).toBeUndefined()
      closeSync(opened)
    }
  })

  test("leaves writers alone once it was released", async () => {
    const file = LeasedFile.take(fd)!
    file.next(10)
    file.release()
    file.release()
    expect(await other(truncateTo(0)).exited).toBe(0)
  })
})
