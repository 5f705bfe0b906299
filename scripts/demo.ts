/**
 * @module scripts/demo
 *
 * The demonstration itself; scripts/demo prepares what it needs. Everything is done through the commands an
 * operator has, and through the consoles of the VMs.
 */

import { Managed } from "../test/e2e/managed.ts"

const ringBytes = 512 * 1024
const startedMs = performance.now()
const keep = process.argv.includes("--keep")
let failures = 0

const mvm = await Managed.start(["--ring", String(ringBytes)])
try {
  await demo()
} catch (error) {
  failures += 1
  console.log(`FAIL  ${error instanceof Error ? error.message : String(error)}`)
  console.log(mvm.serveLog().split("\n").slice(-20).join("\n"))
} finally {
  await mvm.stop({ keep })
  if (keep) console.log(`state kept in ${mvm.state}`)
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(0)
console.log(
  failures === 0 ? `demo: all shown in ${seconds} s` : `demo: ${failures} failed after ${seconds} s`,
)
process.exitCode = failures === 0 ? 0 : 1

async function demo(): Promise<void> {
  const names = ["alpha", "beta", "gamma"] as const
  for (const name of names) {
    await mvm.vm(name, name === "gamma" ? { image: "guest-attacker", memory: "1G" } : {})
  }
  await mvm.linked(...names)
  const [alpha, beta, gamma] = [
    await mvm.console("alpha"),
    await mvm.console("beta"),
    await mvm.console("gamma"),
  ]
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
  await mvm.learn(...names)
  // The arena, which gamma has mapped: in dedicated memory it would have nothing to look into.
  await mvm.allow("alpha beta arena")

  const device = await gamma.must(
    "for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x1110 ] && echo $d; done",
  )
  const watching = gamma.run(`bun /root/arena-watch.js ${device}/resource2 ${ringBytes} /usr/bin/mvm 15`, {
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

  const receipts = await mvm.json<{ by: string; lengthBytes: number; sequence: number; digest: string }[]>(
    "audit",
    "list",
    "--kind",
    "receipt",
  )
  const receipt = receipts.at(-1)
  show(
    receipt?.by === "beta" && receipt.lengthBytes === size,
    `the audit log has the receipt: row ${receipt?.sequence}, ${receipt?.lengthBytes} bytes, digest ${receipt?.digest.slice(0, 16)}`,
  )
  const chain = await mvm.run("audit", "verify")
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
  const explained = await mvm.run("measure", "explain", "alpha")
  show(
    explained.output.includes("/usr/bin/report"),
    `mvm measure explain names it: ${explained.output.split("\n").find((text) => text.includes("/usr/bin/report")) ?? "nothing"}`,
  )
}

function show(good: boolean, text: string): void {
  if (!good) failures += 1
  console.log(`${good ? "ok   " : "FAIL "} ${text}`)
}

/** The last line that says something. */
function line(output: string): string {
  const lines = output
    .trim()
    // A terminal's line is written over and over while a command waits.
    .split(/\n|\r|\x1b\[K/)
    .filter((text) => !text.startsWith("mvm: hint: "))
  return lines.at(-1)?.replace(/^mvm: /, "") ?? ""
}
