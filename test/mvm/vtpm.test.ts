import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { equalBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { p256Generate, p256PublicKey, p256Verify, random, sha256 } from "../../src/lib/crypto.ts"
import { type ErrorCode, MvmError } from "../../src/lib/errors.ts"
import { withVtpm } from "../../src/mvm/vtpm/session.ts"
import { type ProvisionedVtpm, provisionVtpm } from "../../src/mvm/vtpm/provision.ts"
import { type RunningVtpm, startVtpmForQemu, startVtpmLocal } from "../../src/mvm/vtpm/start.ts"
import { initTpm } from "../../src/platform/swtpm-control.ts"
import { startSwtpm } from "../../src/platform/swtpm.ts"
import { parseQuote } from "../../src/tpm/attest.ts"
import { KEY_HANDLES, MVM_KEY_NV_INDEX } from "../../src/tpm/handles.ts"
import { connectSwtpm } from "../../src/tpm/swtpm-transport.ts"
import { keyTemplate } from "../../src/tpm/templates.ts"
import { Tpm } from "../../src/tpm/tpm.ts"
import { scratchDir } from "../tpm/scratch-swtpm.ts"

const PCRS = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]
const mvmPublicKey = p256Generate().publicKey

let dir: ReturnType<typeof scratchDir>
let place: { stateDir: string; runDir: string; stateKey: Uint8Array }
let running: RunningVtpm[]

beforeEach(() => {
  dir = scratchDir()
  place = { stateDir: join(dir.path, "state"), runDir: join(dir.path, "run"), stateKey: random(32) }
  running = []
})

afterEach(async () => {
  for (const vtpm of running) await vtpm.stop()
  dir.remove()
})

const provision = (): Promise<ProvisionedVtpm> => provisionVtpm({ ...place, mvmPublicKey })

async function local(vtpm: ProvisionedVtpm, pinned = mvmPublicKey): Promise<RunningVtpm> {
  const dataSocket = join(place.runDir, "tpm.sock")
  const started = await startVtpmLocal({ ...place, mvmPublicKey: pinned, names: vtpm.names, dataSocket })
  running.push(started)
  return started
}

const agent = async (): Promise<Tpm> => new Tpm(await connectSwtpm(join(place.runDir, "tpm.sock")))

async function failure(promise: Promise<unknown>, code: ErrorCode): Promise<MvmError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(MvmError)
  expect((error as MvmError).code).toBe(code)
  return error as MvmError
}

const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}/status`)

/** swtpm processes whose arguments name this test's directory. */
function swtpmsHere(): string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(dir.path)
    } catch {
      return false
    }
  })
}

describe("provisionVtpm", () => {
  test("makes four distinct keys, states their names, and leaves no process and no socket", async () => {
    const vtpm = await provision()
    const points = Object.values(vtpm.keys).map(toHex)
    expect(new Set(points).size).toBe(3)
    expect(points.every((point) => point.length === 130)).toBe(true)
    expect(Object.values(vtpm.names).every((name) => name.length === 34)).toBe(true)
    expect(Object.values(vtpm.auths).every((auth) => auth.length === 32)).toBe(true)
    expect(swtpmsHere()).toEqual([])
    expect(readdirSync(place.runDir)).toEqual(["swtpm.log"])
  })

  test("leaves the state closed to others and encrypted", async () => {
    const vtpm = await provision()
    expect(statSync(place.stateDir).mode & 0o777).toBe(0o700)
    const state = readFileSync(join(place.stateDir, "tpm2-00.permall"))
    expect(statSync(join(place.stateDir, "tpm2-00.permall")).mode & 0o777).toBe(0o600)
    expect(state.includes(vtpm.keys.identity.subarray(1, 33))).toBe(false)
    expect(state.includes(mvmPublicKey)).toBe(false)
  })

  test("gives two vTPMs different keys", async () => {
    const first = await provision()
    const second = await provisionVtpm({
      ...place,
      stateDir: join(dir.path, "state2"),
      runDir: join(dir.path, "run2"),
      mvmPublicKey,
    })
    expect(toHex(first.keys.identity)).not.toBe(toHex(second.keys.identity))
  })

  test("leaves sha256 the only PCR bank and the MVM's key in NV", async () => {
    await provision()
    await withVtpm(place, async ({ tpm }) => {
      const active = (await tpm.pcrBanks()).filter((bank) => bank.pcrs.length > 0)
      expect(active).toEqual([{ hash: 0x000b, pcrs: Array.from({ length: 24 }, (_, i) => i) }])
      expect(toHex(await tpm.nvRead(MVM_KEY_NV_INDEX))).toBe(toHex(mvmPublicKey))
    })
  })

  test("refuses a vTPM that is provisioned already and leaves it as it was", async () => {
    const vtpm = await provision()
    await failure(provision(), "exists")
    await local(vtpm)
  })

  test("leaves nothing when it fails half way", async () => {
    await failure(provisionVtpm({ ...place, mvmPublicKey: new Uint8Array(64) }), "internal")
    expect(readdirSync(place.stateDir)).toEqual([])
    expect(swtpmsHere()).toEqual([])
  })
})

describe("startVtpmLocal", () => {
  test("each start is a new TPM boot: same keys, PCRs zero, resetCount one higher", async () => {
    const vtpm = await provision()
    const first = await local(vtpm)
    const tpm = await agent()
    await tpm.pcrExtend(10, sha256(utf8("entry")))
    await tpm.shutdown()
    tpm.close()
    await first.stop()
    const second = await local(vtpm)
    const again = await agent()
    for (const value of await again.pcrRead(PCRS)) expect(equalBytes(value, new Uint8Array(32))).toBe(true)
    expect(toHex((await again.readPublic(KEY_HANDLES.identity)).point)).toBe(toHex(vtpm.keys.identity))
    expect(second.clockBefore.resetCount).toBe(first.clockBefore.resetCount + 1)
    expect(second.clockBefore.clock).toBeGreaterThanOrEqual(first.clockBefore.clock)
    again.close()
  })

  test("the agent's quote shows the reset count the MVM saw, and its signatures verify", async () => {
    const vtpm = await provision()
    const { clockBefore } = await local(vtpm)
    const tpm = await agent()
    const { attest, signature } = await tpm.quote(KEY_HANDLES.attestation, utf8("nonce"), PCRS)
    expect(p256Verify(vtpm.keys.attestation, attest, signature)).toBe(true)
    expect(parseQuote(attest)).toMatchObject({
      resetCount: clockBefore.resetCount,
      restartCount: clockBefore.restartCount,
      pcrSelection: PCRS,
    })
    const message = utf8("request")
    expect(
      p256Verify(vtpm.keys.identity, message, await tpm.sign(KEY_HANDLES.identity, sha256(message))),
    ).toBe(true)
    tpm.close()
  })

  test("keeps PCRs and the closed platform hierarchy when the agent disconnects and comes back", async () => {
    const vtpm = await provision()
    await local(vtpm)
    const first = await agent()
    await first.pcrExtend(10, sha256(utf8("entry")))
    const [before] = await first.pcrRead([10])
    first.close()
    const second = await agent()
    const [after] = await second.pcrRead([10])
    expect(toHex(after!)).toBe(toHex(before!))
    expect(equalBytes(after!, new Uint8Array(32))).toBe(false)
    const refused = await failure(
      second.createPrimary("platform", keyTemplate("identity", random(32))),
      "tpm",
    )
    expect(refused.message).toContain("TPM_RC_BAD_AUTH")
    second.close()
  })

  test("pins the MVM key it is given, replacing an earlier one", async () => {
    const vtpm = await provision()
    const other = p256PublicKey(p256Generate().privateKey)
    await local(vtpm, other)
    const tpm = await agent()
    expect(toHex(await tpm.nvRead(MVM_KEY_NV_INDEX))).toBe(toHex(other))
    tpm.close()
  })

  test("sockets are closed to other users and stop removes process and sockets", async () => {
    const vtpm = await local(await provision())
    for (const name of ["tpm.sock", "vtpm-local.ctrl"]) {
      expect(statSync(join(place.runDir, name)).mode & 0o777).toBe(0o600)
    }
    await vtpm.stop()
    await vtpm.stop()
    expect(isAlive(vtpm.pid)).toBe(false)
    expect(readdirSync(place.runDir)).toEqual(["swtpm.log"])
  })

  test("tells of a swtpm that was killed, and the state starts again", async () => {
    const vtpm = await provision()
    const first = await local(vtpm)
    process.kill(first.pid, "SIGKILL")
    expect(await first.exited).toEqual({ code: null, signal: "SIGKILL" })
    const second = await local(vtpm)
    expect(second.clockBefore.resetCount).toBeGreaterThan(first.clockBefore.resetCount)
  })
})

describe("startVtpmForQemu", () => {
  const controlSocket = () => join(place.runDir, "qemu.ctrl")
  const start = async (vtpm: ProvisionedVtpm): Promise<RunningVtpm> => {
    const started = await startVtpmForQemu({
      ...place,
      mvmPublicKey,
      names: vtpm.names,
      controlSocket: controlSocket(),
    })
    running.push(started)
    return started
  }

  test("leaves one swtpm with the control socket alone, which powers the TPM on", async () => {
    const vtpm = await start(await provision())
    expect(swtpmsHere()).toEqual([String(vtpm.pid)])
    expect(readdirSync(place.runDir).sort()).toEqual(["qemu.ctrl", "swtpm.log"])
    await initTpm(controlSocket())
    await vtpm.stop()
    expect(isAlive(vtpm.pid)).toBe(false)
  })

  test("stop ends it also while somebody else holds the control channel", async () => {
    const vtpm = await start(await provision())
    const qemu = await Bun.connect({ unix: controlSocket(), socket: { data() {} } })
    await vtpm.stop()
    qemu.end()
    expect(isAlive(vtpm.pid)).toBe(false)
  })

  test("counters grow from start to start", async () => {
    const vtpm = await provision()
    const first = await start(vtpm)
    await first.stop()
    const second = await start(vtpm)
    expect(second.clockBefore.resetCount).toBe(first.clockBefore.resetCount + 1)
    expect(second.clockBefore.safe).toBe(true)
  })
})

describe("a vTPM that is not as provisioned is refused and no process is left", () => {
  afterEach(() => expect(swtpmsHere()).toEqual([]))

  const start = (vtpm: ProvisionedVtpm, stateKey = place.stateKey) =>
    startVtpmForQemu({
      ...place,
      stateKey,
      mvmPublicKey,
      names: vtpm.names,
      controlSocket: join(place.runDir, "qemu.ctrl"),
    })

  test("wrong state key: state_key with a hint and without the key", async () => {
    const vtpm = await provision()
    const error = await failure(start(vtpm, random(32)), "state_key")
    expect(error.hint).toContain("state key")
    expect(error.message).not.toContain(toHex(place.stateKey))
  })

  test("state in use by another swtpm: swtpm, and the other one goes on", async () => {
    const vtpm = await provision()
    const other = await local(vtpm)
    const error = await failure(start(vtpm), "swtpm")
    expect(error.message).toContain("in use")
    expect(isAlive(other.pid)).toBe(true)
    await other.stop()
  })

  test("a control socket somebody listens on: swtpm, and the listener keeps it", async () => {
    const vtpm = await provision()
    const other = await local(vtpm)
    const error = await failure(local(vtpm), "swtpm")
    expect(error.message).toContain("listens")
    const tpm = await agent()
    await tpm.getRandom(8)
    tpm.close()
    await other.stop()
  })

  test("swtpm not installed: setup with the package in the hint", async () => {
    await provision()
    const missing = startSwtpm({
      ...place,
      controlSocket: join(place.runDir, "c"),
      logFile: join(place.runDir, "log"),
      program: "swtpm-that-is-not-there",
    })
    expect((await failure(missing, "setup")).hint).toBe("apt-get install swtpm")
  })

  test("a socket path that is too long: config naming it", async () => {
    const vtpm = await provision()
    const runDir = join(place.runDir, "x".repeat(100))
    const long = startVtpmLocal({ ...place, runDir, mvmPublicKey, names: vtpm.names, dataSocket: "/tmp/s" })
    expect((await failure(long, "config")).message).toContain("controlSocket")
  })

  for (const name of ["storage", "attestation", "identity", "sealing"] as const) {
    test(`another ${name} key than registered: state naming the key`, async () => {
      const vtpm = await provision()
      await withVtpm(place, async ({ tpm }) => {
        const persistent = KEY_HANDLES[name]
        await tpm.evictControl("platform", { object: persistent, persistent })
        const { handle } = await tpm.createPrimary("platform", keyTemplate(name, random(32)))
        await tpm.evictControl("platform", { object: handle, persistent })
      })
      const error = await failure(start(vtpm), "state")
      expect(error.message).toBe(`vtpm key ${name}: its name differs from the registered one`)
    })
  }

  test("a missing key: state naming the key", async () => {
    const vtpm = await provision()
    await withVtpm(place, ({ tpm }) =>
      tpm.evictControl("platform", { object: KEY_HANDLES.identity, persistent: KEY_HANDLES.identity }),
    )
    expect((await failure(start(vtpm), "state")).message).toBe("vtpm key identity: missing")
  })

  test("hierarchies opened again: state", async () => {
    const vtpm = await provision()
    await withVtpm(place, ({ tpm }) => tpm.hierarchyChangeAuth("owner", new Uint8Array(0), vtpm.auths.owner))
    expect((await failure(start(vtpm), "state")).message).toContain("hierarchies")
  })

  test("a second PCR bank: state", async () => {
    const vtpm = await provision()
    await withVtpm(place, async ({ tpm, controlSocket }) => {
      const banks = await tpm.pcrBanks()
      const all = Array.from({ length: 24 }, (_, index) => index)
      await tpm.pcrAllocate(banks.map(({ hash }) => ({ hash, pcrs: all })))
      await tpm.shutdown()
      await initTpm(controlSocket)
      await tpm.startup()
    })
    expect((await failure(start(vtpm), "state")).message).toContain("pcr banks")
  })

  test("an empty state directory under a provisioned VM: state, and no TPM is made in it", async () => {
    const vtpm = await provision()
    const stateDir = join(dir.path, "empty")
    const empty = startVtpmLocal({
      ...place,
      stateDir,
      mvmPublicKey,
      names: vtpm.names,
      dataSocket: join(place.runDir, "tpm.sock"),
    })
    expect((await failure(empty, "state")).message).toBe(`no vtpm state in ${stateDir}`)
    expect(existsSync(stateDir)).toBe(false)
  })
})
