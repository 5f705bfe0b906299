import { expect, test } from "bun:test"
import { HANG_MS, hostForFile } from "./host.ts"

const host = hostForFile({ members: ["a", "b", "c"] })

/** What is sent to c goes to `target`; nothing else is allowed. */
function redirected(target: string, comment: string): string {
  const rule = ['service = "*"', 'from = "a"', 'to = "c"', `target = "${target}"`, `comment = "${comment}"`]
  return ["[[rule]]", ...rule, 'action = "allow"', 'measurement = ["kernel", "agent"]', ""].join("\n")
}

test(
  "a redirected channel outlives a policy that redirects as before, and ends with one that does not",
  async () => {
    await host().policy(redirected("b", "first"), "a", "c", "allow")
    const recv = await host().recv("b", undefined)
    const send = host().send("a", "c", "pipe")
    const stdin = send.process.stdin as Bun.FileSink
    stdin.write(new Uint8Array([1]))
    void stdin.flush()
    await host().until("the channel", async () => (await host().status()).channels === 1)
    const inForce = (comment: string): Promise<void> =>
      host().until(`the policy ${comment}`, async () => {
        const { stdout } = await host().run("policy", "test", "default", "a", "c")
        return stdout.includes(`(${comment})`)
      })
    host().writePolicy(redirected("b", "second"))
    await inForce("second")
    expect((await host().status()).channels).toBe(1)
    expect(await host().audit("revoke")).toEqual([])
    host().writePolicy(redirected("a", "third"))
    await inForce("third")
    expect([await send.over(), await recv.over()]).toEqual([7, 7])
    await host().free()
  },
  HANG_MS,
)
