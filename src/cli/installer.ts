/**
 * @module cli/installer
 *
 * What `install` on the host and `guest install` have in common: their options, and what they say they did.
 */

import { existsSync } from "node:fs"
import { resolve } from "node:path"
import { MvmError, STATUS } from "../lib/errors.ts"
import {
  applyInstallation,
  isInstalled,
  removeInstallation,
  type ApplyOptions,
  type Installation,
  type Step,
} from "../platform/installation.ts"
import { hasSystemd, runPrograms, type SystemProgram } from "../platform/system-programs.ts"
import type { Call, OptionSpec } from "./command.ts"
import { JSON_OPTION } from "./connect.ts"
import { note, print, printJson } from "./output.ts"

/** Where every service can read and only root can write. */
const SYSTEM_FOLDERS = /^\/(usr|opt|bin|sbin)\//
const PACKAGED = "/usr/bin/mvm"

export const INSTALL_OPTIONS: readonly OptionSpec[] = [
  { flags: "--uninstall", description: "take away what was installed and nobody changed" },
  { flags: "--root <dir>", description: "the tree of another system (default: the one that runs)" },
  { flags: "--executable <path>", description: "where mvm is on that system (default: this program)" },
  { flags: "--vendor", description: "for a package: below /usr/lib, not enabled and not recorded" },
  { flags: "--force", description: "replace what somebody changed" },
  { flags: "--dry-run", description: "say what would be done" },
  JSON_OPTION,
]

export interface Installer {
  plan(options: { executable: string; vendor: boolean }): Installation
  activate(): SystemProgram[]
  deactivate(): SystemProgram[]
  forget(): SystemProgram[]
  /** What is left for a person to do. */
  advice(): string[]
  /** What removal leaves, since files may belong to it. */
  readonly left: string
}

/** @returns the exit status: 1 when a program of the system failed, for the files are there then. */
export function runInstaller(call: Call, installer: Installer): number {
  const root = resolve(call.text("root") ?? "/")
  const dryRun = call.flag("dryRun")
  const isRunning = root === "/" && hasSystemd()
  const run = (programs: () => SystemProgram[]): Step[] => (isRunning ? runPrograms(programs(), dryRun) : [])
  // A system that was booted before makes no users at its next boot, unless its /usr changed.
  const makeUsers = (): Step[] => {
    const wasBooted = root !== "/" && existsSync(`${root}/etc/passwd`)
    if (!wasBooted || call.flag("vendor")) return []
    return runPrograms([{ argv: ["systemd-sysusers", `--root=${root}`] }], dryRun)
  }
  const plan = installer.plan({
    executable: executable(call, root),
    vendor: call.flag("vendor"),
  })
  const options = { root, dryRun, force: call.flag("force"), unrecorded: call.flag("vendor") }
  const isRemoval = call.flag("uninstall")
  if (!isRemoval && root === "/") refuseBesidePackage(plan)
  const steps = isRemoval
    ? uninstall(plan.name, options, {
        before: () => run(installer.deactivate),
        after: () => run(installer.forget),
      })
    : [...applyInstallation(plan, options), ...makeUsers(), ...run(installer.activate)]
  const advice = isRemoval || call.flag("vendor") ? [] : installer.advice()
  if (isRemoval && steps.length > 0) advice.push(`${installer.left}: remove it yourself if nothing needs it`)
  if (call.flag("json")) printJson({ dryRun, steps, advice })
  else show(steps, advice, dryRun)
  if (!isRunning && root === "/") note("systemd does not run here: nothing was started or stopped")
  return steps.some(({ action }) => action === "failed") ? STATUS.failure : STATUS.ok
}

/**
 * Takes away what the record of `name` says. Where there is none, nothing of the system is stopped either: a unit of
 * that name is then a package's.
 */
export function uninstall(
  name: string,
  options: ApplyOptions,
  programs: { before(): Step[]; after(): Step[] },
): Step[] {
  if (!isInstalled(name, options.root)) return []
  return [...programs.before(), ...removeInstallation(name, options), ...programs.after()]
}

function show(steps: readonly Step[], advice: readonly string[], dryRun: boolean): void {
  for (const { action, subject, reason } of steps) {
    const why = reason === undefined ? "" : ` (${reason})`
    print(`${(dryRun ? `would be ${action}` : action).padEnd(dryRun ? 18 : 9)}  ${subject}${why}`)
  }
  if (steps.length === 0) note("nothing was installed")
  for (const line of advice) note(line)
}

/** @throws MvmError `usage` for a place that a unit could not start it from. */
function executable(call: Call, root: string): string {
  const path = call.text("executable") ?? (root === "/" && !call.flag("vendor") ? process.execPath : PACKAGED)
  if (SYSTEM_FOLDERS.test(path) || call.flag("uninstall")) return path
  throw new MvmError("usage", `${path}: a service cannot rely on a program in this folder`, {
    hint: `install -m 755 ${path} /usr/local/bin/mvm, and run that one`,
  })
}

/** Units of a package would be hidden by those of the same name below /etc. */
function refuseBesidePackage({ name }: Installation): void {
  if (!existsSync(`/usr/lib/sysusers.d/mvm-${name}.conf`)) return
  throw new MvmError("exists", `the package mvm-${name} is installed: its files do the same`, {
    hint: `apt-get remove mvm-${name}`,
  })
}
