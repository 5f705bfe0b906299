/**
 * @module test/faults/sanitised.test
 *
 * What a guest sees of a host that fails: the disk full, files of the state gone or something else, the policy broken.
 * The log of mvm serve names what failed and where; nothing that guests' commands print or their agents log does. The
 * guests find their sockets in a folder of their own, so whatever names the host's folders came over the link.
 */

import { afterEach, expect, test } from "bun:test"
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ALLOW_ALL, TestHost, type Outcome } from "../integration/host.ts"
import { LinkProxy } from "../integration/link-proxy.ts"
import { SmallDisk } from "./small-disk.ts"

const POLICY = ALLOW_ALL.replace("action", "deposit = true\naction")
/** A line of a stack trace, or a place in a source. */
const TRACE = /^\s+at .+[:(]|\.[tj]s:\d+/m

let host: TestHost
let disk: SmallDisk
let proxy: LinkProxy

async function begin(): Promise<void> {
  disk = new SmallDisk("24m")
  proxy = new LinkProxy(() => host.state)
  host = await TestHost.start({
    state: disk.folder("state"),
    guestState: proxy.guestState,
    onMember: proxy.add,
  })
  for (const name of ["a", "b"]) await host.member(name)
  await host.policy(POLICY, "a", "b", "allow")
}

afterEach(async () => {
  try {
    await host?.end()
  } finally {
    proxy?.close()
    disk?.remove()
  }
}, 60_000)

/** Every word that the MVM can have an answer to, from one guest to the other. @returns what they printed */
async function everyCommand(): Promise<Outcome[]> {
  const said: Outcome[] = []
  const note = async (...words: string[]): Promise<void> => {
    const [verb = "", ...rest] = words
    said.push(await host.run("guest", verb, "--local", "a", ...rest))
  }
  const file = host.file("content", new Uint8Array(200_000).fill(7))
  const receiver = host.spawn(["guest", "recv", "--local", "b"], { stdout: "pipe" })
  await Promise.race([receiver.says("waiting for"), receiver.process.exited]).catch(() => {})
  await note("send", "b", file, "--wait", "1s")
  await note("send", "b", file, "--wait", "1s", "--digest", "sha256")
  receiver.kill("SIGINT")
  said.push({ status: await receiver.over(), stdout: "", stderr: receiver.stderr() })
  await note("deposit", "b", file)
  said.push(await host.run("guest", "recv", "--deposited", "--local", "b"))
  await note("recv", "b", "--request")
  await note("exec", "b", "service")
  await note("ping", "b", "--count", "1")
  await note("peers")
  await note("status")
  await note("doctor")
  return said
}

/** What the agents have logged so far. */
function agentsSaid(): string {
  return ["a", "b"].map((name) => readFileSync(host.agentLog(name), "utf8")).join("")
}

/** All that the guests have said names nothing of the host. */
function namesNothing(commands: readonly Outcome[]): void {
  const said = [...commands.flatMap(({ stdout, stderr }) => [stdout, stderr]), agentsSaid()].join("\n")
  expect(said.length).toBeGreaterThan(1000)
  for (const path of [disk.path, "/dev/shm", "mvm.db", "audit.head", "policy.toml"]) {
    expect(lineWith(said, path)).toBeUndefined()
  }
  expect(said.split("\n").filter((line) => TRACE.test(line))).toEqual([])
}

function lineWith(text: string, word: string): string | undefined {
  return text.split("\n").find((line) => line.includes(word))
}

/** A command of the guests failed at the host's fault, and the operator can read at which. */
function failed(commands: readonly Outcome[]): void {
  expect(commands.some(({ status }) => status === 1)).toBe(true)
  expect(lineWith(host.log(), disk.path)).toBeDefined()
}

test("a full disk is no more than no space to a guest", async () => {
  await begin()
  disk.fill()
  const said = await everyCommand()
  failed(said)
  namesNothing(said)
  disk.empty()
}, 120_000)

test("state that is gone, or is something else, is no more than a failure to a guest", async () => {
  await begin()
  for (const name of ["deposits", "evidence"]) {
    rmSync(join(host.state, name), { recursive: true, force: true })
    writeFileSync(join(host.state, name), "")
  }
  rmSync(join(host.state, "audit.head"))
  const kept = readdirSync(host.state).filter((name) => name.startsWith("mvm.db"))
  expect(kept).not.toEqual([])
  for (const name of kept) rmSync(join(host.state, name))
  const said = await everyCommand()
  failed(said)
  namesNothing(said)
}, 120_000)

test("a policy that is broken is no more than a refusal to a guest", async () => {
  await begin()
  host.writePolicy(`${POLICY}\n[[rule]]\nfrom = /etc/secret\n`)
  await host.until("the broken policy", async () => (await host.status()).policy.state === "broken")
  const said = await everyCommand()
  expect(said.some(({ status }) => status === 6)).toBe(true)
  namesNothing(said)
}, 120_000)
