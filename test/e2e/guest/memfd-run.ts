/**
 * @module test/e2e/guest/memfd-run
 *
 * Runs a program that was never a file: busybox with a tail of its own, in a memfd.
 *
 *   bun memfd-run.js
 */

import { FFIType, dlopen } from "bun:ffi"
import { readFileSync, writeSync } from "node:fs"

const { symbols } = dlopen("libc.so.6", {
  memfd_create: { args: [FFIType.cstring, FFIType.u32], returns: FFIType.i32 },
})
const fd = symbols.memfd_create(Buffer.from("hidden\0"), 0)
for (const part of [readFileSync("/bin/busybox"), Buffer.from("tail")]) {
  for (let at = 0; at < part.length;) at += writeSync(fd, part, at)
}
const { exitCode } = Bun.spawnSync([`/proc/${process.pid}/fd/${fd}`, "true"], { argv0: "busybox" })
process.exitCode = exitCode ?? 1
