/** @module test/platform/installation */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  applyInstallation,
  removeInstallation,
  type Installation,
  type Step,
} from "../../src/platform/installation.ts"

const PLAN: Installation = {
  name: "test",
  folders: [{ path: "/etc/own", mode: 0o750 }],
  files: [
    { path: "/etc/deep/er/unit", mode: 0o644, content: "unit 1\n" },
    { path: "/etc/own/settings", mode: 0o600, content: "settings 1\n" },
  ],
  links: [{ path: "/etc/wants/unit", target: "/etc/deep/er/unit" }],
}
const SECOND = {
  ...PLAN,
  files: PLAN.files.map((file) => ({ ...file, content: file.content.replace("1", "2") })),
}

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "mvm-installation-"))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const at = (path: string) => join(root, path)
const read = (path: string) => readFileSync(at(path), "utf8")
const install = (plan = PLAN, more = {}) => applyInstallation(plan, { root, ...more })
const uninstall = (more = {}) => removeInstallation("test", { root, ...more })
const actions = (steps: readonly Step[]) =>
  Object.fromEntries(steps.map((step) => [step.subject, step.action]))

/** Everything under the root, with its content. */
function tree(): Record<string, string> {
  const entries = readdirSync(root, { recursive: true, encoding: "utf8" }).toSorted()
  return Object.fromEntries(
    entries.map((path) => {
      const stat = lstatSync(at(path))
      const what = stat.isSymbolicLink() ? readlinkSync(at(path)) : stat.isFile() ? read(path) : "folder"
      return [path, what]
    }),
  )
}

describe("an installation", () => {
  test("writes files, folders and links with their modes", () => {
    expect(Object.values(actions(install()))).toEqual(["written", "written", "written", "written"])
    expect(read("/etc/deep/er/unit")).toBe("unit 1\n")
    expect(statSync(at("/etc/own/settings")).mode & 0o777).toBe(0o600)
    expect(statSync(at("/etc/own")).mode & 0o777).toBe(0o750)
    expect(readlinkSync(at("/etc/wants/unit"))).toBe("/etc/deep/er/unit")
  })

  test("changes nothing the second time", () => {
    install()
    const before = tree()
    expect([...new Set(install().map(({ action }) => action))]).toEqual(["unchanged"])
    expect(tree()).toEqual(before)
  })

  test("is taken away without a trace", () => {
    mkdirSync(at("/etc"))
    writeFileSync(at("/etc/hosts"), "hosts\n")
    const before = tree()
    install()
    install(SECOND)
    uninstall()
    rmSync(at("/var"), { recursive: true })
    expect(tree()).toEqual(before)
  })

  test("replaces its own files when they are of another version", () => {
    install()
    expect(actions(install(SECOND))["/etc/deep/er/unit"]).toBe("updated")
    expect(read("/etc/own/settings")).toBe("settings 2\n")
  })

  test("keeps what somebody changed, says so, and leaves it there at the end", () => {
    install()
    writeFileSync(at("/etc/own/settings"), "mine\n")
    expect(install(SECOND)).toContainEqual({
      action: "kept",
      subject: "/etc/own/settings",
      reason: "somebody changed it",
    })
    const steps = actions(uninstall())
    expect(steps["/etc/own/settings"]).toBe("kept")
    expect(steps["/etc/own"]).toBe("kept")
    expect(steps["/etc/deep/er/unit"]).toBe("removed")
    expect(read("/etc/own/settings")).toBe("mine\n")
  })

  test("does not take over, nor remove, what was there before it", () => {
    mkdirSync(at("/etc/own"), { recursive: true })
    writeFileSync(at("/etc/own/settings"), "mine\n")
    expect(actions(install())["/etc/own/settings"]).toBe("kept")
    uninstall()
    expect(read("/etc/own/settings")).toBe("mine\n")
  })

  test("replaces all of that where it is forced to", () => {
    install()
    writeFileSync(at("/etc/own/settings"), "mine\n")
    expect(actions(install(PLAN, { force: true }))["/etc/own/settings"]).toBe("updated")
    expect(read("/etc/own/settings")).toBe("settings 1\n")
  })

  test("removes what an earlier version needed and this one does not", () => {
    install()
    const fewer = { ...PLAN, links: [], files: PLAN.files.slice(0, 1) }
    const steps = actions(install(fewer))
    expect(steps["/etc/own/settings"]).toBe("removed")
    expect(steps["/etc/wants/unit"]).toBe("removed")
    expect(existsSync(at("/etc/own/settings"))).toBe(false)
    uninstall()
    expect(existsSync(at("/etc"))).toBe(false)
  })

  test("is taken away whole, also when it failed before its end and was finished later", () => {
    // A file where the second one needs a folder.
    mkdirSync(at("/etc"), { recursive: true })
    writeFileSync(at("/etc/own"), "")
    expect(() => install({ ...PLAN, folders: [], links: [] })).toThrow("ENOTDIR")
    rmSync(at("/etc/own"))
    install()
    removeInstallation("test", { root })
    expect(readdirSync(at("/etc"))).toEqual([])
    expect(readdirSync(at("/var/lib"))).toEqual([])
  })

  test("says what it would do, and does not", () => {
    expect(actions(install(PLAN, { dryRun: true }))["/etc/deep/er/unit"]).toBe("written")
    expect(tree()).toEqual({})
    install()
    const before = tree()
    expect(actions(uninstall({ dryRun: true }))["/etc/deep/er/unit"]).toBe("removed")
    expect(tree()).toEqual(before)
  })

  test("is not recorded where a package manager owns the files", () => {
    install(PLAN, { unrecorded: true })
    expect(existsSync(at("/var"))).toBe(false)
  })
})

describe("links in the tree of another system", () => {
  test("are followed as that system would, and never out of it", () => {
    const outside = mkdtempSync(join(tmpdir(), "mvm-outside-"))
    try {
      mkdirSync(at("/usr/etc"), { recursive: true })
      symlinkSync("/usr/etc", at("/etc"))
      mkdirSync(at("/usr/etc/deep"))
      mkdirSync(at(outside), { recursive: true })
      symlinkSync(`../../../../../../../..${outside}`, at("/usr/etc/deep/er"))
      install()
      expect(readdirSync(outside)).toEqual([])
      expect(read("/usr/etc/own/settings")).toBe("settings 1\n")
      expect(readFileSync(join(root, outside, "unit"), "utf8")).toBe("unit 1\n")
    } finally {
      rmSync(outside, { recursive: true })
    }
  })

  test("in a circle are an error", () => {
    symlinkSync("/etc", at("/etc"))
    expect(() => install()).toThrow("too many symbolic links")
  })
})

test("a root that is not there is an error of usage", () => {
  expect(() => applyInstallation(PLAN, { root: at("/nothing") })).toThrow("--root")
})
