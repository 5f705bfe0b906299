/**
 * @module test/mvm/scratch-state
 *
 * State directories of one test, gone after it.
 */

import { onTestFinished } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { random } from "../../src/lib/crypto.ts"
import { MvmError } from "../../src/lib/errors.ts"
import type { VmRecord } from "../../src/mvm/state/registry.ts"
import { openStateDir, type StateDir, type StateDirOptions } from "../../src/mvm/state/state-dir.ts"

const folders: string[] = []
const closers: (() => void)[] = []

/** Once a test, whichever file it is in: hooks of a module that several test files import run for the first alone. */
function cleanAfterTest(): void {
  if (closers.length + folders.length > 0) return
  onTestFinished(() => {
    for (const close of closers.splice(0).reverse()) close()
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
  })
}

export function scratchFolder(): string {
  cleanAfterTest()
  const folder = mkdtempSync(join(tmpdir(), "mvm-test-"))
  folders.push(folder)
  return folder
}

/** Runs `close` after the test, the last one first. */
export function closeLater(close: () => void): void {
  cleanAfterTest()
  closers.push(close)
}

export async function scratchState(path = scratchFolder(), options: StateDirOptions = {}): Promise<StateDir> {
  const state = await openStateDir(path, options)
  closeLater(() => state.close())
  return state
}

/** What `work` throws, which must be ours. */
export async function failure(work: () => unknown): Promise<MvmError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof MvmError) return error
    throw error
  }
  throw new Error("nothing was thrown")
}

export function sampleVm(name: string, change: Partial<VmRecord> = {}): VmRecord {
  return {
    uuid: crypto.randomUUID(),
    name,
    kind: "qemu",
    config: {
      kernel: "/boot/vmlinuz",
      memoryMiB: 256,
      cpus: 1,
      net: "none",
      firmware: "seabios",
      machine: "pc",
      remeasureSeconds: 30,
    },
    keys: { attestation: random(65), identity: random(65), sealing: random(65) },
    names: { storage: random(34), attestation: random(34), identity: random(34), sealing: random(34) },
    auths: { owner: random(32), endorsement: random(32), lockout: random(32) },
    tags: [],
    createdMs: 1_700_000_000_000,
    ...change,
  }
}
