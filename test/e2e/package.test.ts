/**
 * @module test/e2e/package
 *
 * The Debian packages, installed, upgraded, removed and purged in a real Debian system: first in its root alone, then
 * with its systemd running, where the daemon does its work inside the limits of its unit.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { copyFileSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { hashFile } from "../../src/platform/launch-digest.ts"
import { Container, makePackages } from "./container.ts"
import { until } from "./managed.ts"

const OLD = "0.1.0~test1"
const NEW = "0.1.0~test2"
const LINKS = "/etc/systemd/system"
const AGENT_LINK = `${LINKS}/dev-virtio\\x2dports-org.mvm.0.device.wants/mvm-agent.service`

let container: Container
let folder: string
const packages = new Map<string, string[]>()

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "mvm-packages-"))
  container = await Container.make()
  for (const version of [OLD, NEW]) {
    const made = await makePackages(folder, version)
    for (const file of made) copyFileSync(file, join(container.root, "packages", basename(file)))
    packages.set(
      version,
      made.map((file) => basename(file)),
    )
  }
}, 600_000)
afterAll(async () => {
  await container?.end()
  rmSync(folder, { recursive: true, force: true })
}, 60_000)

const at = (path: string) => join(container.root, path)

/** Installs or upgrades packages whose names start so. */
function dpkg(version: string, ...names: string[]): Promise<string> {
  const files = names.map((name) => packages.get(version)!.find((file) => file.startsWith(`${name}_`)))
  return container.must(`dpkg --force-confold -i ${files.map((file) => `/packages/${file}`).join(" ")}`)
}

describe("in a system that does not run, the packages", () => {
  let before: string[]

  test("are installed, with users, groups and services enabled", async () => {
    before = container.files()
    await dpkg(OLD, "mvm", "mvm-host", "mvm-guest")
    expect(await container.must("mvm --version")).toMatch(/^mvm \d/)
    expect(await container.must("id -nG mvm")).toBe("mvm kvm")
    for (const unit of ["mvm.service", "mvm-vms.service"]) {
      expect(readlinkSync(at(`${LINKS}/multi-user.target.wants/${unit}`))).toEndWith(`/${unit}`)
    }
    expect(readlinkSync(at(AGENT_LINK))).toContain("/mvm-agent.service")
    expect(await container.must("stat -c '%a %U' /var/lib/mvm")).toBe("700 mvm")
  })

  test("have their files as dpkg knows them, with pages and completions", async () => {
    expect(await container.must("dpkg --verify mvm mvm-host mvm-guest")).toBe("")
    const list = await container.must("dpkg -L mvm mvm-host mvm-guest")
    for (const path of [
      "/usr/bin/mvm",
      "/usr/share/man/man1/mvm.1.gz",
      "/usr/share/bash-completion/completions/mvm",
      "/usr/share/doc/mvm/copyright",
      "/etc/ima/ima-policy",
      "/etc/mvm/policy.toml",
    ]) {
      expect(list.split("\n")).toContain(path)
    }
  })

  test("refuse the installer's own files beside them", async () => {
    for (const words of ["install", "guest install"]) {
      const { status, errors } = await container.run(`mvm ${words}`)
      expect([status, errors]).toEqual([1, expect.stringContaining("apt-get remove mvm-")])
    }
  })

  test("do not let half of them be removed or upgraded alone", async () => {
    const { status } = await container.run("dpkg -r mvm")
    expect(status).not.toBe(0)
    const { errors } = await container.run(`dpkg -i /packages/mvm-host_${NEW}_*.deb`)
    expect(errors).toContain(`mvm-host depends on mvm (= ${NEW})`)
    await dpkg(OLD, "mvm-host")
  })

  test("are upgraded, and what was changed in /etc stays", async () => {
    const policy = "# mine\n"
    writeFileSync(at("/etc/mvm/policy.toml"), policy)
    await dpkg(NEW, "mvm", "mvm-host", "mvm-guest")
    expect(await container.must("dpkg-query -W -f '${Version}\\n' mvm mvm-host mvm-guest")).toBe(
      [NEW, NEW, NEW].join("\n"),
    )
    expect(readFileSync(at("/etc/mvm/policy.toml"), "utf8")).toBe(policy)
  })

  test("leave the settings when they are removed, and nothing when they are purged", async () => {
    await container.must("dpkg -r mvm-host mvm-guest mvm")
    expect(readFileSync(at("/etc/mvm/policy.toml"), "utf8")).toBe("# mine\n")
    expect(container.files()).not.toContain("usr/bin/mvm")
    await container.must("dpkg -P mvm-host mvm-guest mvm")
    // The users' database has the user and the groups: files of theirs may lie anywhere.
    const after = container.files().filter((path) => !/^etc\/(passwd|group|shadow|gshadow)-$/.test(path))
    expect(after.filter((path) => !before.includes(path))).toEqual([])
    expect(before.filter((path) => !after.includes(path) && !path.endsWith("-"))).toEqual([])
  })

  test("take over from the installer, whose files would hide theirs", async () => {
    await dpkg(OLD, "mvm")
    await container.must("mvm install && mvm guest install && systemctl enable mvm-service@x.service")
    await dpkg(OLD, "mvm-host", "mvm-guest")
    // What was enabled still is, by the package's unit.
    const link = "etc/systemd/system/mvm-agent.service.wants/mvm-service@x.service"
    expect(readlinkSync(at(`/${link}`))).toMatch(/^(\/usr)?\/lib\/systemd\/system\/mvm-service@\.service$/)
    const ours = container.files().filter((path) => /^etc\/systemd\/system\/mvm/.test(path))
    expect(ours.filter((path) => path !== link && path !== dirname(link))).toEqual([])
    expect(container.files()).not.toContain("var/lib/mvm-guest-services")
    expect(await container.must("dpkg --verify mvm-host mvm-guest")).toBe("")
    await container.must("dpkg -P mvm-host mvm-guest mvm")
  })
})

test("the same inputs give the same packages", async () => {
  const again = mkdtempSync(join(tmpdir(), "mvm-packages-"))
  try {
    for (const file of await makePackages(again, OLD)) {
      expect(await hashFile(file)).toBe(await hashFile(join(folder, basename(file))))
    }
  } finally {
    rmSync(again, { recursive: true })
  }
})

describe("in a system that runs", () => {
  beforeAll(async () => {
    await container.boot()
    await dpkg(OLD, "mvm", "mvm-host", "mvm-guest")
  }, 120_000)

  const show = async (unit: string, field: string): Promise<string> => {
    return container.must(`systemctl show --value -p ${field} ${unit}`)
  }
  const linked = (...names: string[]): Promise<void> =>
    until(`${names} to be linked`, async () => {
      const { vms } = JSON.parse(await container.must("mvm status --json")) as {
        vms: { name: string; link: string }[]
      }
      return names.every((name) => vms.some((vm) => vm.name === name && vm.link === "up"))
    })

  test("the daemon is ready as its own user, and the agent waits for a port", async () => {
    expect(await show("mvm.service", "ActiveState")).toBe("active")
    const pid = await show("mvm.service", "MainPID")
    expect(await container.must(`stat -c %U /proc/${pid}`)).toBe("mvm")
    expect(await container.must(`grep -E 'NoNewPrivs|CapEff|Seccomp:' /proc/${pid}/status`)).toMatch(
      /CapEff:\s0+\nNoNewPrivs:\s1\nSeccomp:\s2$/,
    )
    expect(await show("mvm-agent.service", "ActiveState")).toBe("inactive")
    expect(await container.must("systemctl list-units --failed --no-legend 'mvm*'")).toBe("")
  })

  test("the doctor finds the daemon, its user and its state in order", async () => {
    const { output } = await container.run("mvm doctor --json")
    const { findings } = JSON.parse(output) as { findings: { check: string; level: string }[] }
    const level = (check: string) => findings.find((finding) => finding.check === check)?.level
    for (const check of ["swtpm", "state", "state key", "daemon", "user", "limits", "arena"]) {
      expect(`${check}: ${level(check)}`).toBe(`${check}: ok`)
    }
    // Recommended, and not installed here.
    expect(level("qemu")).toBe("fail")
  })

  test("endpoints of its user exchange data inside the unit's limits", async () => {
    await container.must("mvm vm create a --local && mvm vm create b --local")
    for (const name of ["a", "b"]) {
      const agent = `/usr/bin/mvm guest agent --local ${name}`
      await container.must(`systemd-run --quiet --unit=agent-${name} --uid=mvm --gid=mvm ${agent}`)
    }
    await linked("a", "b")
    await container.must(
      "for vm in a b; do runuser -u mvm mvm guest status -- --local $vm || :; done >/dev/null",
    )
    const rule = ['service = "*"', 'from = "*"', 'to = "*"', 'action = "allow"', 'measurement = "agent"']
    writeFileSync(at("/etc/mvm/policy.toml"), `[[rule]]\n${rule.join("\n")}\n`)
    await until("the policy", async () => (await container.run("mvm policy test default a b")).status === 0)
    await transfer("first")
  })

  /** From a to b, and what came compared. */
  async function transfer(unit: string): Promise<void> {
    const receive = `/usr/bin/mvm guest recv a --local b`
    await container.must(
      `systemd-run --quiet --unit=${unit} --uid=mvm --gid=mvm -p StandardOutput=file:/tmp/${unit} -p StandardError=null ${receive}`,
    )
    await container.must("mvm measure learn a; mvm measure learn b")
    const send = "head -c 3000000 /usr/bin/mvm | runuser -u mvm -- mvm guest send b --local a --wait 30s"
    await container.must(
      `runuser -u mvm -- mvm guest status --local a >/dev/null; mvm measure learn a; ${send}`,
    )
    await container.must(`cmp -n 3000000 /tmp/${unit} /usr/bin/mvm`)
    expect(await container.must(`stat -c %s /tmp/${unit}`)).toBe("3000000")
  }

  test("a restart of the daemon ends neither vTPMs nor endpoints", async () => {
    const vtpms = await container.must("grep -lx swtpm /proc/[1-9]*/comm")
    expect(vtpms.split("\n").length).toBe(2)
    await container.must("systemctl restart mvm.service")
    await linked("a", "b")
    expect(await container.must("grep -lx swtpm /proc/[1-9]*/comm")).toBe(vtpms)
    await transfer("restarted")
  })

  test("an upgrade starts the new daemon, and endpoints go on", async () => {
    const before = await show("mvm.service", "MainPID")
    await dpkg(NEW, "mvm", "mvm-host", "mvm-guest")
    expect(await show("mvm.service", "ActiveState")).toBe("active")
    expect(await show("mvm.service", "MainPID")).not.toBe(before)
    expect(await show("mvm-vms.service", "ActiveState")).toBe("active")
    await linked("a", "b")
    await transfer("upgraded")
  })

  /** A service of the guest that needs no agent, started and enabled. @returns its process */
  async function serviceOfGuest(): Promise<string> {
    const unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=mvm-agent.service\n"
    writeFileSync(at(`${LINKS}/mvm-service@.service`), unit)
    await container.must("systemctl daemon-reload && systemctl enable --now mvm-service@x.service")
    return show("mvm-service@x.service", "MainPID")
  }

  test("a guest's services are started anew by an upgrade, stopped by removal, forgotten by purging", async () => {
    const before = await serviceOfGuest()
    await dpkg(NEW, "mvm-guest")
    expect(await show("mvm-service@x.service", "ActiveState")).toBe("active")
    expect(await show("mvm-service@x.service", "MainPID")).not.toBe(before)
    await container.must("dpkg -r mvm-guest")
    expect(await show("mvm-service@x.service", "ActiveState")).toBe("inactive")
    const links = `ls ${LINKS}/*.wants/mvm-service@*`
    expect((await container.run(links)).status).toBe(0)
    await container.must("dpkg -P mvm-guest")
    expect((await container.run(links)).status).not.toBe(0)
    rmSync(at(`${LINKS}/mvm-service@.service`))
    await dpkg(NEW, "mvm-guest")
  })

  test("removal stops the daemon and leaves what runs; purging keeps the state of what runs", async () => {
    await container.must("dpkg -r mvm-host")
    expect(await show("mvm.service", "ActiveState")).toBe("inactive")
    const { errors } = await container.run("dpkg -P mvm-host")
    expect(errors).toContain("processes of user mvm still run, so /var/lib/mvm is kept")
    await container.must("test -d /var/lib/mvm/vms")
  })

  test("purging takes the state when nothing runs", async () => {
    await dpkg(NEW, "mvm-host")
    await linked("a", "b")
    await container.must("for vm in a b; do mvm vm stop $vm --force; mvm vm rm $vm; done")
    await container.must("systemctl stop 'agent-*' 2>/dev/null || :")
    await container.must("dpkg -P mvm-host mvm-guest mvm")
    expect((await container.run("ls -d /var/lib/mvm /etc/mvm /dev/shm/mvm-*")).output).toBe("")
  })

  test("without packages the installer does the same by itself, and undoes it", async () => {
    copyFileSync(join(import.meta.dir, "../../dist/mvm"), at("/usr/local/bin/mvm"))
    const before = container.files()
    const said = await container.must("mvm install")
    expect(said).toContain("ran        systemctl restart mvm.service")
    expect(said).not.toContain("failed")
    expect(await show("mvm.service", "ActiveState")).toBe("active")
    expect(await container.must("systemctl is-enabled mvm.service mvm-vms.service")).toBe("enabled\nenabled")
    expect(await show("mvm-vms.service", "ActiveState")).toBe("active")
    expect(await container.must("mvm install")).not.toContain("written")
    await container.must("mvm install --uninstall")
    expect(await show("mvm.service", "ActiveState")).toBe("inactive")
    expect((await container.run("mvm install --uninstall")).errors).toBe("mvm: nothing was installed\n")
    const made = container.files().filter((path) => !before.includes(path))
    expect(made.filter((path) => !path.startsWith("var/lib/mvm/"))).toEqual([])
  })

  test("the guest's installer stops and disables the services that its units stand for", async () => {
    // No udev runs here, which is said, and the status with it.
    await container.run("mvm guest install")
    await serviceOfGuest()
    expect((await container.run("mvm guest install --uninstall")).output).toContain(
      "ran        systemctl disable mvm-service@.service",
    )
    expect(await show("mvm-service@x.service", "ActiveState")).toBe("inactive")
    expect((await container.run(`ls ${LINKS}/*.wants/mvm-service@*`)).status).not.toBe(0)
  })
})
