/**
 * @module test/e2e/doctor
 *
 * `mvm guest doctor` in real VMs that are really broken, one thing at a time: that thing is named with a remedy, all
 * else is as it was, and the exit status says so.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { Console } from "./console.ts"
import { Managed, until } from "./managed.ts"

interface Finding {
  check: string
  level: "ok" | "warn" | "fail"
  text: string
  remedy?: string
}

interface Doctored {
  status: number
  findings: Finding[]
}

let mvm: Managed
let good: Console
let bad: Console
beforeAll(async () => {
  mvm = await Managed.start()
  await mvm.vm("good")
  // A later word overrules an earlier one: the initramfs lies on tmpfs, which the first policy exempts.
  await mvm.vm("bad", { more: ["--append", "rootfstype=tmpfs"] })
  await mvm.linked("good", "bad")
  good = await mvm.console("good")
  bad = await mvm.console("bad")
}, 300_000)
afterAll(() => mvm?.stop(), 60_000)

async function doctor(vm: Console, ...words: string[]): Promise<Doctored> {
  const { status, output } = await vm.run(`mvm guest doctor --json ${words.join(" ")}`, {
    timeoutMs: 120_000,
  })
  return { status, findings: (JSON.parse(output) as { findings: Finding[] }).findings }
}

function wrong({ findings }: Doctored): string[] {
  return findings.filter(({ level }) => level !== "ok").map(({ level, check }) => `${level} ${check}`)
}

function finding({ findings }: Doctored, check: string): Finding {
  const found = findings.find((one) => one.check === check)
  if (!found) throw new Error(`nothing said of ${check}: ${JSON.stringify(findings)}`)
  return found
}

const judged = (vm: string, verdict: string) =>
  until(`${vm} to be ${verdict}`, async () => (await mvm.show(vm)).verdict === verdict)

describe("guest doctor in a VM of our image", () => {
  test("says first that there is no reference table", async () => {
    const found = await doctor(good)
    expect([found.status, wrong(found)]).toEqual([1, ["fail verdict"]])
    expect(finding(found, "verdict").remedy).toBe("on the host: mvm measure learn good")
  })

  test("has nothing to complain of once there is one", async () => {
    await mvm.learn("good")
    await judged("good", "trusted")
    const found = await doctor(good)
    expect([found.status, wrong(found)]).toEqual([0, []])
    expect(finding(found, "measuring").text).toMatch(/^\d+ entries from \/init on$/)
    expect(finding(found, "programs").text).toMatch(/^all \d+ that run were measured$/)
    expect(finding(found, "pcr bank").text).toBe("sha256 alone")
    expect(finding(found, "agent").text).toBe("linked as good")
    expect(finding(found, "memory").text).toContain("64.0 MiB")
  })

  test("leaves the VM trusted", async () => {
    await mvm.must("measure", "run", "good")
    expect((await mvm.show("good")).verdict).toBe("trusted")
  })

  test.each([
    ["a TPM that anybody may use", "chmod 666 /dev/tpmrm0", "chmod 600 /dev/tpmrm0", "fail tpm"],
    [
      "a port that anybody may use",
      "chmod 660 /dev/vport0p1; chgrp 900 /dev/vport0p1",
      "chmod 600 /dev/vport0p1",
      "fail port",
    ],
    [
      "a log that cannot be read",
      "umount /sys/kernel/security",
      "mount -t securityfs securityfs /sys/kernel/security",
      "fail measuring",
    ],
    ["a group that is not there", "mv /etc/group /etc/gone", "mv /etc/gone /etc/group", "warn group"],
    ["an agent that does not answer", "mv /run/mvm /run/gone", "mv /run/gone /run/mvm", "fail agent"],
  ])("names %s", async (_what, breaking, mending, expected) => {
    await good.must(breaking)
    try {
      const found = await doctor(good)
      expect([found.status, wrong(found)]).toEqual([expected.startsWith("fail") ? 1 : 0, [expected]])
    } finally {
      await good.must(mending)
    }
  })

  test("names a clock that is wrong", async () => {
    await good.must("date -s @$(($(date +%s) + 3600))")
    try {
      const found = await doctor(good)
      expect([found.status, wrong(found)]).toEqual([0, ["warn clock"]])
      expect(finding(found, "clock").text).toMatch(/^(59|60) m \d\d s ahead of the MVM's/)
    } finally {
      await good.must(`date -s @${Math.round(Date.now() / 1000)}`)
    }
  })

  test("names a TPM that is gone", async () => {
    await good.must("mv /dev/tpmrm0 /dev/gone")
    try {
      const found = await doctor(good)
      expect([found.status, wrong(found)]).toEqual([1, ["fail tpm"]])
      expect(finding(found, "tpm").text).toBe("no TPM device /dev/tpmrm0")
    } finally {
      await good.must("mv /dev/gone /dev/tpmrm0")
    }
  })

  test("names an MVM that is gone", async () => {
    await mvm.killServe()
    try {
      let found = await doctor(good)
      await until("the agent to miss its MVM", async () => {
        found = await doctor(good)
        return wrong(found).length > 0
      })
      expect([found.status, wrong(found)]).toEqual([1, ["fail agent"]])
    } finally {
      await mvm.startServe()
    }
  })

  test("sees unknown programs measured where it is asked to run some, which costs the VM its trust", async () => {
    await mvm.linked("good")
    const found = await doctor(good, "--probe")
    expect(finding(found, "measuring")).toMatchObject({
      level: "ok",
      text: expect.stringContaining("new programs in /dev/shm, /run, /tmp are too"),
    })
    await mvm.run("measure", "run", "good")
    expect(finding(await doctor(good), "verdict").text).toBe("the MVM does not trust what ran here")
  })
})

test("guest doctor names a boot whose initramfs was not measured", async () => {
  const found = await doctor(bad)
  expect([found.status, wrong(found)]).toEqual([1, ["fail measuring", "fail measuring", "fail verdict"]])
  const texts = found.findings.map(({ text }) => text).join("\n")
  expect(texts).toContain("the first programs of this boot were not measured")
  expect(texts).toContain("no measurement policy was loaded")
})
