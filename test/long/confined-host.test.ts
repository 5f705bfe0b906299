/**
 * @module test/long/confined-host
 *
 * A whole Debian host as an operator has it, in a VM: its systemd, its AppArmor in force, its libvirt as packaged, our
 * packages, and KVM by the nested virtualisation that the emulated processor offers. The host's root is made once, in two
 * minutes, and the rest takes five.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { kernelAppend } from "../../src/platform/qemu-args.ts"
import { Console } from "../e2e/console.ts"
import { Container, makePackages, mustRun } from "../e2e/container.ts"

const GUEST = join(import.meta.dir, "../../dist/guest")
const SLOW_MS = 300_000
const APPARMOR = "/etc/apparmor.d/local/abstractions/libvirt-qemu"

const SHELL = `[Unit]
Description=root shell for the test
[Service]
ExecStart=/bin/bash --norc
StandardInput=tty-force
StandardOutput=inherit
StandardError=inherit
TTYPath=/dev/ttyS1
Environment=HOME=/root TERM=dumb LC_ALL=C
KillSignal=SIGHUP
[Install]
WantedBy=multi-user.target
`

const DOMAIN = `<domain type='kvm'>
  <name>web</name>
  <memory unit='MiB'>640</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/srv/guest/vmlinuz</kernel><initrd>/srv/guest/initramfs.cpio</initrd>
    <cmdline>${kernelAppend("q35")}</cmdline></os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'/>
  <devices><controller type='usb' model='none'/><memballoon model='none'/></devices>
</domain>
`

const POLICY = `[[rule]]
service = "*"
from = "host"
to = "*"
action = "allow"
measurement = ["kernel", "agent"]
`

let folder: string
let container: Container | undefined
let qemu: Bun.Subprocess | undefined
let host: Console

/** As root of the host. */
const must = (command: string): Promise<string> => host.must(command, { timeoutMs: SLOW_MS })

async function makeImage(): Promise<void> {
  container = await Container.make("--host")
  const inside = (path: string): string => join(container!.root, path)
  for (const file of await makePackages(folder, "0.1.0~test")) {
    copyFileSync(file, inside(`packages/${basename(file)}`))
  }
  await container.must("dpkg -i /packages/mvm_*.deb /packages/mvm-host_*.deb && rm -r /packages")
  mkdirSync(inside("srv/guest"), { recursive: true })
  for (const file of ["vmlinuz", "initramfs.cpio"])
    copyFileSync(join(GUEST, file), inside(`srv/guest/${file}`))
  writeFileSync(inside("srv/web.xml"), DOMAIN)
  writeFileSync(inside("etc/mvm/policy.toml"), POLICY)
  writeFileSync(inside("etc/systemd/system/test-shell.service"), SHELL)
  await container.must("systemctl enable test-shell.service")
  symlinkSync("/dev/null", inside("etc/systemd/system/serial-getty@.service"))
  for (const kind of ["vmlinuz", "initrd.img"]) {
    const [found = ""] = [...new Bun.Glob(`${kind}-*`).scanSync(inside("boot"))]
    copyFileSync(inside(`boot/${found}`), join(folder, kind))
  }
  await mustRun(["truncate", "-s", "3G", join(folder, "disk")])
  await mustRun(["mke2fs", "-q", "-t", "ext4", "-d", container.root, join(folder, "disk")])
}

/** One processor: of two emulated ones that run KVM, one may wait for ever for the other's answer to an interrupt. */
async function boot(): Promise<void> {
  const at = (name: string): string => join(folder, name)
  const argv = [
    ...["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-cpu", "max"],
    ...["-accel", "tcg,thread=multi", "-m", "3G", "-kernel", at("vmlinuz"), "-initrd", at("initrd.img")],
    ...["-append", "root=/dev/vda rw console=ttyS0"],
    ...[
      "-drive",
      `file=${at("disk")},if=virtio,format=raw,cache=unsafe`,
      "-serial",
      `file:${at("console.log")}`,
    ],
    ...["-chardev", `socket,id=shell,path=${at("shell")},server=on,wait=off`, "-serial", "chardev:shell"],
  ]
  qemu = Bun.spawn(argv, { stdio: ["ignore", "ignore", "inherit"] })
  while (!(await Bun.file(at("console.log")).exists())) await Bun.sleep(100)
  await shell()
}

/** The shell of this boot, once all that starts with the host has started. */
async function shell(): Promise<void> {
  host = await Console.connect(join(folder, "shell"))
  await host.ready({ timeoutMs: SLOW_MS })
  await must("systemctl is-system-running --wait")
}

describe("on a Debian host with AppArmor in force", () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "mvm-host-"))
    await makeImage()
    await boot()
  }, 2 * SLOW_MS)
  afterAll(async () => {
    host?.close()
    qemu?.kill("SIGKILL")
    await qemu?.exited
    await container?.end()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  /** In what memory the agent of the domain answers the host. Its processor is translated twice over. */
  const isolation = async (): Promise<unknown> => {
    for (;;) {
      const said = await must("cd /tmp; runuser -u mvm -- mvm ping web --json || :")
      const found = /^\{.*\}$/m.exec(said)?.[0]
      if (found?.includes('"isolation"')) return (JSON.parse(found) as { isolation: unknown }).isolation
    }
  }

  test(
    "the doctor finds KVM, and names the lines that AppArmor's file lacks",
    async () => {
      // libvirt's daemon starts when it is first asked, which may take this processor longer than the doctor waits.
      await must("virsh -q list")
      const said = await must("mvm doctor | grep -A1 -E ' (kvm|apparmor|libvirt) '")
      expect(said).toMatch(/^ok +kvm +used$/m)
      expect(said).toMatch(/^ok +libvirt /m)
      expect(said).toMatch(/^warn +apparmor .*\n +remedy: .*"\/dev\/shm\/mvm-[0-9a-f]+-\*" rw,/m)
    },
    SLOW_MS,
  )

  test(
    "a domain is adopted and linked without them, and has the arena alone",
    async () => {
      await must("virsh -q define /srv/web.xml")
      expect(await must("mvm vm create web --libvirt web --apply 2>&1")).toContain(`${APPARMOR} must have`)
      await must("mvm vm start web --wait 3m")
      await must("mvm measure learn web && mvm measure learn host")
      expect(await must("cat /proc/$(cat /run/libvirt/qemu/web.pid)/attr/current")).toMatch(
        /^libvirt-.* \(enforce\)$/,
      )
      await must("until dmesg | grep -q 'DENIED.*/dev/shm/mvm-'; do sleep 1; done")
      expect(await isolation()).toBe("arena")
    },
    SLOW_MS,
  )

  test(
    "with the printed lines it has memory of a channel's own",
    async () => {
      await must("virsh -q destroy web; sleep 1")
      await must(`mvm vm create web --libvirt web 2>&1 | sed -n 's/^mvm: *\\(".*rw,\\)$/\\1/p' >>${APPARMOR}`)
      expect(await must("mvm vm create web --libvirt web 2>&1")).not.toContain("AppArmor")
      expect(await must("mvm doctor")).toMatch(/^ok +apparmor /m)
      await must("mvm vm start web --wait 3m")
      expect(await isolation()).toBe("dedicated")
    },
    SLOW_MS,
  )

  test(
    "a VM of its own runs by KVM inside the unit's limits, ends in order with the host, and starts with it",
    async () => {
      await must("truncate -s 16M /srv/disk && chown mvm: /srv/disk")
      const files = "--kernel /srv/guest/vmlinuz --initrd /srv/guest/initramfs.cpio --memory 640M"
      await must(`mvm vm create own ${files} --autostart`)
      const refused = await host.run("mvm vm set own --disk /srv/disk")
      expect([refused.status, refused.output]).toEqual([2, expect.stringContaining("ReadWritePaths=/srv")])
      await must("mkdir -p /etc/systemd/system/mvm.service.d")
      await must("printf '[Service]\\nReadWritePaths=/srv\\n' >/etc/systemd/system/mvm.service.d/disks.conf")
      await must("systemctl daemon-reload && systemctl restart mvm && mvm vm set own --disk /srv/disk")
      await must("mvm vm start own --wait 3m")
      const { qemuPid } = JSON.parse(await must("mvm vm show own --json")) as { qemuPid: number }
      expect(await must(`stat -c %U /proc/${qemuPid}`)).toBe("mvm")
      expect(await must(`tr '\\0' ' ' </proc/${qemuPid}/cmdline`)).toContain(" -accel kvm ")
      await must("virsh -q destroy web; sync")
      host.run("systemctl reboot").catch(() => undefined)
      await Bun.sleep(10_000)
      host.close()
      await shell()
      expect(await must("journalctl -b -1 -u mvm-vms -o cat")).toContain("own: stopped")
      expect(await must("grep -ac 'reboot: Power down' /var/lib/mvm/logs/own-console.log")).toBe("1")
      await must("mvm vm wait own --timeout 3m")
    },
    2 * SLOW_MS,
  )
})
