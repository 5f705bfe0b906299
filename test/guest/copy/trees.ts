/**
 * @module test/guest/copy/trees
 *
 * Folders to copy from and into, and whether two are the same, as other programs see them.
 */

import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A folder of this test alone. */
export class Scratch {
  readonly path = mkdtempSync(join(tmpdir(), "mvcp-"))

  folder(name: string): string {
    const path = join(this.path, name)
    mkdirSync(path, { recursive: true })
    return path
  }

  remove(): void {
    Bun.spawnSync(["chmod", "-R", "u+rwx", this.path])
    rmSync(this.path, { recursive: true, force: true })
  }
}

/** Not compressible, and every block another. */
export function noise(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes)
  for (let at = 0; at < lengthBytes; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(lengthBytes, at + 65536)))
  }
  return bytes
}

/** Everything a copy keeps: modes, times to the nanosecond, links, holes, empty files and folders, odd names. */
export function varied(folder: string): void {
  mkdirSync(join(folder, "deep/er/still"), { recursive: true })
  mkdirSync(join(folder, "empty"))
  for (const [name, length] of [
    ["none", 0],
    ["one", 1],
    ["block", 1 << 20],
    ["more", (3 << 20) + 17],
    ["deep/er/small", 4096],
    ["deep/er/still/it", 70_000],
    ["é ü 漢字", 10],
    [" leading and trailing ", 11],
    ["-rf", 12],
    ["back\\slash", 13],
    ["...", 14],
  ] as const) {
    writeFileSync(join(folder, name), noise(length))
  }
  writeFileSync(Buffer.concat([Buffer.from(`${folder}/latin-`), Buffer.of(0xe9)]), "not UTF-8")
  writeFileSync(join(folder, "n".repeat(255)), "the longest name")
  symlinkSync("../one", join(folder, "deep/link"))
  symlinkSync("nowhere", join(folder, "dangling"))
  holes(join(folder, "sparse"), 5 << 20)
  const changed = Bun.spawnSync(
    [
      "sh",
      "-ec",
      `chmod 0600 one; chmod 0755 block; chmod 0444 deep/er/small; chmod 0000 none; chmod 0711 empty
       touch -h -d '1999-12-31 23:59:59.123456789' dangling
       touch -d '1969-07-20 20:17:40.000000001' one
       touch -d '2001-02-03 04:05:06.700000000' deep/er/still/it sparse
       touch -d '2002-02-03 04:05:06.7' empty deep/er deep
       chmod 0555 deep/er/still`,
    ],
    { cwd: folder },
  )
  if (changed.exitCode !== 0) throw new Error(changed.stderr.toString())
}

/** A file with data at its begin, in its middle and before its end. */
export function holes(path: string, lengthBytes: number): void {
  writeFileSync(path, "")
  truncateSync(path, lengthBytes)
  const write = (offset: number, length: number): void => {
    const source = `${path}.piece`
    writeFileSync(source, noise(length))
    const { exitCode } = Bun.spawnSync([
      "dd",
      `if=${source}`,
      `of=${path}`,
      "conv=notrunc",
      "oflag=seek_bytes",
      `seek=${offset}`,
      "status=none",
    ])
    rmSync(source)
    if (exitCode !== 0) throw new Error("dd failed")
  }
  write(0, 5000)
  write(Math.floor(lengthBytes / 2), 100_000)
  write(lengthBytes - 9000, 3000)
}

/** Makes `count` small files in folders of 100. */
export function manyFiles(folder: string, count: number): void {
  for (let index = 0; index < count; index += 1) {
    const under = join(folder, `d${Math.floor(index / 100)}`)
    if (index % 100 === 0) mkdirSync(under, { recursive: true })
    const path = join(under, `f${index}`)
    writeFileSync(path, `${index} ${"x".repeat(index % 997)}`)
    utimesSync(path, 1_000_000_000 + index, 1_000_000_000 + index)
  }
}

/**
 * What differs between two trees, by diff(1) and find(1): contents, kinds, permissions, times, link texts, and any
 * name that is in one alone.
 */
export function differences(a: string, b: string): string {
  const diff = Bun.spawnSync(["diff", "-r", "--no-dereference", a, b])
  const listing = (folder: string): string => {
    const format = "%y %m %T@ %s %l %p\\0"
    // The top's own time is that of the target folder, which no copy claims.
    const found = Bun.spawnSync(
      [
        "find",
        ".",
        "-mindepth",
        "1",
        "-type",
        "d",
        "-printf",
        "%y %m %T@ %p\\0",
        "-o",
        "-mindepth",
        "1",
        "-printf",
        format,
      ],
      {
        cwd: folder,
      },
    )
    if (found.exitCode !== 0) throw new Error(found.stderr.toString())
    return found.stdout.toString("latin1").split("\0").sort().join("\n")
  }
  const [left, right] = [listing(a), listing(b)]
  if (diff.exitCode === 0 && left === right) return ""
  const lines = (text: string, other: string): string[] => {
    const known = new Set(other.split("\n"))
    return text.split("\n").filter((line) => !known.has(line))
  }
  return [
    diff.stdout.toString() + diff.stderr.toString(),
    ...lines(left, right).map((line) => `< ${line}`),
    ...lines(right, left).map((line) => `> ${line}`),
  ]
    .slice(0, 20)
    .join("\n")
}

/** Bytes that a file or tree occupies. */
export function occupied(path: string): number {
  const { stdout } = Bun.spawnSync(["du", "-s", "-B1", path])
  return Number(stdout.toString().split("\t")[0])
}
