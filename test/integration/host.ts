/**
 * @module test/integration/host
 *
 * One MVM with local endpoints for one test file: the built program, real swtpm processes, a state directory and
 * an arena of its own. Stopping it ends everything it started, by pid, and fails when anything was left.
 */

import { afterAll, beforeAll } from "bun:test"
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import type { HostOptions, RunOptions, StatusView } from "./host-options.ts"
import { processesOf } from "./processes.ts"
import { RpcClient, type Params } from "../../src/platform/json-rpc.ts"

const BUILT = join(import.meta.dir, "../../dist/mvm")

/** What hangs this long is broken; nothing here needs a tenth of it. */
export const HANG_MS = 20_000
const POLL_MS = 10
const MIB = 2 ** 20

/** Lets every member send to every other one. */
export const ALLOW_ALL = rule('service = "*"', 'from = "*"', 'to = "*"')

/** One allowing rule that accepts a log made by an agent. */
export function rule(...lines: string[]): string {
  return ["[[rule]]", ...lines, 'action = "allow"', 'measurement = ["kernel", "agent"]', ""].join("\n")
}

export interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** A command that runs, its errors collected. */
export interface Running {
  readonly pid: number
  readonly process: Bun.Subprocess
  /** What it wrote to stderr so far. */
  stderr(): string
  /** Resolves when its stderr holds `text`. */
  says(text: string): Promise<void>
  /** The exit status, 128 + signal where one ended it. @throws after `limitMs`, {@link HANG_MS} where none is given. */
  over(limitMs?: number): Promise<number>
  kill(signal: NodeJS.Signals): void
}

export class TestHost {
  readonly folder = mkdtempSync(join(tmpdir(), "mvi-"))
  readonly state: string
  /** A copy of its own: the built file may be replaced while the tests run. */
  readonly mvm = join(this.folder, "mvm")
  readonly serveLog = join(this.folder, "serve.log")
  readonly guestState: string
  readonly #options: HostOptions
  readonly #started: Running[] = []
  readonly #agents = new Map<string, Running>()
  readonly #kept: Running[] = []
  #serve: Running | undefined
  #arena: string | undefined

  private constructor(options: HostOptions) {
    this.#options = options
    this.state = options.state ?? join(this.folder, "s")
    this.guestState = options.guestState ?? this.state
    if (!existsSync(BUILT)) throw new Error("dist/mvm is missing: run scripts/build")
    copyFileSync(BUILT, this.mvm)
    chmodSync(this.mvm, 0o755)
    if (options.state === undefined) mkdirSync(this.state, { mode: 0o700 })
  }

  /** Serve, members with agents, reference values learnt, everything allowed. */
  static async start(options: HostOptions = {}): Promise<TestHost> {
    const host = new TestHost(options)
    try {
      host.writePolicy(ALLOW_ALL)
      await host.serve()
      await Promise.all((options.members ?? []).map((name) => host.member(name)))
      return host
    } catch (error) {
      const log = host.log()
      await host.end()
      throw new Error(`${(error as Error).message}\n${log}`)
    }
  }

  /** `mvm serve`, until it answers. */
  async serve(): Promise<Running> {
    const running = this.spawn(
      ["serve", "--arena", "64M", "--log", "debug", ...(this.#options.serve ?? [])],
      { env: (await this.#options.environment?.(this.folder)) ?? {} },
      this.serveLog,
    )
    this.#serve = running
    await this.until("mvm serve", async () => {
      if (running.process.exitCode !== null) throw new Error(`serve ended: ${this.log()}`)
      return existsSync(join(this.state, "control.sock")) && (await this.ask("status").catch(() => undefined))
    })
    this.#arena ??= (await this.status()).arena.path
    return running
  }

  get serving(): Running {
    if (this.#serve) return this.#serve
    throw new Error("serve does not run")
  }

  async stopServe(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    const serve = this.serving
    this.#serve = undefined
    serve.kill(signal)
    return serve.over()
  }

  /** Creates a local endpoint, starts its agent and learns what it runs. */
  async member(name: string): Promise<void> {
    const remeasure = this.#options.remeasure ?? "1s"
    await this.must("vm", "create", name, "--local", "--remeasure", remeasure)
    this.#options.onMember?.(name)
    await this.agent(name)
    // The command's program belongs to what the endpoint runs.
    await this.must("guest", "status", "--local", name)
    await this.must("measure", "learn", name)
  }

  /** Starts the agent of a local endpoint and waits until it is linked. */
  async agent(name: string): Promise<Running> {
    const more = this.#options.agents?.[name] ?? []
    const words = ["guest", "agent", "--local", name, "--log", "debug", ...more]
    const running = this.spawn(words, {}, this.agentLog(name))
    this.#agents.set(name, running)
    await this.linked(name)
    return running
  }

  agentOf(name: string): Running {
    const agent = this.#agents.get(name)
    if (!agent) throw new Error(`${name} has no agent`)
    return agent
  }

  agentLog(name: string): string {
    return join(this.folder, `${name}.log`)
  }

  async linked(name: string): Promise<void> {
    await this.until(`the link of ${name}`, async () => {
      const { vms } = await this.status()
      return vms.some((vm) => vm.name === name && vm.link === "up")
    })
    // The link is up for the MVM with the first proof; the agent offers and opens once READY was answered.
    await this.until(`the agent of ${name}`, async () => {
      const { status, stdout } = await this.run("guest", "status", "--local", name, "--json")
      return status === 0 && (JSON.parse(stdout) as { linked: boolean }).linked
    })
  }

  /** Starts a command; its stderr is collected, in `log` if named. */
  spawn(words: readonly string[], options: RunOptions = {}, log?: string): Running {
    const errors = log ?? join(this.folder, `${this.#started.length}.err`)
    const stderr = openSync(errors, "a")
    const { stdin, stdout } = options
    const output = typeof stdout === "string" && stdout !== "pipe" ? openSync(stdout, "w") : stdout
    const child = Bun.spawn([options.program ?? this.mvm, ...words], {
      stdin: stdin ?? "ignore",
      stdout: output ?? "ignore",
      stderr,
      ...options.user,
      cwd: this.folder,
      env: {
        ...process.env,
        MVM_STATE: words[0] === "guest" ? this.guestState : this.state,
        ...options.env,
      },
    })
    closeSync(stderr)
    if (typeof output === "number" && typeof stdout === "string") closeSync(output)
    const running: Running = {
      pid: child.pid,
      process: child,
      stderr: () => readFileSync(errors, "utf8"),
      says: (text) =>
        this.until(`"${text}" of ${words.join(" ")}`, () => {
          if (running.stderr().includes(text)) return true
          if (child.exitCode !== null) throw new Error(`${words.join(" ")} ended: ${running.stderr()}`)
          return false
        }),
      over: async (limitMs = HANG_MS) => {
        const ended = await Promise.race([child.exited, Bun.sleep(limitMs).then(() => undefined)])
        if (ended === undefined) throw new Error(`${words.join(" ")} hangs: ${running.stderr()}`)
        return ended
      },
      kill: (signal) => child.kill(signal),
    }
    this.#started.push(running)
    return running
  }

  /** Runs a command to its end. */
  async run(...words: string[]): Promise<Outcome> {
    return this.runWith({}, ...words)
  }

  async runWith(options: Omit<RunOptions, "stdout">, ...words: string[]): Promise<Outcome> {
    const running = this.spawn(words, { ...options, stdout: "pipe" })
    const stdout = new Response(running.process.stdout as ReadableStream).text()
    return { status: await running.over(), stdout: await stdout, stderr: running.stderr() }
  }

  /** Runs a command that must succeed; its stdout. */
  async must(...words: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(...words)
    if (status !== 0) throw new Error(`mvm ${words.join(" ")}: status ${status}: ${stderr}`)
    return stdout
  }

  async json<T>(...words: string[]): Promise<T> {
    return JSON.parse(await this.must(...words, "--json")) as T
  }

  /** A receiver that the MVM knows to wait. */
  async recv(name: string, stdout: RunOptions["stdout"], ...words: string[]): Promise<Running> {
    const running = this.spawn(["guest", "recv", "--local", name, ...words], { stdout })
    if (!words.includes("--request")) await running.says("waiting for")
    return running
  }

  /** `running` ends with the host, by SIGTERM and with status 0. */
  keep(running: Running): Running {
    this.#kept.push(running)
    return running
  }

  /** A service of member `name` that callers can reach; it ends with the host. */
  async serves(name: string, service: string, ...words: string[]): Promise<Running> {
    const running = this.keep(this.spawn(["guest", "serve", service, "--local", name, ...words]))
    await running.says(`serving ${service}`)
    return running
  }

  send(name: string, target: string, stdin: RunOptions["stdin"], ...words: string[]): Running {
    return this.spawn(["guest", "send", "--local", name, target, ...words], { stdin })
  }

  /** One request to the daemon, without a process for it. */
  async ask<T>(method: string, params: Params = {}): Promise<T> {
    const client = await RpcClient.connect(join(this.state, "control.sock"))
    try {
      return await client.call<T>(method, params)
    } finally {
      client.close()
    }
  }

  status(): Promise<StatusView> {
    return this.ask<StatusView>("status")
  }

  /** Every region is back in the arena, no memory is a channel's own, and no channel is left. */
  async free(): Promise<void> {
    await this.until("the regions to be free", async () => {
      const { arena, dedicated, channels } = await this.status()
      return channels === 0 && arena.freeBytes === arena.sizeBytes && dedicated.used === 0
    })
  }

  /** Files of memory that is some channel's own. */
  memoryFiles(): string[] {
    const arena = this.#arena ?? "/dev/shm/none"
    const begin = `${basename(arena)}-`
    return readdirSync(dirname(arena))
      .filter((file) => file.startsWith(begin))
      .map((file) => join(dirname(arena), file))
  }

  writePolicy(text: string): void {
    writeFileSync(join(this.state, "policy.toml"), text, { mode: 0o600 })
  }

  /** Writes the policy and waits until `mvm policy test default FROM TO` says `action`. */
  async policy(text: string, from: string, to: string, action: "allow" | "deny"): Promise<void> {
    this.writePolicy(text)
    await this.until(`the policy to ${action}`, async () => {
      const decision = await this.ask<{ action: string }>("policy.test", { service: "default", from, to })
      return decision.action === action
    })
  }

  audit(kind: string): Promise<Record<string, unknown>[]> {
    return this.ask("audit.list", { kind, limit: 1000 })
  }

  log(): string {
    return existsSync(this.serveLog) ? readFileSync(this.serveLog, "utf8") : ""
  }

  /** A file of the host's folder with `bytes` in it. */
  file(name: string, bytes: Uint8Array | string): string {
    const path = join(this.folder, name)
    writeFileSync(path, bytes)
    return path
  }

  async until(what: string, ready: () => unknown): Promise<void> {
    const deadline = performance.now() + HANG_MS
    while (!(await ready())) {
      if (performance.now() > deadline) throw new Error(`waited in vain for ${what}\n${tail(this.log())}`)
      await Bun.sleep(POLL_MS)
    }
  }

  /** Ends everything, removes everything. @throws Error when something of it was left. */
  async end(): Promise<void> {
    const left: string[] = []
    for (const running of this.#kept) if (running.process.exitCode === null) running.kill("SIGTERM")
    for (const running of this.#kept) {
      const status = await running.over()
      if (status !== 0) left.push(`a service or forward that ended with status ${status}`)
    }
    if (this.#serve) {
      const { vms } = await this.status().catch(() => ({ vms: [] }))
      for (const { name, state } of vms) {
        if (state !== "running") continue
        await this.ask("vm.stop", { name, force: true }).catch((error: Error) => left.push(error.message))
      }
      for (const { name } of vms) {
        await this.ask("vm.rm", { name }).catch((error: Error) => left.push(error.message))
      }
      const status = await this.stopServe()
      if (status !== 0) left.push(`mvm serve ended with status ${status}`)
    }
    for (const agent of this.#agents.values()) agent.kill("SIGTERM")
    for (const agent of this.#agents.values()) await agent.over()
    for (const { process: child } of this.#started) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      left.push(`process ${child.pid} still ran`)
      child.kill("SIGKILL")
      await child.exited
    }
    for (const { pid, line } of processesOf(this.folder)) {
      left.push(line)
      process.kill(pid, "SIGKILL")
    }
    const run = join(this.state, "run")
    if (existsSync(run)) left.push(...readdirSync(run).map((entry) => `run/${entry}`))
    if (existsSync(join(this.state, "control.sock"))) left.push("control.sock")
    for (const path of this.memoryFiles()) {
      left.push(path)
      rmSync(path, { force: true })
    }
    if (this.#arena) rmSync(this.#arena, { force: true })
    rmSync(this.folder, { recursive: true, force: true })
    if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`)
  }
}

/** The host of a test file: there before its first test, gone after its last. */
export function hostForFile(options: HostOptions): () => TestHost {
  let host: TestHost | undefined
  beforeAll(async () => {
    host = await TestHost.start(options)
  }, 60_000)
  afterAll(async () => {
    await host?.end()
  }, 60_000)
  return () => {
    if (!host) throw new Error("the host did not start")
    return host
  }
}

export { MIB }

function tail(text: string): string {
  return text.split("\n").slice(-30).join("\n")
}
