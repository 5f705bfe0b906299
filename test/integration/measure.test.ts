import { describe, expect, test } from "bun:test"
import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto"
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { HANG_MS, hostForFile, rule, ALLOW_ALL } from "./host.ts"

const host = hostForFile({ members: ["a", "b"] })

interface Check {
  name: string
  ok: boolean
  subject: string
  message: string
  approve?: string
}

interface Explanation {
  verdict: string
  code: string | null
  message: string | null
  checks: Check[]
}

interface Reference {
  path: string
  digest: string
  required: boolean
  source: string
}

/** One transfer from a to b; the statuses of both ends. */
async function transfer(...words: string[]): Promise<number[]> {
  const recv = await host().recv("b", undefined)
  const send = host().send("a", "b", new Uint8Array([1]), ...words)
  const sent = await send.over()
  if (sent !== 0) recv.kill("SIGTERM")
  return [sent, await recv.over()]
}

/** The id of the newest granted channel. */
async function lastChannel(): Promise<string> {
  return String((await host().audit("grant")).at(-1)!["channel"])
}

async function explain(name: string): Promise<Explanation> {
  const { stdout } = await host().run("measure", "explain", name, "--json")
  return JSON.parse(stdout) as Explanation
}

/** Another program than those that were learnt: the same executable with a byte behind its end. */
function otherProgram(name: string): string {
  const path = join(host().folder, name)
  copyFileSync(host().mvm, path)
  writeFileSync(path, new Uint8Array([10]), { flag: "a" })
  chmodSync(path, 0o755)
  return path
}

describe("a program that is not among the reference values", () => {
  test(
    "is refused with status 4, named exactly, and allowed by the command that explain prints",
    async () => {
      const program = otherProgram("other")
      const recv = await host().recv("b", undefined)
      const { status } = await host().runWith({ program }, "guest", "send", "b", "--local", "a")
      expect(status).toBe(4)
      recv.kill("SIGTERM")
      await recv.over()
      const { verdict, code, checks } = await explain("a")
      expect({ verdict, code }).toEqual({ verdict: "untrusted", code: "untrusted" })
      expect(checks[0]).toMatchObject({ name: "file", ok: false, subject: program })
      const diff = await host().json<{ seen: Reference[] }>("measure", "diff", "a")
      expect(diff.seen.map((entry) => entry.path)).toEqual([program])
      const words = checks[0]!.approve!.split(" ")
      expect(words.shift()).toBe("mvm")
      await host().must(...words, "--reason", "an upgrade")
      expect((await explain("a")).verdict).toBe("trusted")
      const [row] = await host().audit("measure_approve")
      expect(row).toMatchObject({ vm: "a", reason: "an upgrade", approvedCount: 1 })
      expect(await transfer()).toEqual([0, 0])
    },
    HANG_MS * 2,
  )

  test(
    "is untrusted again when the value is removed, and passed over when its path is excluded",
    async () => {
      const program = join(host().folder, "other")
      await host().must("measure", "remove", "a", program, "--reason", "no longer")
      expect((await explain("a")).checks[0]).toMatchObject({ subject: program, ok: false })
      await host().must("measure", "exclude", "a", `${host().folder}/oth*`, "--reason", "plugins")
      expect((await explain("a")).verdict).toBe("trusted")
      await host().must("measure", "exclude", "a", `${host().folder}/oth*`, "--remove")
      expect((await explain("a")).verdict).toBe("untrusted")
      await host().must("measure", "approve", "a", "--all")
      expect((await explain("a")).verdict).toBe("trusted")
    },
    HANG_MS,
  )
})

describe("reference values as files", () => {
  test("what is exported is imported again without a change", async () => {
    const manifest = await host().must("measure", "export", "a")
    const path = host().file("a.manifest", manifest)
    await host().must("measure", "import", "a", path, "--replace", "--reason", "from the image")
    expect(await host().must("measure", "export", "a")).toBe(manifest)
    expect((await explain("a")).verdict).toBe("trusted")
  })

  test("a malformed manifest is refused whole with the line, and the values in force stay", async () => {
    const before = await host().must("measure", "export", "a")
    const path = host().file("bad.manifest", `${before}not a line\n`)
    const { status, stderr } = await host().run("measure", "import", "a", path, "--replace")
    expect(status).toBe(2)
    expect(stderr).toContain(`reference file line ${before.split("\n").length}: `)
    expect(await host().must("measure", "export", "a")).toBe(before)
  })

  test("a manifest for the log of a kernel is refused where the agent keeps it", async () => {
    const text = (await host().must("measure", "export", "a")).replace(
      "measurement: agent",
      "measurement: kernel",
    )
    const { status } = await host().run("measure", "import", "a", host().file("kernel.manifest", text))
    expect(status).toBe(2)
  })

  test("a sha256sum listing and a directory tree are imported as well", async () => {
    const root = join(host().folder, "image/usr/bin")
    mkdirSync(root, { recursive: true })
    writeFileSync(join(root, "tool"), "#!/bin/sh\n", { mode: 0o755 })
    writeFileSync(join(root, "notes"), "no program", { mode: 0o644 })
    await host().must("measure", "import", "b", "--tree", join(host().folder, "image"), "--reason", "image")
    const sums = `${"ab".repeat(32)}  ./usr/bin/listed\n`
    await host().must("measure", "import", "b", host().file("sums", sums), "--format", "sha256sum")
    const values = await host().json<Reference[]>("measure", "show", "b")
    const imported = values.filter((value) => value.source === "import").map((value) => value.path)
    expect(imported.sort()).toEqual(["/usr/bin/listed", "/usr/bin/tool"])
    await host().must("measure", "remove", "b", "/usr/bin/listed")
    await host().must("measure", "remove", "b", "/usr/bin/tool")
    rmSync(join(host().folder, "image"), { recursive: true })
  })

  test("with a signing key configured only signed manifests count", async () => {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519")
    const other = generateKeyPairSync("ed25519")
    const folder = join(host().state, "reference-keys")
    mkdirSync(folder, { mode: 0o700 })
    const pem = publicKey.export({ format: "pem", type: "spki" }) as string
    writeFileSync(join(folder, "release.pem"), pem, { mode: 0o600 })
    const manifest = await host().must("measure", "export", "a")
    const file = host().file("signed", manifest)
    const signature = (key: ReturnType<typeof createPrivateKey>): string => {
      return host().file("signed.sig", sign(null, Buffer.from(manifest), key))
    }
    const importing = (...words: string[]): Promise<{ status: number; stdout: string }> => {
      return host().run("measure", "import", "a", file, ...words)
    }
    expect((await importing()).status).toBe(5)
    expect((await importing("--signature", signature(other.privateKey))).status).toBe(5)
    const otherPem = host().file(
      "other.pem",
      other.publicKey.export({ format: "pem", type: "spki" }) as string,
    )
    expect((await importing("--signature", signature(other.privateKey), "--key", otherPem)).status).toBe(5)
    const good = await importing("--signature", signature(privateKey))
    expect([good.status, good.stdout.includes("signed by")]).toEqual([0, true])
    expect((await host().audit("measure_import")).at(-1)).toHaveProperty("signedBy")
    rmSync(folder, { recursive: true })
  })
})

describe("evidence of a decision", () => {
  test("is explained by the beginning of the channel's id, with both ends judged again", async () => {
    expect(await transfer()).toEqual([0, 0])
    const channel = await lastChannel()
    const explained = await host().json<{
      channel: string
      problem: null
      ends: { vm: string; checks: Check[] }[]
    }>("measure", "explain", channel.slice(0, 12))
    expect(explained).toMatchObject({ channel, problem: null })
    expect(explained.ends.map((end) => end.vm)).toEqual(["a", "b"])
    for (const end of explained.ends) {
      expect(end.checks.length).toBeGreaterThan(2)
      expect(end.checks.every((check) => check.ok)).toBe(true)
    }
  })

  test("is exported and verified without an MVM, by its key", async () => {
    const channel = await lastChannel()
    const file = host().file("decision.json", await host().must("measure", "evidence", channel))
    const { mvmKey } = JSON.parse(readFileSync(file, "utf8")) as { mvmKey: string }
    const elsewhere = (...words: string[]): Promise<{ status: number; stderr: string; stdout: string }> => {
      return host().run("measure", "verify", file, ...words, "--state", join(host().folder, "nowhere"))
    }
    const verified = await host().run("measure", "verify", file, "--key", mvmKey, "--json")
    expect(verified.status).toBe(0)
    expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, channel, ends: [{ vm: "a" }, { vm: "b" }] })
    // The command has no MVM to ask, so it knows no state directory.
    expect((await elsewhere()).status).toBe(2)
    const unnamed = await host().run("measure", "verify", file)
    expect([unnamed.status, unnamed.stderr.includes("warning")]).toEqual([0, true])
    const wrong = `04${"11".repeat(64)}`
    expect((await host().run("measure", "verify", file, "--key", wrong)).status).toBe(4)
  })

  test("fails with status 4 and the reason when anything in it was changed", async () => {
    const text = await host().must("measure", "evidence", "a")
    const bundle = JSON.parse(text) as { body: string; logs: { measurements: string }[]; mvmKey: string }
    const cut = structuredClone(bundle)
    const log = Buffer.from(cut.logs[0]!.measurements, "base64")
    cut.logs[0]!.measurements = log.subarray(0, log.length - 1).toString("base64")
    const verdict = { ...bundle, body: bundle.body.replace('"verdict":"trusted"', '"verdict":"untrusted"') }
    const cases: [unknown, string][] = [
      [cut, "evidence_log_mismatch"],
      [verdict, "signature"],
      [{ ...bundle, references: {} }, "evidence_malformed"],
      [{ ...bundle, logs: [] }, "evidence_malformed"],
    ]
    for (const [changed, code] of cases) {
      const file = host().file("changed.json", JSON.stringify(changed))
      const { status, stderr } = await host().run("measure", "verify", file, "--key", bundle.mvmKey)
      expect([status, stderr.split(":")[1]?.trim()]).toEqual([4, code])
    }
    const good = host().file("good.json", text)
    expect((await host().run("measure", "verify", good, "--key", bundle.mvmKey)).status).toBe(0)
  })

  test(
    "outlives the MVM's process",
    async () => {
      const channel = await lastChannel()
      expect(await host().stopServe()).toBe(0)
      await host().serve()
      for (const name of ["a", "b"]) await host().linked(name)
      expect(await host().json<object>("measure", "explain", channel.slice(0, 8))).toMatchObject({
        channel,
        problem: null,
      })
      expect(await transfer()).toEqual([0, 0])
    },
    HANG_MS,
  )
})

describe("a policy that names programs", () => {
  test(
    "admits the program by path and digest alone",
    async () => {
      const values = await host().json<Reference[]>("measure", "show", "a")
      const digest = values.find((value) => value.path === host().mvm)!.digest
      const named = (path: string, hex: string): string => {
        return rule(
          'service = "*"',
          'from = "*"',
          'to = "*"',
          `programs = [{ path = "${path}", digest = "${hex}" }]`,
        )
      }
      await host().policy(named(host().mvm, "00".repeat(32)), "a", "b", "deny")
      expect((await transfer())[0]).toBe(6)
      host().writePolicy(named(host().mvm, digest))
      // Without a digest the test asks with the content that the VM was seen to run.
      await host().until("the rule", async () => {
        const { status } = await host().run("policy", "test", "default", "a", "b", "--program", host().mvm)
        return status === 0
      })
      expect(await transfer()).toEqual([0, 0])
      const other = await host().run("policy", "test", "default", "a", "b", "--program", "/bin/sh", "--steps")
      expect([other.status, other.stdout.includes("program does not match")]).toEqual([6, true])
      await host().policy(ALLOW_ALL, "a", "b", "allow")
    },
    HANG_MS,
  )
})

describe("what is set of a VM", () => {
  test(
    "its period and tags take effect while it runs, and a group's values count for every VM with the tag",
    async () => {
      await host().must("vm", "set", "a", "--tag", "pair", "--remeasure", "2s", "--violations", "warn")
      await host().must("vm", "set", "b", "--tag", "pair")
      const shown = await host().json<{ tags: string[]; config: Record<string, unknown> }>("vm", "show", "a")
      expect(shown).toMatchObject({ tags: ["pair"], config: { remeasureSeconds: 2, violations: "warn" } })
      expect(await host().must("measure", "export", "a")).toContain("# violations: warn")

      // Without values of their own both live on the group's.
      await host().must("measure", "learn", "a", "--group", "pair", "--reason", "one image for both")
      await host().must("measure", "learn", "b", "--group", "pair")
      for (const name of ["a", "b"]) await host().must("measure", "remove", name, "--all")
      expect(await host().json<Reference[]>("measure", "show", "a")).toEqual([])
      expect(await transfer()).toEqual([0, 0])
      await host().must("vm", "set", "b", "--untag", "pair")
      expect((await transfer())[0]).toBe(4)
      await host().must("measure", "learn", "b")
      await host().must("measure", "learn", "a")
      await host().must("vm", "set", "a", "--untag", "pair")
      expect((await explain("a")).verdict).toBe("trusted")
    },
    HANG_MS,
  )

  test("values of a group that the VM is not in are refused", async () => {
    const { status, stderr } = await host().run("measure", "learn", "a", "--group", "pair")
    expect([status, stderr.includes("mvm vm set a --tag pair")]).toEqual([2, true])
  })
})

describe("drift", () => {
  test(
    "ends a running channel within the period, with status 7 at both ends and the file at the operator",
    async () => {
      const recv = await host().recv("b", undefined)
      const send = host().send("a", "b", "pipe")
      ;(send.process.stdin as Bun.FileSink).write(new Uint8Array([1]))
      void (send.process.stdin as Bun.FileSink).flush()
      await host().until("the channel", async () => (await host().status()).channels === 1)
      const program = otherProgram("drifted")
      // It only has to be seen by the agent; what it asks for does not matter.
      await host().runWith({ program }, "guest", "status", "--local", "a")
      expect([await send.over(), await recv.over()]).toEqual([7, 7])
      expect(send.stderr()).not.toContain(program)
      expect(recv.stderr()).not.toContain(program)
      expect((await explain("a")).message).toContain(program)
      await host().must("measure", "approve", "a", program)
      await host().free()
    },
    HANG_MS,
  )
})
