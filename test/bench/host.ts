/**
 * @module bench/host
 *
 * A manager with any number of local endpoints, for benchmarks: real processes of the built executable, real
 * swtpm, no VM. Everything ends with {@link BenchHost.stop}.
 */

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AgentClient } from "../../src/guest/agent-client.ts"
import { localPaths } from "../../src/platform/local-paths.ts"

const root = join(import.meta.dir, "../..")
const BUILT = join(root, "dist/mvm")

const POLICY = `[[rule]]
service = "*"
from = "*"
to = "*"
action = "allow"
measurement = ["kernel", "agent"]
`

export class BenchHost {
  readonly state = mkdtempSync(join(tmpdir(), "mvmb-"))
  /** A copy of the executable: one that is built anew meanwhile would be other software. */
  readonly mvm = join(this.state, "mvm")
  readonly servePid: number
  readonly #serve: Bun.Subprocess
  readonly #agents = new Map<string, Bun.Subprocess>()

  private constructor(extra: readonly string[]) {
    copyFileSync(BUILT, this.mvm)
    writeFileSync(join(this.state, "policy.toml"), POLICY, { mode: 0o600 })
    const log = Bun.file(join(this.state, "serve.log"))
    this.#serve = Bun.spawn([this.mvm, "serve", "--state", this.state, ...extra], {
      stdio: ["ignore", "ignore", log],
    })
    this.servePid = this.#serve.pid
  }

  static async start(...extra: string[]): Promise<BenchHost> {
    const host = new BenchHost(extra)
    await host.#until(() => host.run("status"))
    return host
  }

  socketOf(name: string): string {
    return localPaths(this.state, name).agent
  }

  agentPid(name: string): number {
    return this.#agents.get(name)?.pid ?? 0
  }

  /** Create a local endpoint, start its agent, and take what it runs as its reference values. */
  async addMember(name: string): Promise<void> {
    await this.must("vm", "create", name, "--local", "--remeasure", "600s")
    const log = Bun.file(join(this.state, `agent-${name}.log`))
    const agent = Bun.spawn([this.mvm, "guest", "agent", "--local", name, "--state", this.state], {
      stdio: ["ignore", "ignore", log],
    })
    this.#agents.set(name, agent)
    await this.must("vm", "wait", name)
    // Both programs that will ask are in the log before it is learnt: this one and the executable.
    const own = await AgentClient.connect(this.socketOf(name))
    own.send("STATUS", {})
    await own.until(() => own.state)
    own.close()
    await this.must("guest", "status", "--local", name)
    await this.must("measure", "learn", name)
  }

  async run(...args: string[]): Promise<boolean> {
    const command = Bun.spawn([this.mvm, ...args, "--state", this.state], {
      stdio: ["ignore", "ignore", "ignore"],
    })
    return (await command.exited) === 0
  }

  async must(...args: string[]): Promise<void> {
    if (!(await this.run(...args))) throw new Error(`mvm ${args.join(" ")} failed`)
  }

  async output(...args: string[]): Promise<string> {
    const command = Bun.spawn([this.mvm, ...args, "--state", this.state], {
      stdio: ["ignore", "pipe", "inherit"],
    })
    const text = await new Response(command.stdout).text()
    await command.exited
    return text
  }

  async stop(): Promise<void> {
    const status = JSON.parse(await this.output("status", "--json")) as { arena: { path: string } }
    for (const [name, agent] of this.#agents) {
      agent.kill("SIGTERM")
      await agent.exited
      await this.run("vm", "stop", name, "--force")
    }
    this.#serve.kill("SIGTERM")
    await this.#serve.exited
    rmSync(status.arena.path, { force: true })
    rmSync(this.state, { recursive: true, force: true })
  }

  async #until(done: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 10_000
    while (!(await done())) {
      if (performance.now() > deadline) throw new Error("mvm serve did not start")
      await Bun.sleep(20)
    }
  }
}
