import { describe, expect, test } from "bun:test"
import { compileGlob, compileGlobs } from "../../../src/tcb/measurement/glob.ts"
import { codeOf } from "./measured-boots.ts"

describe("a path glob", () => {
  const cases: [string, string, boolean][] = [
    ["/bin/a", "/bin/a", true],
    ["/bin/a", "/bin/ab", false],
    ["/bin/a", "/bin", false],
    ["/bin/*", "/bin/ls", true],
    ["/bin/*", "/bin/", true],
    ["/bin/*", "/bin/a/b", false],
    ["/bin/**", "/bin/a/b", true],
    ["/bin/**/x", "/bin/a/b/x", true],
    ["/bin/**/x", "/bin/x", false],
    ["**", "", true],
    ["**.so", "/lib/a/b.so", true],
    ["*.so", "/lib/a.so", false],
    ["/a?c", "/abc", true],
    ["/a?c", "/a/c", false],
    ["/a?c", "/ac", false],
    ["/*/*/c", "/a/b/c", true],
    ["/[a]", "/a", false],
    ["/[a]", "/[a]", true],
    ["/*\\xff", "/a\\xff", true],
  ]
  test.each(cases)("%s on %s: %p", (glob, path, expected) => {
    expect(compileGlob(glob)(path)).toBe(expected)
  })

  test("takes no time out of proportion on a path made to cost", () => {
    const match = compileGlob("/**a**a**a**a**a**a**a**a**a**b")
    expect(match(`/${"a".repeat(4000)}`)).toBe(false)
  })

  test("matches when any of several does, and never when there is none", () => {
    expect(compileGlobs(["/a", "/b/*"])("/b/c")).toBe(true)
    expect(compileGlobs([])("/a")).toBe(false)
  })

  test("that is empty or too long is refused", () => {
    expect(codeOf(() => compileGlob(""))).toBe("config")
    expect(codeOf(() => compileGlob("a".repeat(513)))).toBe("config")
  })
})
