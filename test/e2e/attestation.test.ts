/**
 * @module test/e2e/attestation
 *
 * Measured VMs: one that does nothing wrong, however often it boots, and one whose root does all it can. A local
 * endpoint on the host waits for both, so that whatever they send is refused for their software alone.
 *
 * MVM_REBOOTS says how often the good one boots again (default 3).
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { fromHex } from "../../src/lib/bytes.ts"
import { verifyQuote } from "../../src/tcb/measurement/quote.ts"
import type { Console } from "./console.ts"
import { Managed } from "./managed.ts"

const REBOOTS = Number(process.env["MVM_REBOOTS"] ?? 3)

let mvm: Managed
let hostile: Console
/** What the host has received so far. */
let received: () => string

beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("steady")
  await mvm.vm("hostile", { image: "guest-attacker", memory: "1G" })
  await mvm.local("inbox")
  await mvm.linked("steady", "hostile")
  hostile = await mvm.console("hostile")
  // What is good: the runtime that the attacks need, and a program that will be changed.
  const report = "printf '#!/bin/sh\\necho report\\n' >/usr/bin/report; chmod +x /usr/bin/report; report"
  await hostile.must(`${report}; bun --version`)
  const receiver = ["guest", "recv", "--local", "inbox", "--keep", "--quiet"]
  const file = mvm.keepRunning("received", ...receiver)
  received = () => readFileSync(file, "utf8")
  await mvm.learn("steady", "hostile", "inbox")
  await mvm.allow("steady inbox", "hostile inbox")
}, 240_000)
afterAll(() => mvm?.stop(), 60_000)

const send = (vm: Console, text: string) => vm.run(`echo ${text} | mvm guest send inbox --wait 30s --quiet`)

interface Explanation {
  verdict: string
  code: string | null
  message: string
  checks: { ok: boolean; name: string; subject: string; expected: string; seen: string }[]
}

/** `mvm measure explain`, with the failed checks alone. */
async function explain(name: string): Promise<Explanation> {
  const { status, output } = await mvm.run("measure", "explain", name, "--json")
  const explanation = JSON.parse(output) as Explanation
  expect(status).toBe(explanation.verdict === "untrusted" ? 4 : 0)
  return { ...explanation, checks: explanation.checks.filter(({ ok }) => !ok) }
}

test(`an unchanged VM is trusted at each of ${REBOOTS} reboots in a row, and what it sends arrives`, async () => {
  for (let boot = 0; boot < REBOOTS; boot += 1) {
    const before = await mvm.show("steady")
    const shell = await mvm.console("steady")
    await shell.must("(sleep 0.2; reboot) &")
    const { verdict, reason } = await mvm.bootedAgain("steady", before)
    expect({ boot, verdict, reason }).toEqual({ boot, verdict: "trusted", reason: null })
  }
  const { status } = await send(await mvm.console("steady"), "from-steady")
  expect(status).toBe(0)
  expect(received()).toContain("from-steady\n")
}, 900_000)

describe("root of a VM that", () => {
  // The operator takes it back into grace, so that each test is about one thing.
  afterEach(async () => {
    await mvm.must("measure", "approve", "hostile", "--all", "--reason", "the test goes on")
  })

  /** What `act` runs is refused with status 4 and named, and nothing else is. */
  async function expectNamed(act: string, path: string): Promise<Explanation> {
    expect(await send(hostile, "before")).toEqual({ status: 0, output: "" })
    await hostile.must(act)
    const { status, output } = await send(hostile, "secret")
    expect(status).toBe(4)
    expect(output).toContain(path)
    const explanation = await explain("hostile")
    expect(explanation).toMatchObject({ verdict: "untrusted", code: "untrusted" })
    const named = explanation.checks.filter(({ name }) => name !== "files")
    expect(named.map(({ name, subject }) => `${name} ${subject}`)).toEqual([`file ${path}`])
    expect(received()).not.toContain("secret")
    return explanation
  }

  test("changes a program and runs it is refused with status 4, and the program is named with both digests", async () => {
    const { checks } = await expectNamed("echo '# changed' >>/usr/bin/report; report", "/usr/bin/report")
    const digest = (await hostile.must("sha256sum /usr/bin/report")).split(" ")[0]
    expect(checks[0]?.seen).toBe(`sha256:${digest}`)
    expect(checks[0]?.expected).toMatch(/^sha256:[0-9a-f]{64}$/)
  })

  test("runs a program from tmpfs is refused with status 4, and the program is named", async () => {
    await expectNamed("cp /bin/busybox /tmp/busybox; /tmp/busybox true", "/tmp/busybox")
  })

  test("runs a program from a memfd, which was never a file, is refused with status 4, and it is named", async () => {
    await expectNamed("bun /root/memfd-run.js", "memfd:hidden")
  })

  test("loads another kernel module, signed by the distributor, is refused with status 4, and it is named", async () => {
    await expectNamed("cp /root/dummy.ko /tmp/other.ko; insmod /tmp/other.ko", "/tmp/other.ko")
  })
})

describe("root of a VM, against its own vTPM:", () => {
  interface Attack {
    outcomes: Record<string, string>
    attest: string
    signature: string
  }
  let attack: Attack
  beforeAll(async () => {
    const output = await hostile.must("bun /root/tpm-attack.js")
    attack = JSON.parse(output.split("\n").at(-1)!) as Attack
  }, 120_000)

  /** By what the TPM says to it. */
  const REFUSED = {
    "clear by the platform": "TPM_RC_BAD_AUTH",
    "clear by lockout": "TPM_RC_AUTH_FAIL",
    "evict the attestation key as owner": "TPM_RC_BAD_AUTH",
    "evict the attestation key as platform": "TPM_RC_BAD_AUTH",
    "undefine the pinned key": "TPM_RC_BAD_AUTH",
    "define the pinned key anew": "TPM_RC_BAD_AUTH",
    "write the pinned key as platform": "TPM_RC_BAD_AUTH",
    "write the pinned key by its own auth": "TPM_RC_AUTH_UNAVAILABLE",
    "reset PCR 10": "TPM_RC_LOCALITY",
    "take the platform": "TPM_RC_BAD_AUTH",
    "sign with the attestation key": "TPM_RC_TICKET",
    "make a key of its own": "TPM_RC_BAD_AUTH",
  }
  for (const [title, answer] of Object.entries(REFUSED)) {
    test(`${title} is refused by the TPM`, () => {
      expect(`${title}: ${attack.outcomes[title]}`).toBe(`${title}: ${answer}`)
    })
  }

  test("none of it costs the VM its trust or its keys", async () => {
    expect(Object.keys(attack.outcomes).sort()).toEqual(Object.keys(REFUSED).sort())
    expect(await send(hostile, "still-here")).toEqual({ status: 0, output: "" })
  })

  test("an attest forged with the identity key is told from a quote", async () => {
    const { keys } = await mvm.show("hostile")
    const quote = { attest: fromHex(attack.attest), signature: fromHex(attack.signature), pcrs: [] }
    const attestationKey = fromHex(keys.attestation)
    const verify = () => verifyQuote(quote, { attestationKey, qualifyingData: new Uint8Array(32) })
    expect(verify).toThrow(expect.objectContaining({ code: "evidence_quote_signature" }))
  })

  test("suspend to memory, which would restart the TPM, is not offered", async () => {
    expect(await hostile.must("cat /sys/power/mem_sleep")).toBe("[s2idle]")
    expect((await hostile.must("cat /sys/power/state")).split(" ")).not.toContain("disk")
    const { status } = await hostile.run("echo deep >/sys/power/mem_sleep")
    expect(status).not.toBe(0)
  })

  test("PCR 10 extended by hand, so that the log no longer explains it, is broken evidence with status 4", async () => {
    await hostile.must("bun /root/tpm-extend.js 10")
    expect((await send(hostile, "secret")).status).toBe(4)
    const { code, message } = await explain("hostile")
    expect(code).toBe("evidence_log_mismatch")
    expect(message).toContain("pcr 10")
    expect(received()).not.toContain("secret")
  })
})

test("a VM whose kernel does not measure its initramfs is untrusted, and what its log lacks is named", async () => {
  const before = await mvm.show("steady")
  const whileRunning = await mvm.run("vm", "set", "steady", "--append", "rootfstype=tmpfs")
  expect(whileRunning).toMatchObject({ status: 1, errors: expect.stringContaining("steady is running") })
  await mvm.must("vm", "stop", "steady", "--force")
  await mvm.must("vm", "set", "steady", "--append", "rootfstype=tmpfs")
  await mvm.must("vm", "start", "steady")
  expect((await mvm.bootedAgain("steady", before)).verdict).toBe("untrusted")
  const { checks } = await explain("steady")
  expect(checks).toContainEqual(expect.objectContaining({ name: "required", subject: "/etc/ima/policy" }))
  expect((await send(await mvm.console("steady"), "secret")).status).toBe(4)
  expect(received()).not.toContain("secret")
}, 240_000)
