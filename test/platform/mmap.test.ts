import { afterAll, expect, test } from "bun:test"
import { ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, closeSync } from "node:fs"
import { join } from "node:path"
import { MvmError } from "../../src/lib/errors.ts"
import { mapShared, mapSharedFd } from "../../src/platform/mmap.ts"
import { sealedMemory } from "../../src/platform/posix.ts"

const directory = mkdtempSync("/dev/shm/mvm-mmap-test-")
afterAll(() => rmSync(directory, { recursive: true, force: true }))

function errorCode(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof MvmError ? error.code : String(error)
  }
  return "none"
}

test("a mapping shows what is written to the file, and the file what is written to the mapping", () => {
  const path = join(directory, "a")
  writeFileSync(path, new Uint8Array(3 * 4096))
  const first = mapShared(path, { offsetBytes: 4096, lengthBytes: 8192 })
  const second = mapShared(path, { offsetBytes: 0, lengthBytes: 3 * 4096 })
  first.bytes[5] = 42
  expect(second.bytes[4096 + 5]).toBe(42)
  expect(readFileSync(path)[4096 + 5]).toBe(42)
  first.unmap()
  second.unmap()
})

test("unmapping empties every view instead of leaving them to fault", () => {
  const fd = sealedMemory("mvm-test", 4096)
  const mapping = mapSharedFd(fd, { offsetBytes: 0, lengthBytes: 4096 }, "memfd")
  const words = new Int32Array(mapping.bytes.buffer)
  mapping.unmap()
  mapping.unmap()
  expect(mapping.bytes.length).toBe(0)
  expect(words.length).toBe(0)
  expect(() => Atomics.load(words, 0)).toThrow()
  closeSync(fd)
})

test("refuses a file shorter than the mapping, an odd offset and a missing file", () => {
  const path = join(directory, "short")
  writeFileSync(path, new Uint8Array(4096))
  expect(errorCode(() => mapShared(path, { offsetBytes: 0, lengthBytes: 4097 }))).toBe("no_space")
  expect(errorCode(() => mapShared(path, { offsetBytes: 4096, lengthBytes: 1 }))).toBe("no_space")
  expect(errorCode(() => mapShared(path, { offsetBytes: 64, lengthBytes: 64 }))).toBe("usage")
  expect(errorCode(() => mapShared(path, { offsetBytes: 0, lengthBytes: 0 }))).toBe("usage")
  expect(errorCode(() => mapShared(join(directory, "none"), { offsetBytes: 0, lengthBytes: 1 }))).toBe("io")
  expect(errorCode(() => mapShared("/dev/null", { offsetBytes: 0, lengthBytes: 4096 }))).toBe("io")
})

test("sealed memory cannot be shrunk, grown or unsealed by another holder", () => {
  const fd = sealedMemory("mvm-test", 8192)
  const other = openSync(`/proc/self/fd/${fd}`, "r+")
  expect(() => ftruncateSync(other, 0)).toThrow(/EPERM/)
  expect(() => ftruncateSync(other, 16384)).toThrow(/EPERM/)
  closeSync(other)
  closeSync(fd)
})
