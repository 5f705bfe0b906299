import { describe, expect, test } from "bun:test"
import { concat } from "../../../src/lib/bytes.ts"
import { sha256 } from "../../../src/lib/crypto.ts"
import { MvmError } from "../../../src/lib/errors.ts"
import { judge } from "../../../src/lib/health.ts"
import { GUEST_CHECKS } from "../../../src/guest/doctor/checks.ts"
import type { GuestFacts } from "../../../src/guest/doctor/facts.ts"
import { leadsTo, type ImaFacts } from "../../../src/guest/doctor/ima-facts.ts"
import { encodeImaEntry } from "../../../src/tcb/measurement/ima-encode.ts"

const IMA: ImaFacts = {
  entries: 100,
  bootAggregate: "00",
  policy: { path: "/etc/ima/ima-policy", digest: "" },
  firstProgram: "/init",
  unmeasured: [],
  running: 10,
  isInTpm: true,
}

const FACTS: GuestFacts = {
  kernel: "6.1.0-44-cloud-amd64",
  isRoot: true,
  port: { path: "/dev/vport0p1", isOthers: false },
  portDriver: true,
  tpm: {
    device: { path: "/dev/tpmrm0", isOthers: false },
    version: "2",
    banks: ["sha256"],
    provisioned: "00",
  },
  ima: IMA,
  probe: undefined,
  commandLine: [],
  memory: [
    {
      address: "0000:00:05.0",
      folder: "/sys/bus/pci/devices/0000:00:05.0",
      baseAddress: 0xf800_0000,
      lengthBytes: 1 << 24,
    },
  ],
  cacheTypes: undefined,
  lockdown: "none",
  sleep: "",
  deepestSleep: "",
  ptraceScope: "3",
  kexecDisabled: "1",
  sigEnforce: "Y",
  groupMembers: [],
  agent: {
    linked: true,
    name: "web",
    mapping: "resource2_wc of 0000:00:05.0",
    memoryBytes: 1 << 24,
    mappings: [],
    standing: { verdict: "trusted", clockAheadMs: 0 },
  },
}

function found(check: string, change: Partial<GuestFacts> = {}): string[] {
  return judge(GUEST_CHECKS, { ...FACTS, ...change })
    .filter((finding) => finding.check === check)
    .map(({ level, text }) => `${level}: ${text}`)
}

describe("the kernel", () => {
  test.each(["5.12.0", "5.15.0-91-generic", "6.1.0-44-cloud-amd64", "10.0.1"])(
    "%s is new enough",
    (kernel) => {
      expect(found("kernel", { kernel })).toEqual([`ok: linux ${kernel}`])
    },
  )

  test.each(["3.10.0-1160.el7.x86_64", "4.19.0", "5.10.0-28-amd64", "5.4.0"])("%s is too old", (kernel) => {
    expect(found("kernel", { kernel })[0]).toStartWith(`fail: linux ${kernel} is older than 5.12`)
  })
})

describe("PCR 10", () => {
  const entries = ["/init", "/usr/bin/mvm", "/usr/bin/perl"].map((path) =>
    encodeImaEntry({ path, sha256: sha256(new TextEncoder().encode(path)) }),
  )
  const log = concat(...entries.map(({ bytes }) => bytes))
  const after = (count: number): string =>
    entries
      .slice(0, count)
      .reduce<Uint8Array>((pcr, { extendDigest }) => sha256(pcr, extendDigest), new Uint8Array(32))
      .toHex()
      .toUpperCase()

  test("is where the log, or a beginning of it, leads", () => {
    expect([0, 1, 2, 3].map((count) => leadsTo(log, after(count)))).toEqual([true, true, true, true])
  })

  test("is elsewhere when an entry is missing, or the log is another's", () => {
    expect(leadsTo(log.subarray(entries[0]!.bytes.length), after(3))).toBe(false)
    expect(leadsTo(log, "AB".repeat(32))).toBe(false)
    expect(leadsTo(log, "no digest")).toBe(false)
  })

  test("is compared with the log where the kernel shows it", () => {
    expect(found("pcr 10")[0]).toStartWith("ok: ")
    expect(found("pcr 10", { ima: { ...IMA, isInTpm: false } })[0]).toStartWith("fail: the log does not lead")
    expect(found("pcr 10", { ima: { ...IMA, isInTpm: undefined } })).toEqual([])
    expect(found("pcr 10", { ima: new MvmError("setup", "none") })).toEqual([])
  })
})

describe("a new program", () => {
  const measuring = (ran: string[], unmeasured: string[]): string =>
    found("measuring", { probe: { ran, unmeasured } }).join("; ")

  test("is said to be measured only where one ran", () => {
    expect(measuring(["/run"], [])).not.toContain("no new program")
    expect(measuring([], [])).toContain("warn: no new program could be run on tmpfs")
    expect(measuring(["/run"], ["/run"])).toContain("fail: a program run from /run was not measured")
  })
})

describe("the cache kind of the mapping", () => {
  test("is the kernel's word where it can be read", () => {
    const cacheTypes = [
      "PAT memtype list:",
      "PAT: [mem 0x00000000bffe0000-0x00000000bffe1000] write-back",
      "PAT: [mem 0x00000000f8000000-0x00000000f9000000] write-combining",
    ].join("\n")
    expect(found("cache", { cacheTypes })).toEqual(["ok: the kernel maps 0000:00:05.0 write-combining"])
  })

  test.each([
    ["resource2", 0xf800_0000, "uncached"],
    ["resource2_wc", 0xf800_0000, "write-combining"],
    ["/dev/mem", 0xf800_0000, "uncached"],
    ["/dev/mem", 2 ** 33, "write-back"],
  ])("follows else from the way and the place: %s at %d", (how, baseAddress, kind) => {
    const agent = { ...(FACTS.agent as object), mapping: `${how} of 0000:00:05.0` } as GuestFacts["agent"]
    const memory = FACTS.memory.map((device) => ({ ...device, baseAddress }))
    expect(found("cache", { agent, memory })[0]).toStartWith(`ok: ${how} maps 0000:00:05.0 ${kind};`)
  })

  test("is nobody's where nothing is mapped", () => {
    expect(found("cache", { agent: { ...(FACTS.agent as object), mapping: "none: x" } as never })).toEqual([])
  })
})

test("shared memory is slow beside other memory of the same machine, not by itself", () => {
  const said = (rates: { readMbS: number; ordinaryMbS: number }): string | undefined => {
    const probe = {
      device: "0000:00:05.0",
      way: "resource2_wc" as const,
      writeMbS: 5000,
      problem: null,
      ...rates,
    }
    const agent = { ...FACTS.agent, mappings: [probe] } as GuestFacts["agent"]
    return judge(GUEST_CHECKS, { ...FACTS, agent }).find(({ check }) => check === "memory")?.level
  }
  expect(said({ readMbS: 6000, ordinaryMbS: 9000 })).toBe("ok")
  // Emulated, and the processor was another's for most of the time.
  expect(said({ readMbS: 150, ordinaryMbS: 200 })).toBe("ok")
  expect(said({ readMbS: 300, ordinaryMbS: 9000 })).toBe("warn")
})
