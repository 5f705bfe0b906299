import { expect, test } from "bun:test"
import { MvmError } from "../../src/lib/errors.ts"
import {
  checkLayoutVersion,
  greatestRingBytes,
  isMarkedClosed,
  isMarkedRevoked,
  markClosed,
  markRevoked,
  regionBytes,
  regionLayout,
  regionOf,
} from "../../src/ring/layout.ts"
import { freshRegion } from "./fresh-region.ts"

test("the words lie where the layout says", () => {
  const { region, memory } = freshRegion(8192)
  const words = new Uint32Array(memory.buffer, 0, 1024)
  expect(memory.length).toBe(4096 + 2 * 8192)
  expect(words[0]).toBe(1)
  const offsets = [region.aToB, region.bToA].flatMap((ring) =>
    [ring.tailWord, ring.headWord, ring.dataWantedWord, ring.roomWantedWord, ring.closedWord].map(
      (w) => w * 4,
    ),
  )
  expect(offsets).toEqual([0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0x400, 0x480, 0x500, 0x580])
  expect(region.aToB.bytes.byteOffset).toBe(0x1000)
  expect(region.bToA.bytes.byteOffset).toBe(0x3000)
  expect(region.aToB.capacityUnits).toBe(128)
})

test("ring sizes that are no power of two, too small, too large or too long for the memory are refused", () => {
  const codeOf = (run: () => unknown): string => {
    try {
      run()
    } catch (error) {
      return (error as MvmError).code
    }
    return "none"
  }
  for (const ringBytes of [0, -4096, 2048, 4097, 12288, 2 ** 31, Number.NaN, 4096.5]) {
    expect(codeOf(() => regionLayout(ringBytes))).toBe("usage")
  }
  expect(codeOf(() => regionOf(new Uint8Array(4096 + 8191), 4096))).toBe("usage")
  expect(codeOf(() => regionOf(new Uint8Array(4096 + 8192), 4096))).toBe("none")
})

test("the refusal names the greatest ring that fits", () => {
  expect(greatestRingBytes(regionBytes(65536))).toBe(65536)
  expect(greatestRingBytes(regionBytes(65536) - 1)).toBe(32768)
  expect(greatestRingBytes(4096)).toBe(0)
  try {
    regionOf(new Uint8Array(regionBytes(8192)), 16384)
    expect.unreachable()
  } catch (error) {
    expect((error as MvmError).hint).toContain("8192")
  }
})

test("marks are seen by the other end, each on its own", () => {
  const { region } = freshRegion(4096)
  checkLayoutVersion(region)
  expect([isMarkedRevoked(region), isMarkedClosed(region.aToB), isMarkedClosed(region.bToA)]).toEqual([
    false,
    false,
    false,
  ])
  markClosed(region.bToA)
  expect(isMarkedClosed(region.aToB)).toBe(false)
  expect(isMarkedClosed(region.bToA)).toBe(true)
  markRevoked(region)
  expect(isMarkedRevoked(region)).toBe(true)
})

test("a region laid out by another version is refused", () => {
  const { region, memory } = freshRegion(4096)
  memory[0] = 2
  expect(() => checkLayoutVersion(region)).toThrow(MvmError)
})
