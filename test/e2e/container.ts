/**
 * @module test/e2e/container
 *
 * A small Debian system (scripts/debian-root) to install packages into: an overlay that nobody else sees, entered as a
 * chroot, or booted with its own systemd in namespaces of its own. Ending it leaves nothing.
 */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { until } from "./managed.ts"

const ROOT = join(import.meta.dir, "../..")
const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  DEBIAN_FRONTEND: "noninteractive",
  LC_ALL: "C",
}

export interface Ran {
  status: number
  output: string
  errors: string
}

export class Container {
  readonly #folder = mkdtempSync(join(tmpdir(), "mvm-container-"))
  readonly root = join(this.#folder, "root")
  #nspawn: Bun.Subprocess | undefined
  #init: number | undefined

  private constructor() {}

  /** @param more words for scripts/debian-root */
  static async make(...more: string[]): Promise<Container> {
    const container = new Container()
    const lower = await mustRun([join(ROOT, "scripts/debian-root"), "--quiet", ...more])
    for (const name of ["root", "upper", "work"]) mkdirSync(join(container.#folder, name))
    const at = (name: string): string => join(container.#folder, name)
    const layers = `lowerdir=${lower.trim()},upperdir=${at("upper")},workdir=${at("work")}`
    await mustRun(["mount", "-t", "overlay", "overlay", "-o", layers, container.root])
    mkdirSync(join(container.root, "packages"))
    return container
  }

  /** In the container when it is booted, else in a chroot. */
  async run(command: string): Promise<Ran> {
    const enter =
      this.#init === undefined
        ? ["unshare", "--mount", "--pid", "--fork", "--mount-proc", `--root=${this.root}`]
        : ["nsenter", `--target=${this.#init}`, "--all"]
    return run([...enter, "/bin/sh", "-c", command])
  }

  /** A status other than 0 is an error. Without the last line feed. */
  async must(command: string): Promise<string> {
    const { status, output, errors } = await this.run(command)
    if (status !== 0) throw new Error(`${command}: status ${status}\n${output}${errors}`)
    return output.trimEnd()
  }

  /** Its own systemd, until all that starts at boot has started. */
  async boot(): Promise<void> {
    const nspawn = Bun.spawn(
      [
        ...[
          "systemd-nspawn",
          "--quiet",
          `--directory=${this.root}`,
          "--boot",
          "--register=no",
          "--keep-unit",
        ],
        ...["--private-network", "--console=pipe", "--link-journal=no", "systemd.log_target=null"],
      ],
      { stdio: ["ignore", "ignore", "ignore"] },
    )
    this.#nspawn = nspawn
    await until("the container's first process", () => {
      const children = `/proc/${nspawn.pid}/task/${nspawn.pid}/children`
      this.#init = existsSync(children)
        ? Number.parseInt(readFileSync(children, "utf8")) || undefined
        : undefined
      return this.#init !== undefined
    })
    await until("the container to be up", async () => {
      const { output } = await this.run("systemctl is-system-running")
      return /^(running|degraded)/.test(output)
    })
  }

  async end(): Promise<void> {
    if (this.#nspawn) {
      this.#nspawn.kill("SIGTERM")
      await this.#nspawn.exited
    }
    await run(["umount", this.root])
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Paths of all files and links, but for what programs write as they run. */
  files(): string[] {
    const skip = /^(proc|sys|dev|run|tmp|packages|var\/(log|cache|lib\/(dpkg|systemd)))(\/|$)/
    return [...new Bun.Glob("**/*").scanSync({ cwd: this.root, onlyFiles: false, dot: true })]
      .filter((path) => !skip.test(path) && !readsAsFolder(join(this.root, path)))
      .toSorted()
  }
}

function readsAsFolder(path: string): boolean {
  try {
    readdirSync(path)
    return true
  } catch {
    return false
  }
}

async function run(argv: string[]): Promise<Ran> {
  const child = Bun.spawn(argv, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...ENVIRONMENT },
  })
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { status: await child.exited, output, errors }
}

export async function mustRun(argv: string[]): Promise<string> {
  const { status, output, errors } = await run(argv)
  if (status !== 0) throw new Error(`${argv.join(" ")}: status ${status}\n${errors}`)
  return output
}

/** Makes our packages of `version` in `folder`. @returns their file names */
export async function makePackages(folder: string, version: string): Promise<string[]> {
  const script = join(ROOT, "scripts/package")
  return (await mustRun([script, "--quiet", "--output", folder, "--version", version])).trim().split("\n")
}
