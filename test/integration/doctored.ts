/**
 * @module test/integration/doctored
 *
 * What a doctor found, and how to have one look at surroundings that are broken on purpose.
 */

import type { Finding } from "../../src/lib/health.ts"
import type { TestHost } from "./host.ts"

export interface Doctored {
  readonly status: number
  readonly findings: readonly Finding[]
}

export interface Surroundings {
  /** Lines of a shell, in a mount namespace of their own, before the doctor. */
  readonly before?: string
  readonly env?: Readonly<Record<string, string>>
}

export async function runDoctor(
  { mvm, state }: TestHost,
  words: readonly string[],
  { before = "", env = {} }: Surroundings = {},
): Promise<Doctored> {
  const shell = `${before}\nexec "$0" "$@"`
  // The search path is the doctor's alone: the programs around it are found by their places.
  const child = Bun.spawn(["/usr/bin/unshare", "--mount", "/bin/sh", "-ec", shell, mvm, ...words, "--json"], {
    env: { ...process.env, MVM_STATE: state, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  })
  const [output, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  const status = await child.exited
  if (output === "") throw new Error(`no findings, status ${status}: ${errors}`)
  return { status, findings: (JSON.parse(output) as { findings: Finding[] }).findings }
}

/** What is not in order with `check`. */
export function finding({ findings }: Doctored, check: string): Finding {
  const found = findings.find((one) => one.check === check && one.level !== "ok")
  if (!found) throw new Error(`nothing wrong with ${check}: ${JSON.stringify(findings)}`)
  return found
}
