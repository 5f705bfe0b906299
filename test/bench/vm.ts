/**
 * @module bench/vm
 *
 * Two real VMs: 64 MiB over a channel in dedicated memory and in the arena, beside one thread of the cipher inside a
 * VM, and beside socat over TLS on a virtio-net link between the same two VMs; and what opening a channel takes. Under
 * emulation the cipher is slow; the ratios are what counts.
 */

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Managed } from "../e2e/managed.ts"
import type { Console } from "../e2e/console.ts"
import { figure, ratios, type Bench } from "./measure.ts"
import { freePort, run } from "./tls-peer.ts"
import { measureOpens, openFigures, type OpenRows } from "./vm-open.ts"

const MIB = 64
const LENGTH_BYTES = MIB * 2 ** 20
const TIMEOUT_MS = 300_000

export const bench: Bench = async ({ rounds, note }) => {
  await run([join(import.meta.dir, "../../scripts/guest-image"), "--quiet"])
  await run([join(import.meta.dir, "../../scripts/bench-image"), "--quiet"])
  using link = new NetworkLink()
  const metrics = join(link.directory, "metrics.sock")
  const managed = await Managed.start(["--arena", "256M", "--metrics", `unix:${metrics}`])
  try {
    for (const name of ["left", "right"]) await managed.vm(name, { image: "guest-bench", memory: "1G" })
    await managed.linked("left", "right")
    const [left, right] = await Promise.all([managed.console("left"), managed.console("right")])
    await prepare(left, right)
    await managed.learn("left", "right")
    note("vm: two VMs are up")
    const rows = { ours: [] as number[], arena: [] as number[], cipher: [] as number[], tls: [] as number[] }
    const opens: OpenRows = { arena: [], pooled: [], plugged: [] }
    for (let round = 0; round < rounds; round += 1) {
      await measureOpens({ managed, left, right, metrics }, opens)
      rows.ours.push(await throughChannel(left, right))
      await managed.allow("left right arena")
      rows.arena.push(await throughChannel(left, right))
      rows.cipher.push(await cipherAlone(left))
      rows.tls.push(await throughTls(left, right))
      note(`vm: round ${round + 1} of ${rounds}`)
    }
    return [
      ...openFigures(opens),
      figure("vm.channel_mb_s", "MB/s", rows.ours.map(megabytes)),
      figure("vm.arena_mb_s", "MB/s", rows.arena.map(megabytes)),
      figure("vm.cipher_mb_s", "MB/s", rows.cipher.map(megabytes)),
      figure("vm.socat_tls_mb_s", "MB/s", rows.tls.map(megabytes)),
      figure("vm.vs_cipher", "", ratios(rows.ours, rows.cipher), "at least 0.6"),
      figure("vm.vs_socat_tls", "", ratios(rows.ours, rows.tls), "at least 1.2"),
    ]
  } finally {
    await managed.stop()
    link[Symbol.dispose]()
  }
}

/** A virtio-net card in each VM and a socket between them, by a wrapper in front of QEMU. */
class NetworkLink implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "mvm-bench-net-"))
  readonly #path = process.env["PATH"] ?? ""

  constructor() {
    const port = freePort()
    const qemu = Bun.which("qemu-system-x86_64") ?? "qemu-system-x86_64"
    const card = (mac: number, socket: string): string =>
      `-netdev socket,id=bench,${socket} -device virtio-net-pci,netdev=bench,mac=52:54:00:00:00:0${mac}`
    const wrapper = join(this.directory, "qemu-system-x86_64")
    const script = [
      "#!/bin/sh",
      'case "$*" in',
      `  *guest=left,*) exec ${qemu} "$@" ${card(1, `listen=127.0.0.1:${port}`)} ;;`,
      `  *guest=right,*) exec ${qemu} "$@" ${card(2, `connect=127.0.0.1:${port}`)} ;;`,
      `  *) exec ${qemu} "$@" ;;`,
      "esac",
    ]
    writeFileSync(wrapper, `${script.join("\n")}\n`)
    chmodSync(wrapper, 0o755)
    process.env["PATH"] = `${this.directory}:${this.#path}`
  }

  [Symbol.dispose](): void {
    process.env["PATH"] = this.#path
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Everything that will run has run once, so that it is learnt and its first hash is paid for. */
async function prepare(left: Console, right: Console): Promise<void> {
  const certificate = certificatePem()
  for (const [vm, address] of [
    [left, "10.1.0.1"],
    [right, "10.1.0.2"],
  ] as const) {
    await vm.must(`ifconfig eth0 ${address} netmask 255.255.255.0 up`)
    await vm.must("socat -V >/dev/null; bun --version; mvm --version; nc -h 2>/dev/null || :", {
      timeoutMs: TIMEOUT_MS,
    })
    await vm.must(`cat >/root/pem <<'END'\n${certificate}END`)
  }
  await left.must(`head -c ${LENGTH_BYTES} /dev/urandom >/tmp/file`, { timeoutMs: TIMEOUT_MS })
}

function certificatePem(): string {
  const request = [
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
  ]
  const made = Bun.spawnSync(["openssl", ...request, "-subj", "/CN=vm", "-keyout", "-", "-out", "-"])
  return made.stdout.toString()
}

/** Bytes a second. */
async function throughChannel(left: Console, right: Console): Promise<number> {
  const receiving = right.must("mvm guest recv left --quiet >/dev/null", { timeoutMs: TIMEOUT_MS })
  return timed(async () => {
    await left.must("mvm guest send right /tmp/file --wait 60s --quiet", { timeoutMs: TIMEOUT_MS })
    await receiving
  })
}

/** One thread of the cipher inside the VM. The console may show more than the program printed. */
async function cipherAlone(vm: Console): Promise<number> {
  const output = await vm.must("bun /root/cipher.ts", { timeoutMs: TIMEOUT_MS })
  const rate = output.trim().split(/\s+/).map(Number).findLast(Number.isFinite)
  if (rate === undefined) throw new Error(`the cipher's rate is missing: ${output}`)
  return rate
}

async function throughTls(left: Console, right: Console): Promise<number> {
  const listen =
    "OPENSSL-LISTEN:4433,reuseaddr,cert=/root/pem,key=/root/pem,verify=0,openssl-min-proto-version=TLS1.3"
  const receiving = right.must(`socat -u -b 262144 ${listen} OPEN:/dev/null`, { timeoutMs: TIMEOUT_MS })
  const connect = "OPENSSL:10.1.0.2:4433,verify=0,openssl-min-proto-version=TLS1.3"
  // The listener may not be there yet.
  const send = `for try in 1 2 3 4 5 6 7 8 9; do socat -u -b 262144 OPEN:/tmp/file ${connect} 2>/dev/null && break; sleep 0.1; done`
  return timed(async () => {
    await left.must(send, { timeoutMs: TIMEOUT_MS })
    await receiving
  })
}

async function timed(work: () => Promise<void>): Promise<number> {
  const start = performance.now()
  await work()
  return LENGTH_BYTES / ((performance.now() - start) / 1000)
}

function megabytes(bytesPerSecond: number): number {
  return bytesPerSecond / 1e6
}
