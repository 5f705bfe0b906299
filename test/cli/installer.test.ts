import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { uninstall } from "../../src/cli/installer.ts"
import { applyInstallation, type Installation, type Step } from "../../src/platform/installation.ts"

const PLAN: Installation = {
  name: "host",
  files: [{ path: "/etc/systemd/system/mvm.service", mode: 0o644, content: "[Unit]\n" }],
  links: [],
  folders: [],
}
const STOPPED: Step = { action: "ran", subject: "systemctl disable --now mvm.service" }
const RELOADED: Step = { action: "ran", subject: "systemctl daemon-reload" }
const PROGRAMS = { before: () => [STOPPED], after: () => [RELOADED] }

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "mvm-installer-"))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

describe("uninstalling", () => {
  test("stops the service before its files go, and reloads after", () => {
    applyInstallation(PLAN, { root })
    const removed: Step = { action: "removed", subject: "/etc/systemd/system/mvm.service" }
    expect(uninstall("host", { root }, PROGRAMS)).toEqual([STOPPED, removed, RELOADED])
    expect(uninstall("host", { root }, PROGRAMS)).toEqual([])
  })

  test("runs nothing where nothing was recorded: the unit is a package's", () => {
    applyInstallation(PLAN, { root, unrecorded: true })
    expect(uninstall("host", { root }, PROGRAMS)).toEqual([])
  })
})
