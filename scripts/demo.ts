/**
 * @module scripts/demo
 *
 * The demonstration itself; scripts/demo prepares what it needs. Everything is done through the commands an
 * operator has, and through the consoles of the VMs.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Console } from "../test/e2e/console.ts"

const root = join(import.meta.dir, "..")
const mvm = join(root, "dist/mvm")
const state = mkdtempSync(join(tmpdir(), "mvm-demo-"))
const ringBytes = 512 * 1024
const startedMs = performance.now()
const cleanups: (() => Promise<void> | void)[] = []
let failures = 0

try {
  await demo()
} catch (error) {
  failures += 1
  console.log(`FAIL  ${error instanceof Error ? error.message : String(error)}`)
  console.log(readFileSync(join(state, "serve.log"), "utf8").split("\n").slice(-20).join("\n"))
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup()
  if (process.argv.includes("--keep")) console.log(`state kept in ${state}`)
  else rmSync(state, { recursive: true, force: true })
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(0)
console.log(
  failures === 0 ? `demo: all shown in ${seconds} s` : `demo: ${failures} failed after ${seconds} s`,
)
process.exitCode = failures === 0 ? 0 : 1

async function demo(): Promise<void> {
  await startServe()
  const names = ["alpha", "beta", "gamma"] as const
  for (const name of names) {
    const image = join(root, name === "gamma" ? "dist/guest-attacker" : "dist/guest")
    const memory = name === "gamma" ? "1G" : "768M"
    const files = ["--kernel", join(image, "vmlinuz"), "--initrd", join(image, "initramfs.cpio")]
    await must("vm", "create", name, ...files, "--memory", memory)
    await must("vm", "start", name)
  }
  for (const name of names) await must("vm", "wait", name, "--timeout", "180s")
  const [alpha, beta, gamma] = await Promise.all(names.map(openConsole))
  if (!alpha || !beta || !gamma) throw new Error("no consoles")
  const cards = await Promise.all(
    [alpha, beta].map((vm) =>
      vm.must("for d in /sys/bus/pci/devices/*; do cat $d/class; done | grep -c ^0x02 || :"),
    ),
  )
  show(
    cards.every((count) => count === "0"),
    `two VMs booted, network cards on their PCI buses: ${cards.join(" and ")}`,
  )

  await alpha.must(
    "printf '#!/bin/sh\\necho report\\n' >/usr/bin/report; chmod +x /usr/bin/report; /usr/bin/report",
  )
  for (const name of names) await must("measure", "learn", name, "--reason", "known-good boot of the demo")
  writeFileSync(
    join(state, "policy.toml"),
    '[[rule]]\nservice = "*"\nfrom = "alpha"\nto = "beta"\naction = "allow"\n',
    { mode: 0o600 },
  )
  await until(
    "the policy",
    async () => (await run("policy", "test", "default", "alpha", "beta")).status === 0,
  )

  const device = await gamma.must(
    "for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x1110 ] && echo $d; done",
  )
  const watching = gamma.run(`bun /root/arena-watch.ts ${device}/resource2 ${ringBytes} /usr/bin/mvm 15`, {
    timeoutMs: 180_000,
  })
  await Bun.sleep(4000)
  const receiving = beta.run("mvm guest recv alpha >/tmp/received", { timeoutMs: 180_000 })
  // The pause keeps the first record where it was written long enough for gamma to take it.
  const paused = "(head -c 65536 /usr/bin/mvm; sleep 8; tail -c +65537 /usr/bin/mvm)"
  const sent = await alpha.run(`${paused} | mvm guest send beta --wait 60s`, { timeoutMs: 180_000 })
  const received = await receiving
  const size = Number(await beta.must("stat -c %s /tmp/received"))
  const digests = await Promise.all([
    alpha.must("sha256sum </usr/bin/mvm", { timeoutMs: 120_000 }),
    beta.must("sha256sum </tmp/received", { timeoutMs: 120_000 }),
  ])
  show(
    sent.status === 0 && received.status === 0 && size >= 64 << 20 && digests[0] === digests[1],
    `${(size / 2 ** 20).toFixed(0)} MiB went from alpha to beta (status ${sent.status} and ${received.status}), ` +
      `sha256 ${digests[0]?.slice(0, 16)} and ${digests[1]?.slice(0, 16)}`,
  )

  const receipts = JSON.parse((await must("audit", "list", "--kind", "receipt", "--json")).trim()) as {
    by: string
    lengthBytes: number
    sequence: number
    digest: string
  }[]
  const receipt = receipts.at(-1)
  show(
    receipt?.by === "beta" && receipt.lengthBytes === size,
    `the audit log has the receipt: row ${receipt?.sequence}, ${receipt?.lengthBytes} bytes, digest ${receipt?.digest.slice(0, 16)}`,
  )
  const chain = await run("audit", "verify")
  show(chain.status === 0, `the audit chain verifies: ${chain.output.trim()}`)

  const refused = await gamma.run("echo x | mvm guest send beta")
  show(
    refused.status === 6,
    `gamma, not named in the policy, gets status ${refused.status}: ${line(refused.output)}`,
  )

  const watched = await watching
  const found = JSON.parse(line(watched.output) || "{}") as Record<string, number | boolean>
  show(
    found["detectorsWork"] === true &&
      Number(found["snapshots"]) > 0 &&
      Number(found["keysTried"]) > 1000 &&
      found["plaintextHits"] === 0 &&
      found["keyHits"] === 0,
    `gamma's root mapped ${found["mappedBytes"]} bytes of arena and took ${found["snapshots"]} snapshots of the transfer: ` +
      `${found["plaintextHits"]} finds of ${found["samples"]} plaintext samples, ${found["keyHits"]} of ${found["keysTried"]} windows were the key`,
  )

  await alpha.must("echo '# changed' >>/usr/bin/report; /usr/bin/report")
  const waiting = beta.run("timeout 15 mvm guest recv alpha", { timeoutMs: 60_000 })
  const untrusted = await alpha.run("echo x | mvm guest send beta --wait 10s")
  await waiting
  show(
    untrusted.status === 4,
    `after a program changed on alpha, send ends with status ${untrusted.status}: ${line(untrusted.output)}`,
  )
  const explained = await run("measure", "explain", "alpha")
  show(
    explained.output.includes("/usr/bin/report"),
    `mvm measure explain names it: ${explained.output.split("\n").find((text) => text.includes("/usr/bin/report")) ?? "nothing"}`,
  )
}

async function startServe(): Promise<void> {
  const log = Bun.file(join(state, "serve.log"))
  const serve = Bun.spawn([mvm, "serve", "--state", state, "--arena", "64M", "--ring", String(ringBytes)], {
    stdio: ["ignore", "ignore", log],
  })
  cleanups.push(async () => {
    for (const { name, state: vmState } of await vms()) {
      if (vmState === "running") await run("vm", "stop", name, "--force")
      await run("vm", "rm", name)
    }
    const arena = (JSON.parse((await run("status", "--json")).output) as { arena: { path: string } }).arena
      .path
    serve.kill("SIGTERM")
    await serve.exited
    rmSync(arena, { force: true })
  })
  await until("mvm serve", async () => {
    if (serve.exitCode !== null) throw new Error("mvm serve ended at its start")
    return (await run("status")).status === 0
  })
}

async function vms(): Promise<{ name: string; state: string }[]> {
  const { status, output } = await run("vm", "list", "--json")
  return status === 0 ? (JSON.parse(output) as { name: string; state: string }[]) : []
}

async function openConsole(name: string): Promise<Console> {
  const vm = await Console.connect(join(state, "run", name, "console.sock"))
  cleanups.push(() => vm.close())
  await vm.ready()
  return vm
}

async function run(...args: string[]): Promise<{ status: number; output: string }> {
  const command = Bun.spawn([mvm, ...args], {
    env: { ...process.env, MVM_STATE: state },
    stdio: ["ignore", "pipe", "pipe"],
  })
  const [output, errors] = await Promise.all([
    new Response(command.stdout).text(),
    new Response(command.stderr).text(),
  ])
  const status = await command.exited
  return { status, output: status === 0 ? output : output + errors }
}

async function must(...args: string[]): Promise<string> {
  const { status, output } = await run(...args)
  if (status !== 0) throw new Error(`mvm ${args.join(" ")}: status ${status}: ${output.trim()}`)
  return output
}

async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await done())) {
    if (performance.now() > deadline) throw new Error(`${what} did not come up`)
    await Bun.sleep(50)
  }
}

function show(good: boolean, text: string): void {
  if (!good) failures += 1
  console.log(`${good ? "ok   " : "FAIL "} ${text}`)
}

/** The last line that says something. */
function line(output: string): string {
  const lines = output
    .trim()
    .split("\n")
    .filter((text) => !text.startsWith("mvm: hint: "))
  return lines.at(-1)?.replace(/^mvm: /, "") ?? ""
}
