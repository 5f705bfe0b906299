/**
 * @module test/e2e/debian
 *
 * Two VMs of plain Debian (debootstrap, its kernel, its initramfs, systemd) that have nothing of ours but the installed
 * packages. Both are started cold and nobody touches them: one calls a service of the other, which a file describes,
 * and sends back what it got. What they may run was taken from the image, not from a boot.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { sha256 } from "../../src/lib/crypto.ts"
import { Container, makePackages, mustRun } from "./container.ts"
import { Managed, until } from "./managed.ts"

/** What the reader serves, and the writer sends back to it: a program of some megabytes. */
const SENT = "/usr/bin/perl"
const RECEIVED = "/var/lib/received"
const DISK_MIB = 900
/** A boot takes 45 seconds of an emulated processor, and others may use the machine. */
const SLOW_MS = 900_000
/** A machine without a screen, somebody to log in, or a mirror to ask for news. */
const NOT_NEEDED = [
  ...[
    "getty@.service",
    "serial-getty@.service",
    "getty-static.service",
    "systemd-logind.service",
    "e2scrub_reap.service",
  ],
  ...[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
  ],
]

const READER = `[Unit]
Description=Takes what writer sends
Requires=mvm-agent.service
After=mvm-agent.service
ConditionKernelCommandLine=role=reader
SuccessAction=poweroff-force

[Service]
Type=oneshot
User=worker
SupplementaryGroups=mvm
ExecStart=/usr/bin/mvm guest recv writer
StandardOutput=file:${RECEIVED}
StandardError=journal
ExecStartPost=/usr/bin/sync
TimeoutStartSec=infinity

[Install]
WantedBy=mvm-agent.service
`

const WRITER = `[Unit]
Description=Sends to reader what a service there gave it
Requires=mvm-agent.service
After=mvm-agent.service
ConditionKernelCommandLine=role=writer

[Service]
Type=oneshot
User=worker
SupplementaryGroups=mvm
ExecStart=/bin/sh -c 'mvm guest exec reader program --wait 5m >/tmp/program'
ExecStart=/usr/bin/mvm guest send reader /tmp/program --wait 5m
Restart=on-failure
RestartSec=2
TimeoutStartSec=infinity

[Install]
WantedBy=mvm-agent.service
`

const SERVICE = `command = ["/usr/bin/cat", "${SENT}"]
user = "worker"
`

let folder: string
let container: Container
let mvm: Managed
const disk = (name: string) => join(folder, `${name}.img`)

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "mvm-debian-"))
  container = await Container.make()
  await makeImage()
  mvm = await Managed.start()
}, 400_000)
afterAll(async () => {
  await mvm?.stop()
  await container?.end()
  rmSync(folder, { recursive: true, force: true })
}, 60_000)

const inside = (path: string) => join(container.root, path)

/** A disk with the packages, a user and two units; and the kernel and initramfs beside it. */
async function makeImage(): Promise<void> {
  for (const file of await makePackages(folder, "0.1.0~test")) {
    copyFileSync(file, inside(`packages/${basename(file)}`))
  }
  await container.must("dpkg -i /packages/mvm_*.deb /packages/mvm-guest_*.deb && rm -r /packages")
  await container.must("useradd --system worker")
  for (const [name, unit] of [
    ["read.service", READER],
    ["write.service", WRITER],
  ] as const) {
    writeFileSync(inside(`etc/systemd/system/${name}`), unit)
  }
  writeFileSync(inside("etc/mvm/services.d/program.toml"), SERVICE)
  await container.must("systemctl enable read.service write.service mvm-service@program.service")
  for (const unit of NOT_NEEDED) symlinkSync("/dev/null", inside(`etc/systemd/system/${unit}`))
  mkdirSync(inside("packages"), { recursive: true })
  for (const kind of ["vmlinuz", "initrd.img"]) {
    const [found = ""] = [...new Bun.Glob(`${kind}-*`).scanSync(inside("boot"))]
    copyFileSync(inside(`boot/${found}`), join(folder, kind))
  }
  await mustRun(["truncate", "-s", `${DISK_MIB}M`, disk("reader")])
  await mustRun(["mke2fs", "-q", "-t", "ext4", "-d", container.root, disk("reader")])
  await mustRun(["cp", "--sparse=always", disk("reader"), disk("writer")])
}

/** What the image may run, from its files: the root's, the initramfs's, and one that lies in both at once. */
async function importReference(): Promise<void> {
  const reason = ["--reason", "files of the image"]
  await mvm.must("measure", "import", "group:debian", "--tree", container.root, "--all-files", ...reason)
  await mvm.must(
    "measure",
    "import",
    "group:debian",
    "--image",
    join(folder, "initrd.img"),
    "--all-files",
    ...reason,
  )
  // The initramfs reads the table of file systems where it has mounted the root.
  const sums = join(folder, "sums")
  writeFileSync(sums, `${sha256(readFileSync(inside("etc/fstab"))).toHex()}  /root/etc/fstab\n`)
  await mvm.must("measure", "import", "group:debian", sums, "--format", "sha256sum", ...reason)
}

interface Receipt {
  by: string
  peer: string
  service: string
  content: string
  lengthBytes: number
}

describe("two VMs of Debian with the package and its units", () => {
  test(
    "exchange data after a cold boot, and nobody lends a hand",
    async () => {
      for (const name of ["reader", "writer"]) {
        await mvm.must(
          ...["vm", "create", name, "--tag", "debian", "--memory", "768M", "--disk", disk(name)],
          ...["--kernel", join(folder, "vmlinuz"), "--initrd", join(folder, "initrd.img")],
          ...["--append", `root=/dev/vda rootfstype=ext4 rw role=${name}`],
        )
      }
      await importReference()
      writeFileSync(
        join(mvm.state, "policy.toml"),
        '[[rule]]\nservice = "*"\nfrom = "writer"\nto = "reader"\naction = "allow"\ndigest = "sha256"\n',
        { mode: 0o600 },
      )
      await mvm.must("vm", "start", "reader")
      await mvm.must("vm", "start", "writer")
      const started = performance.now()
      let receipts: Receipt[] = []
      await until(
        "the receipt",
        async () => {
          const all = await mvm.json<Receipt[]>("audit", "list", "--kind", "receipt")
          receipts = all.filter(({ service }) => service === "default")
          return receipts.length > 0
        },
        SLOW_MS,
      )
      console.log(`from cold to the receipt: ${((performance.now() - started) / 1000).toFixed(1)} s`)
      const sent = readFileSync(inside(SENT))
      expect(receipts).toEqual([
        expect.objectContaining({
          by: "reader",
          peer: "writer",
          content: sha256(sent).toHex(),
          lengthBytes: sent.length,
        }),
      ])
    },
    SLOW_MS + 60_000,
  )

  test("did so through shared memory, not by way of the MVM", async () => {
    const grants = await mvm.json<{ transport: string; answerer: string }[]>(
      "audit",
      "list",
      "--kind",
      "grant",
    )
    expect(grants.length).toBeGreaterThan(0)
    expect(new Set(grants.map(({ transport }) => transport))).toEqual(new Set(["memory"]))
  })

  test("are trusted by the files of their image alone", async () => {
    expect((await mvm.show("writer")).verdict).toBe("trusted")
  })

  test(
    "have on their disk what was sent",
    async () => {
      await until(
        "the reader to power itself off",
        async () => (await mvm.show("reader")).state === "stopped",
        SLOW_MS,
      )
      const got = join(folder, "got")
      await mustRun(["debugfs", "-R", `dump ${RECEIVED} ${got}`, disk("reader")])
      expect(readFileSync(got).equals(readFileSync(inside(SENT)))).toBe(true)
    },
    SLOW_MS + 60_000,
  )
})
