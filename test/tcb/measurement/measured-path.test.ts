import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { utf8 } from "../../../src/lib/bytes.ts"
import { isPathText, kernelPathText, pathText } from "../../../src/tcb/measurement/measured-path.ts"

describe("the text form of a path", () => {
  test("leaves printable names as they are", () => {
    for (const path of ["/bin/sh", "/opt/größe", "/x/日本", "boot_aggregate"])
      expect(pathText(utf8(path))).toBe(path)
  })

  test("shows what a terminal or a reader would be misled by", () => {
    expect(pathText(utf8("/a\n0000  /b"))).toBe("/a\\x0a0000  /b")
    expect(pathText(utf8("/\u202egpj.sh"))).toBe("/\\xe2\\x80\\xaegpj.sh")
    expect(pathText(utf8("/\x1b[2J"))).toBe("/\\x1b[2J")
    expect(pathText(new Uint8Array([0x2f, 0xc3, 0x28]))).toBe("/\\xc3(")
  })

  test("is printable for any bytes, and different for different bytes", () => {
    const name = fc.uint8Array({ minLength: 1, maxLength: 12 })
    fc.assert(
      fc.property(name, name, (a, b) => {
        expect(isPathText(pathText(a))).toBe(true)
        expect(pathText(a) === pathText(b)).toBe(Buffer.from(a).equals(b))
      }),
      { numRuns: 2000 },
    )
  })

  test("is recognised, and a text with a bare backslash or a control character is not", () => {
    expect(isPathText("/a\\x0ab")).toBe(true)
    for (const text of ["", "/a\\b", "/a\\x0", "/a\\xZZ", "/a\\x0A", "/a\nb"])
      expect(isPathText(text)).toBe(false)
  })

  test("as the kernel logs it has an underscore for a space", () => {
    expect(kernelPathText("/opt/a program")).toBe("/opt/a_program")
    expect(kernelPathText(new Uint8Array([0x2f, 0x20, 0xff]))).toBe("/_\\xff")
  })
})
