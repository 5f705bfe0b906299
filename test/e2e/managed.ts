/**
 * @module test/e2e/managed
 *
 * A real MVM with real VMs and local endpoints, driven through the commands an operator has and the consoles of the
 * VMs. Ending it ends every process and removes every file it made.
 */

import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { Console } from "./console.ts"

const dist = join(import.meta.dir, "../../dist")
const POLL_MS = 100

export interface Ran {
  status: number
  output: string
  errors: string
}

export interface VmOptions {
  /** Which image under dist starts it. */
  image?: "guest" | "guest-attacker" | "guest-bench" | "guest-services"
  memory?: string
  /** More options of `vm create`. */
  more?: readonly string[]
}

export interface VmState {
  name: string
  state: "running" | "stopped"
  link: "up" | "down"
  mapping: string
  verdict: string
  bootId: string | null
  startedAt: string | null
  reason: string | null
  /** Why the QEMU that others started is not taken for a boot of it. */
  refused: string | null
  qemuPid: number | null
  vtpmPid: number | null
  uuid: string
  keys: { attestation: string }
}

export class Managed {
  readonly state = mkdtempSync(join(tmpdir(), "mvm-e2e-"))
  readonly #serveOptions: readonly string[]
  readonly #mvm: string
  readonly #consoles = new Map<string, Console>()
  readonly #running: Bun.Subprocess[] = []
  #serve: Bun.Subprocess | undefined
  #arena: string | undefined

  private constructor(serveOptions: readonly string[]) {
    this.#serveOptions = serveOptions
    this.#mvm = this.#keep(join(dist, "mvm"))
  }

  /** Starts `mvm serve` on a state directory of its own. */
  static async start(serveOptions: readonly string[] = []): Promise<Managed> {
    const managed = new Managed(["--arena", "64M", ...serveOptions])
    try {
      await managed.startServe()
      return managed
    } catch (error) {
      await managed.stop()
      throw error
    }
  }

  async startServe(): Promise<void> {
    const log = Bun.file(join(this.state, `serve-${Date.now()}.log`))
    const options = [...this.#serveOptions, "--log-format", "json"]
    const serve = Bun.spawn([this.#mvm, "serve", "--state", this.state, ...options], {
      stdio: ["ignore", "ignore", log],
      // The runtime would pass on the environment it started with, not what was changed since.
      env: { ...process.env },
    })
    this.#serve = serve
    await until("mvm serve", async () => {
      if (serve.exitCode !== null) throw new Error(`mvm serve ended: ${this.serveLog()}`)
      return (await this.run("status")).status === 0
    })
    this.#arena = (await this.json<{ arena: { path: string } }>("status")).arena.path
  }

  /** Pid of the daemon that runs now. */
  get servePid(): number {
    if (!this.#serve) throw new Error("mvm serve does not run")
    return this.#serve.pid
  }

  /** The MVM dies without a word. */
  async killServe(): Promise<void> {
    this.#serve?.kill("SIGKILL")
    await this.#serve?.exited
  }

  /** What every `mvm serve` so far has logged. */
  serveLog(): string {
    const files = [...new Bun.Glob("serve-*.log").scanSync(this.state)].sort()
    return files.map((file) => readFileSync(join(this.state, file), "utf8")).join("")
  }

  /** An operator's command, to its end. */
  async run(...args: string[]): Promise<Ran> {
    const command = Bun.spawn([this.#mvm, ...args], {
      env: { ...process.env, MVM_STATE: this.state },
      stdio: ["ignore", "pipe", "pipe"],
    })
    const [output, errors] = await Promise.all([
      new Response(command.stdout).text(),
      new Response(command.stderr).text(),
    ])
    return { status: await command.exited, output, errors }
  }

  /** A status other than 0 is an error. */
  async must(...args: string[]): Promise<string> {
    const { status, output, errors } = await this.run(...args)
    if (status === 0) return output
    throw new Error(`mvm ${args.join(" ")}: status ${status}: ${output}${errors}`.trim())
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.must(...args, "--json")) as T
  }

  show(name: string): Promise<VmState> {
    return this.json<VmState>("vm", "show", name)
  }

  /** Makes a VM and starts it; {@link linked} waits for it. */
  async vm(name: string, { image = "guest", memory = "768M", more = [] }: VmOptions = {}): Promise<void> {
    const file = (which: string) => this.#keep(join(dist, image, which), `${image}-${which}`)
    const files = ["--kernel", file("vmlinuz"), "--initrd", file("initramfs.cpio")]
    await this.must("vm", "create", name, ...files, "--memory", memory, ...more)
    await this.must("vm", "start", name)
  }

  /** Waits until the agents of these VMs are linked. */
  async linked(...names: string[]): Promise<void> {
    await Promise.all(names.map((name) => this.must("vm", "wait", name, "--timeout", "180s")))
  }

  /** Makes a local endpoint and starts its agent. */
  async local(name: string): Promise<void> {
    await this.must("vm", "create", name, "--local")
    this.keepRunning(`agent-${name}`, "guest", "agent", "--local", name)
    await this.linked(name)
  }

  /** A command that runs until the end; returns the file that its output goes to. */
  keepRunning(name: string, ...args: string[]): string {
    const at = join(this.state, name)
    const command = Bun.spawn([this.#mvm, ...args], {
      env: { ...process.env, MVM_STATE: this.state },
      stdio: ["ignore", Bun.file(at), Bun.file(`${at}.log`)],
    })
    this.#running.push(command)
    return at
  }

  /** Waits for another boot of `name` than `before`, linked and judged. */
  async bootedAgain(name: string, before: VmState): Promise<VmState> {
    let now = before
    await until(`another boot of ${name}`, async () => {
      now = await this.show(name)
      return now.bootId !== null && now.bootId !== before.bootId
    })
    await this.judged(name)
    return this.show(name)
  }

  /** Waits until the MVM has measured `name`. */
  async judged(name: string): Promise<string> {
    let verdict = ""
    await until(`a verdict on ${name}`, async () => {
      verdict = (await this.show(name)).verdict
      return verdict !== "unknown"
    })
    return verdict
  }

  /** Takes what the VMs run as good. */
  async learn(...names: string[]): Promise<void> {
    for (const name of names) await this.must("measure", "learn", name, "--reason", "known-good boot")
  }

  /** Puts rules in force: `"from to"` each, `"from to isolation"`, or `"from to deposit"`. */
  async allow(...pairs: string[]): Promise<void> {
    const rules = pairs.map((pair) => {
      const [from, to, isolation] = pair.split(" ")
      const isDeposit = isolation === "deposit"
      const demand = isDeposit ? "deposit = true\n" : isolation ? `isolation = "${isolation}"\n` : ""
      return `[[rule]]\nservice = "*"\nfrom = "${from}"\nto = "${to}"\naction = "allow"\nmeasurement = ["kernel", "agent"]\n${demand}`
    })
    // Replaced at once: a half-written file would be a broken policy.
    const path = join(this.state, "policy.toml")
    writeFileSync(`${path}.new`, rules.join("\n"), { mode: 0o600 })
    renameSync(`${path}.new`, path)
    const [from = "", to = ""] = pairs[0]?.split(" ") ?? []
    await until(
      "the policy",
      async () => (await this.run("policy", "test", "default", from, to)).status === 0,
    )
  }

  /** The console of this boot of the VM, with a shell that answers. */
  async console(name: string): Promise<Console> {
    this.#consoles.get(name)?.close()
    const opened = await Console.connect(join(this.state, "run", name, "console.sock"))
    this.#consoles.set(name, opened)
    await opened.ready()
    return opened
  }

  /** Ends all of it. @param keep leave the state directory for a look */
  async stop({ keep = false } = {}): Promise<void> {
    try {
      for (const opened of this.#consoles.values()) opened.close()
      for (const command of this.#running) command.kill("SIGTERM")
      await Promise.all(this.#running.map((command) => command.exited))
      if (this.#serve?.exitCode !== null) await this.startServe()
      for (const { name } of await this.json<VmState[]>("vm", "list")) await this.#remove(name)
    } finally {
      this.#serve?.kill("SIGTERM")
      await this.#serve?.exited
      if (this.#arena) rmSync(this.#arena, { force: true })
      if (!keep) rmSync(this.state, { recursive: true, force: true })
    }
  }

  /** A VM that is just starting again is asked once more. */
  async #remove(name: string): Promise<void> {
    await until(`the end of ${name}`, async () => {
      await this.run("vm", "stop", name, "--force")
      return (await this.run("vm", "rm", name)).status === 0
    })
  }

  /** What is built anew while this runs does not change what it runs. */
  #keep(path: string, name = basename(path)): string {
    const kept = join(this.state, `kept-${name}`)
    if (existsSync(kept)) return kept
    try {
      linkSync(path, kept)
    } catch {
      copyFileSync(path, kept)
    }
    return kept
  }
}

/** Asks again and again. @throws Error after `timeoutMs`. */
export async function until(
  what: string,
  done: () => Promise<boolean> | boolean,
  timeoutMs = 120_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await done())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`)
    await Bun.sleep(POLL_MS)
  }
}

/** A command in a VM's background: its shell is free for others. */
export class Background {
  readonly #vm: Console
  readonly #at: string

  private constructor(vm: Console, at: string) {
    this.#vm = vm
    this.#at = at
  }

  /** @param name a word not used before in this boot */
  static async start(vm: Console, name: string, command: string): Promise<Background> {
    const at = `/tmp/background-${name}`
    // The shell forgets the status of a job that ended before anybody waited for it.
    await vm.must(`{ { ${command}\n} >${at}.out 2>&1; echo $? >${at}.status; } &`)
    return new Background(vm, at)
  }

  /** Its status, and what it said. */
  async end({ timeoutMs = 120_000 } = {}): Promise<{ status: number; output: string }> {
    const [at, vm] = [this.#at, this.#vm]
    const status = await vm.must(`until [ -s ${at}.status ]; do sleep 0.2; done; cat ${at}.status`, {
      timeoutMs,
    })
    return { status: Number(status), output: await vm.must(`cat ${at}.out`) }
  }
}
