import { describe, expect, test } from "bun:test"
import { statSync } from "node:fs"
import { join } from "node:path"
import { HANG_MS, hostForFile } from "./host.ts"

const host = hostForFile({})

/** Whether openssl, which knows nothing of us, accepts the certificate under that root. */
async function accepts(root: string, chain: string, certificate: string): Promise<boolean> {
  const child = Bun.spawn(["openssl", "verify", "-CAfile", root, "-untrusted", chain, certificate], {
    stdio: ["ignore", "ignore", "ignore"],
  })
  return (await child.exited) === 0
}

describe("the certificates of a vTPM", () => {
  test(
    "chain to the root of the host's CA and name the VM, for anybody offline",
    async () => {
      await host().must("vm", "create", "c", "--local", "--certificate")
      const { uuid } = await host().json<{ uuid: string }>("vm", "show", "c")
      const root = host().file("root.pem", await host().must("vm", "certificate", "c", "--root"))
      const chain = host().file("chain.pem", await host().must("vm", "certificate", "c", "--chain"))
      for (const kind of ["rsa2048", "secp384r1"]) {
        const pem = await host().must("vm", "certificate", "c", "--key", kind)
        const file = host().file(`${kind}.pem`, pem)
        expect(await accepts(root, chain, file)).toBe(true)
        const shown = Bun.spawn(["openssl", "x509", "-in", file, "-noout", "-subject"], { stdout: "pipe" })
        expect(await new Response(shown.stdout).text()).toContain(uuid)
        await shown.exited
      }
      expect(statSync(join(host().state, "ca")).mode & 0o777).toBe(0o700)
    },
    HANG_MS,
  )

  test("of another host's CA are not accepted under that root", async () => {
    const other = join(host().folder, "other-root.pem")
    const made = Bun.spawn(
      ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"].concat([
        "-keyout",
        join(host().folder, "other.key"),
        "-out",
        other,
        "-subj",
        "/CN=other",
        "-days",
        "1",
      ]),
      { stdio: ["ignore", "ignore", "ignore"] },
    )
    expect(await made.exited).toBe(0)
    const chain = host().file(
      "own-chain.pem",
      await host().must("vm", "certificate", "c", "--key", "rsa2048"),
    )
    expect(await accepts(other, chain, chain)).toBe(false)
  })

  test("are said to be missing where the vTPM was made without", async () => {
    await host().must("vm", "create", "d", "--local")
    const { status, stderr } = await host().run("vm", "certificate", "d")
    expect([status, stderr.includes("without certificates")]).toEqual([2, true])
  })
})
