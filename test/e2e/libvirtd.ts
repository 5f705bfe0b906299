/**
 * @module test/e2e/libvirtd
 *
 * A real libvirt daemon of the test's own: in a mount namespace where its configuration, its domains and its logs are
 * the test's folders, and reached through a socket there. Whatever libvirt this machine runs is not touched.
 */

import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { kernelAppend } from "../../src/platform/qemu-args.ts"
import { Console } from "./console.ts"
import { until, type Ran } from "./managed.ts"

const dist = join(import.meta.dir, "../../dist")
const FOLDERS = ["etc", "lib", "run", "log", "cache"] as const
const PLACES: Record<(typeof FOLDERS)[number], string> = {
  etc: "/etc/libvirt",
  lib: "/var/lib/libvirt",
  run: "/run/libvirt",
  log: "/var/log/libvirt",
  cache: "/var/cache/libvirt",
}

export class Libvirtd {
  /** Everybody may pass: QEMU runs as a user of its own. */
  readonly folder = mkdtempSync(join(tmpdir(), "mvm-virt-"))
  readonly uri = `qemu+unix:///system?socket=${join(this.folder, "sockets/libvirt-sock")}`
  readonly #consoles = new Map<string, Console>()
  #run = ""
  #daemon: Bun.Subprocess | undefined

  static async start(): Promise<Libvirtd> {
    const made = new Libvirtd()
    try {
      await made.#start()
      return made
    } catch (error) {
      await made.stop()
      throw error
    }
  }

  async #start(): Promise<void> {
    chmodSync(this.folder, 0o755)
    for (const name of [...FOLDERS, "sockets", "consoles"])
      mkdirSync(join(this.folder, name), { mode: 0o755 })
    chmodSync(join(this.folder, "consoles"), 0o777)
    for (const file of ["vmlinuz", "initramfs.cpio"]) {
      copyFileSync(join(dist, "guest", file), join(this.folder, file))
    }
    const qemuConf = [
      'security_driver = "none"',
      "cgroup_controllers = []",
      'stdio_handler = "file"',
      "namespaces = []",
    ]
    writeFileSync(join(this.folder, "etc/qemu.conf"), `${qemuConf.join("\n")}\n`)
    const conf = [
      `unix_sock_dir = "${join(this.folder, "sockets")}"`,
      'auth_unix_rw = "none"',
      'auth_unix_ro = "none"',
      `log_outputs = "2:file:${join(this.folder, "libvirtd.log")}"`,
    ]
    writeFileSync(join(this.folder, "etc/libvirtd.conf"), `${conf.join("\n")}\n`)
    const binds = FOLDERS.map((name) => {
      return `mkdir -p ${PLACES[name]} && mount --bind ${join(this.folder, name)} ${PLACES[name]}`
    })
    this.#run = `${binds.join(" && ")} && exec libvirtd -f /etc/libvirt/libvirtd.conf -p ${join(this.folder, "pid")}`
    await this.startDaemon()
  }

  async startDaemon(): Promise<void> {
    this.#daemon = Bun.spawn(["unshare", "--mount", "--propagation", "private", "sh", "-c", this.#run], {
      stdio: ["ignore", "ignore", Bun.file(join(this.folder, "stderr"))],
    })
    await until("libvirtd", async () => (await this.virsh("list")).status === 0, 30_000)
  }

  /** Its domains run on. */
  async killDaemon(): Promise<void> {
    this.#daemon?.kill("SIGKILL")
    await this.#daemon?.exited
  }

  async virsh(...args: string[]): Promise<Ran> {
    const command = Bun.spawn(["virsh", "-q", "-c", this.uri, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LC_ALL: "C" },
    })
    const [output, errors] = await Promise.all([
      new Response(command.stdout).text(),
      new Response(command.stderr).text(),
    ])
    return { status: await command.exited, output, errors }
  }

  async must(...args: string[]): Promise<string> {
    const { status, output, errors } = await this.virsh(...args)
    if (status === 0) return output
    throw new Error(`virsh ${args.join(" ")}: status ${status}: ${errors}`)
  }

  xml(domain: string): Promise<string> {
    return this.must("dumpxml", "--inactive", domain)
  }

  state(domain: string): Promise<string> {
    return this.must("domstate", domain).then((text) => text.trim())
  }

  /** A domain as an operator has it: nothing of the MVM's in it. @param devices more XML under its devices */
  async define(name: string, { devices = "", machine = "pc" } = {}): Promise<void> {
    const file = join(this.folder, `${name}.xml`)
    writeFileSync(
      file,
      `<domain type='qemu'>
  <name>${name}</name>
  <!-- kept by hand -->
  <memory unit='MiB'>768</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='${machine}'>hvm</type>
    <kernel>${join(this.folder, "vmlinuz")}</kernel>
    <initrd>${join(this.folder, "initramfs.cpio")}</initrd>
    <cmdline>${kernelAppend("pc")}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='unix'><source mode='bind' path='${join(this.folder, "consoles", name)}'/></serial>
    ${devices}
  </devices>
</domain>`,
    )
    await this.must("define", file)
  }

  /** As an operator does it with `virsh edit`. */
  async redefine(xml: string): Promise<void> {
    const file = join(this.folder, "edited.xml")
    writeFileSync(file, xml)
    await this.must("define", file)
  }

  /** The console of this boot of a domain, with a shell that answers. */
  async console(domain: string): Promise<Console> {
    this.#consoles.get(domain)?.close()
    const path = join(this.folder, "consoles", domain)
    await until(`the console of ${domain}`, () => existsSync(path))
    const opened = await Console.connect(path)
    this.#consoles.set(domain, opened)
    await opened.ready()
    return opened
  }

  async stop(): Promise<void> {
    for (const opened of this.#consoles.values()) opened.close()
    const names = (await this.virsh("list", "--all", "--name")).output
      .split("\n")
      .filter((name) => name !== "")
    for (const name of names) {
      await this.virsh("destroy", name)
      await this.virsh("undefine", name)
    }
    this.#daemon?.kill("SIGTERM")
    await this.#daemon?.exited
    rmSync(this.folder, { recursive: true, force: true })
  }
}
