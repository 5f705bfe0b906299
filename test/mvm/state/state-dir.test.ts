/** @module test/mvm/state-dir */

import { describe, expect, test } from "bun:test"
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { equalBytes, isZero, utf8 } from "../../../src/lib/bytes.ts"
import { isP256PublicKey, p256Verify, random } from "../../../src/lib/crypto.ts"
import { openStateDir } from "../../../src/mvm/state/state-dir.ts"
import { closeLater, failure, scratchFolder, scratchState } from "../scratch-state.ts"

const HOLDER = join(import.meta.dir, "hold-state.ts")

/** A process that holds `path`, and its child; the test's end kills both. */
async function hold(path: string) {
  const holder = Bun.spawn([process.execPath, HOLDER, path], { stdout: "pipe", stderr: "inherit" })
  closeLater(() => holder.kill("SIGKILL"))
  const reader = holder.stdout.getReader()
  const childPid = Number(new TextDecoder().decode((await reader.read()).value))
  expect(childPid).toBeGreaterThan(1)
  closeLater(() => void process.kill(childPid, "SIGKILL"))
  return { holder, childPid }
}

describe("a state directory", () => {
  test("is made private, with its folders, and all its files are private", async () => {
    const path = join(scratchFolder(), "deep", "state")
    const state = await scratchState(path)
    expect(statSync(path).mode & 0o777).toBe(0o700)
    for (const folder of [state.vmsDir, state.runDir, state.logsDir]) {
      expect(statSync(folder).mode & 0o777).toBe(0o700)
    }
    const files = readdirSync(path).filter((name) => statSync(join(path, name)).isFile())
    expect(files.toSorted()).toEqual(["identity.key", "lock", "state.check", "state.key"])
    for (const file of files) expect(statSync(join(path, file)).mode & 0o777).toBe(0o600)
  })

  test("is refused when others can write to it", async () => {
    const path = scratchFolder()
    for (const mode of [0o777, 0o770, 0o702]) {
      chmodSync(path, mode)
      const error = await failure(() => openStateDir(path))
      expect(error.code).toBe("state")
      expect(error.hint).toContain("chmod go-w")
    }
  })

  test("is refused when another user owns it, or when it is a file", async () => {
    const path = scratchFolder()
    if (process.geteuid?.() === 0) {
      chownSync(path, 12345, 12345)
      expect((await failure(() => openStateDir(path))).message).toContain("uid 12345")
      chownSync(path, 0, 0)
    }
    writeFileSync(join(path, "file"), "")
    const error = await failure(() => openStateDir(join(path, "file")))
    expect([error.code, error.hint !== undefined]).toEqual(["state", true])
  })

  test("keeps its identity and derived keys, and tells VMs and purposes apart", async () => {
    const path = scratchFolder()
    const first = await openStateDir(path)
    const key = first.vmStateKey("a")
    const sealed = first.seal("purpose", "a", utf8("secret"))
    const { publicKey } = first.identity
    first.close()
    const second = await scratchState(path)
    expect(equalBytes(second.vmStateKey("a"), key)).toBe(true)
    expect(equalBytes(second.vmStateKey("b"), key)).toBe(false)
    expect(key.length === 32 && !isZero(key)).toBe(true)
    expect(second.open("purpose", "a", sealed)).toEqual(utf8("secret"))
    expect((await failure(() => second.open("purpose", "b", sealed))).code).toBe("state_key")
    expect((await failure(() => second.open("other", "a", sealed))).code).toBe("state_key")
    expect((await failure(() => second.open("purpose", "a", sealed.subarray(0, 20)))).code).toBe("state_key")
    expect(equalBytes(second.identity.publicKey, publicKey)).toBe(true)
    expect(isP256PublicKey(publicKey)).toBe(true)
    const signature = second.identity.sign(utf8("message"))
    expect(p256Verify(publicKey, utf8("message"), signature)).toBe(true)
    expect(p256Verify(publicKey, utf8("other"), signature)).toBe(false)
  })

  test("holds its private key only sealed", async () => {
    const state = await scratchState()
    const stored = readFileSync(join(state.path, "identity.key"))
    expect(stored.length).toBe(12 + 32 + 16)
    expect(state.open("mvm identity", "", stored).length).toBe(32)
  })
})

describe("the master state key", () => {
  test("may lie elsewhere, and is then not in the directory", async () => {
    const folder = scratchFolder()
    const stateKeyFile = join(folder, "key")
    writeFileSync(stateKeyFile, random(32), { mode: 0o600 })
    const state = await openStateDir(join(folder, "state"), { stateKeyFile })
    state.close()
    expect(readdirSync(state.path)).not.toContain("state.key")
    const missing = await failure(() => openStateDir(state.path))
    expect([missing.code, missing.hint]).toEqual([
      "state_key",
      "restore that file, or name the file that holds the key with --state-key",
    ])
    ;(await openStateDir(state.path, { stateKeyFile })).close()
  })

  test("is refused when it is another one, and the state stays as it is", async () => {
    const folder = scratchFolder()
    const path = join(folder, "state")
    const { publicKey } = (await scratchState(path)).identity
    const stateKeyFile = join(folder, "other")
    writeFileSync(stateKeyFile, random(32), { mode: 0o600 })
    const state = await failure(() => openStateDir(path, { stateKeyFile }))
    expect(state.code).toBe("already_running")
    const copy = join(folder, "copy")
    mkdirSync(copy, { mode: 0o700 })
    for (const file of ["state.check", "identity.key", "state.key"]) {
      writeFileSync(join(copy, file), readFileSync(join(path, file)), { mode: 0o600 })
    }
    const wrong = await failure(() => openStateDir(copy, { stateKeyFile }))
    expect(wrong.code).toBe("state_key")
    expect(wrong.message).toContain("not the key this state directory was made with")
    // The lock is free again, and the right key still opens.
    expect((await scratchState(copy)).identity.publicKey).toEqual(publicKey)
  })

  test("is refused when absent, of another size, or open to others", async () => {
    const folder = scratchFolder()
    const path = join(folder, "state")
    const stateKeyFile = join(folder, "key")
    const open = () => openStateDir(path, { stateKeyFile })
    expect((await failure(open)).hint).toContain("head -c 32 /dev/urandom")
    for (const length of [0, 31, 33, 5000]) {
      writeFileSync(stateKeyFile, random(length), { mode: 0o600 })
      expect((await failure(open)).code).toBe("state_key")
    }
    writeFileSync(stateKeyFile, random(32))
    for (const mode of [0o640, 0o604, 0o660]) {
      chmodSync(stateKeyFile, mode)
      expect((await failure(open)).message).toContain("other users can reach")
    }
    rmSync(stateKeyFile)
    mkdirSync(stateKeyFile)
    expect((await failure(open)).message).toContain("not a regular file")
  })

  test("and a broken check value or identity are told, not replaced", async () => {
    for (const file of ["state.check", "identity.key"]) {
      const state = await scratchState()
      state.close()
      writeFileSync(join(state.path, file), random(60), { mode: 0o600 })
      expect((await failure(() => openStateDir(state.path))).code).toBe("state_key")
      expect(readFileSync(join(state.path, file)).length).toBe(60)
    }
  })
})

describe("the lock", () => {
  test("refuses a second MVM in another process, naming it and the remedy", async () => {
    const path = scratchFolder()
    const { holder } = await hold(path)
    const error = await failure(() => openStateDir(path))
    expect(error.code).toBe("already_running")
    expect(error.message).toContain(`process ${holder.pid}`)
    expect(error.hint).toContain(`kill ${holder.pid}`)
  })

  test("is free at once after kill -9, even while a child of the holder lives", async () => {
    const path = scratchFolder()
    const { holder, childPid } = await hold(path)
    holder.kill("SIGKILL")
    await holder.exited
    const state = await scratchState(path)
    expect(state.path).toBe(path)
    process.kill(childPid, 0)
  })

  test("is free after close, and held against the same process until then", async () => {
    const state = await scratchState()
    const error = await failure(() => openStateDir(state.path))
    expect(error.message).toContain(`process ${process.pid}`)
    state.close()
    state.close()
    ;(await openStateDir(state.path)).close()
  })

  test("is free after a failed start", async () => {
    const state = await scratchState()
    state.close()
    const check = readFileSync(join(state.path, "state.check"))
    writeFileSync(join(state.path, "state.check"), random(32))
    expect((await failure(() => openStateDir(state.path))).code).toBe("state_key")
    writeFileSync(join(state.path, "state.check"), check)
    ;(await openStateDir(state.path)).close()
  })

  test("does not follow a symbolic link, and survives nonsense in its file", async () => {
    const path = scratchFolder()
    writeFileSync(join(path, "elsewhere"), "precious")
    symlinkSync(join(path, "elsewhere"), join(path, "lock"))
    expect((await failure(() => openStateDir(path))).code).toBe("io")
    expect(readFileSync(join(path, "elsewhere"), "utf8")).toBe("precious")
    rmSync(join(path, "lock"))
    writeFileSync(join(path, "lock"), "x".repeat(1000), { mode: 0o600 })
    await scratchState(path)
    expect(readFileSync(join(path, "lock"), "utf8")).toBe(`${process.pid}\n`)
  })
})
