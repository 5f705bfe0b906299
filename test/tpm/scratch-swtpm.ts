/**
 * @module test/tpm/scratch-swtpm
 *
 * A fresh swtpm in a directory of its own, for one test file. The control socket is the data socket's name with
 * `.ctrl`, as tpm2-tools expects.
 */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type SwtpmProcess, startSwtpm } from "../../src/platform/swtpm.ts"

export const STATE_KEY = new Uint8Array(32).fill(0x5a)

export function scratchDir(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "mvm-vtpm-"))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export interface ScratchSwtpm {
  process: SwtpmProcess
  dataSocket: string
  controlSocket: string
  stop(): Promise<void>
}

export async function startScratchSwtpm(): Promise<ScratchSwtpm> {
  const dir = scratchDir()
  const dataSocket = join(dir.path, "tpm")
  const controlSocket = `${dataSocket}.ctrl`
  const swtpm = await startSwtpm({
    stateDir: dir.path,
    stateKey: STATE_KEY,
    dataSocket,
    controlSocket,
    logFile: join(dir.path, "log"),
  }).catch((error) => {
    dir.remove()
    throw error
  })
  return {
    process: swtpm,
    dataSocket,
    controlSocket,
    stop: async () => {
      await swtpm.stop()
      dir.remove()
    },
  }
}

/** Runs a tpm2-tools program against a swtpm. @returns status and output */
export async function tpm2(
  dataSocket: string,
  ...args: string[]
): Promise<{ status: number; output: string }> {
  const child = Bun.spawn(args, {
    env: { ...process.env, TPM2TOOLS_TCTI: `swtpm:path=${dataSocket}` },
    stdio: ["ignore", "pipe", "pipe"],
  })
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { status, output: stdout + stderr }
}
