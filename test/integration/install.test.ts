/**
 * @module test/integration/install
 *
 * `mvm install` and `mvm guest install` into the tree of another system, read by systemd's own programs.
 */

import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const BUILT = join(import.meta.dir, "../../dist/mvm")
/** Units are not complete without what they come after. */
const TARGETS = ["sysinit", "basic", "shutdown", "multi-user", "network", "graphical", "rescue", "local-fs"]

let root: string
beforeAll(() => {
  if (!existsSync(BUILT)) throw new Error("dist/mvm is missing: run scripts/build")
})
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "mvm-install-"))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const at = (path: string) => join(root, path)

function run(program: string, ...words: string[]): { status: number; output: string; errors: string } {
  const child = Bun.spawnSync([program, ...words], {
    env: { ...process.env, SYSTEMD_LOG_LEVEL: "info" },
  })
  return { status: child.exitCode, output: child.stdout.toString(), errors: child.stderr.toString() }
}

const mvm = (...words: string[]) => run(BUILT, ...words, "--root", root)

interface Said {
  steps: { action: string; subject: string; reason?: string }[]
  advice: string[]
}

function json(...words: string[]): Said {
  const { status, output, errors } = mvm(...words, "--json")
  if (status !== 0) throw new Error(errors)
  return JSON.parse(output) as Said
}

function paths(): string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((path) => !lstatSync(at(path)).isDirectory())
    .toSorted()
}

/** What systemd finds wrong with units, in a tree with the programs and targets they need. */
function verify(...units: string[]): string {
  mkdirSync(at("/usr/bin"), { recursive: true })
  mkdirSync(at("/bin"), { recursive: true })
  for (const program of ["/usr/bin/mvm", "/bin/sh"]) copyFileSync("/bin/true", at(program))
  const folder = at("/usr/lib/systemd/system")
  mkdirSync(folder, { recursive: true })
  for (const target of TARGETS) {
    copyFileSync(`/usr/lib/systemd/system/${target}.target`, `${folder}/${target}.target`)
  }
  for (const slice of ["system.slice", "-.slice", "umount.target"]) {
    if (existsSync(`/usr/lib/systemd/system/${slice}`)) {
      copyFileSync(`/usr/lib/systemd/system/${slice}`, `${folder}/${slice}`)
    }
  }
  const { errors } = run("systemd-analyze", "verify", "--man=no", `--root=${root}`, ...units)
  return errors
}

/** systemd's own score of what a unit may do: 0 is nothing, 10 everything. */
function exposure(unit: string): number {
  const { output } = run("systemd-analyze", "security", "--offline=true", `--root=${root}`, unit)
  return Number(/Overall exposure level for \S+: ([\d.]+)/.exec(output)?.[1] ?? NaN)
}

describe.each([
  ["install", ["install"], ["mvm.service", "mvm-vms.service"]],
  ["guest install", ["guest", "install"], ["mvm-agent.service", "mvm-service@x.service"]],
] as const)("mvm %s", (_title, words, units) => {
  test("writes units that systemd accepts", () => {
    json(...words)
    expect(verify(...units)).toBe("")
  })

  test("changes nothing the second time", () => {
    json(...words)
    const before = paths()
    expect(new Set(json(...words).steps.map(({ action }) => action))).toEqual(new Set(["unchanged"]))
    expect(paths()).toEqual(before)
  })

  test("is undone exactly: what was changed stays and is said, all else is as before", () => {
    mkdirSync(at("/etc/systemd/system"), { recursive: true })
    writeFileSync(at("/etc/systemd/system/other.service"), "[Unit]\n")
    const changed = json(...words).steps.find(({ subject }) => subject.startsWith("/etc/default/"))!.subject
    writeFileSync(at(changed), "mine\n")
    const { steps } = json(...words, "--uninstall")
    expect(steps).toContainEqual({ action: "kept", subject: changed, reason: "somebody changed it" })
    expect(paths()).toEqual([changed.slice(1), "etc/systemd/system/other.service"].toSorted())
    expect(readFileSync(at(changed), "utf8")).toBe("mine\n")
  })

  test("says what it would do without doing it", () => {
    const { status, output } = mvm(...words, "--dry-run")
    expect(status).toBe(0)
    expect(output).toContain("would be written")
    expect(paths()).toEqual([])
  })

  test("has nothing to take away where nothing was installed", () => {
    const { status, output, errors } = mvm(...words, "--uninstall")
    expect([status, output, errors]).toEqual([0, "", "mvm: nothing was installed\n"])
  })

  test("for a package writes below /usr/lib, enables nothing and keeps no record", () => {
    json(...words, "--vendor")
    expect(paths().filter((path) => path.includes(".wants/") || path.startsWith("var/"))).toEqual([])
    expect(existsSync(at(`/usr/lib/systemd/system/${units[0]}`))).toBe(true)
    expect(verify(...units)).toBe("")
  })
})

test("the daemon's unit leaves little open", () => {
  json("install")
  expect(exposure("mvm.service")).toBeLessThan(2.5)
  expect(exposure("mvm-vms.service")).toBeLessThan(1.5)
})

test("the agent's unit leaves less open than a service of root's does", () => {
  json("guest", "install")
  expect(exposure("mvm-agent.service")).toBeLessThan(3.5)
})

test("the users, groups and folders are what systemd's programs can make", () => {
  mkdirSync(at("/etc"), { recursive: true })
  json("install")
  json("guest", "install")
  expect(run("systemd-sysusers", `--root=${root}`)).toMatchObject({ status: 0 })
  const user = readFileSync(at("/etc/passwd"), "utf8")
    .split("\n")
    .find((line) => line.startsWith("mvm:"))
  expect(user).toEndWith(":/var/lib/mvm:/usr/sbin/nologin")
  expect(readFileSync(at("/etc/group"), "utf8")).toMatch(/^kvm:.*:mvm$/m)
  expect(run("systemd-tmpfiles", "--create", `--root=${root}`)).toMatchObject({ status: 0, errors: "" })
  expect(lstatSync(at("/var/lib/mvm")).mode & 0o777).toBe(0o700)
  expect(lstatSync(at("/run/mvm")).mode & 0o777).toBe(0o755)
})

test("a tree that has users gets ours at once: its next boot may make none", () => {
  mkdirSync(at("/etc"), { recursive: true })
  writeFileSync(at("/etc/passwd"), "root:x:0:0::/root:/bin/sh\n")
  writeFileSync(at("/etc/group"), "root:x:0:\n")
  const { steps } = json("install")
  expect(steps.at(-1)).toEqual({ action: "ran", subject: `systemd-sysusers --root=${root}` })
  expect(readFileSync(at("/etc/passwd"), "utf8")).toMatch(/^mvm:/m)
})

test("the policy that is installed is good and allows nothing", () => {
  json("install")
  const { status, output } = run(BUILT, "policy", "check", at("/etc/mvm/policy.toml"), "--state", root)
  expect([status, output]).toEqual([0, `${at("/etc/mvm/policy.toml")}: 0 rules\n`])
})

test("the kernel's words are said", () => {
  expect(json("guest", "install").advice[0]).toContain("ima_policy=tcb ima_hash=sha256")
})

describe("mvm install refuses", () => {
  test("a program where a service could not find it", () => {
    const { status, errors } = mvm("install", "--executable", "/home/me/mvm")
    expect([status, errors]).toEqual([
      2,
      "mvm: /home/me/mvm: a service cannot rely on a program in this folder\n" +
        "mvm: hint: install -m 755 /home/me/mvm /usr/local/bin/mvm, and run that one\n",
    ])
    expect(paths()).toEqual([])
  })

  test("a root that is not there", () => {
    expect(run(BUILT, "install", "--root", at("/nothing")).status).toBe(2)
  })
})
