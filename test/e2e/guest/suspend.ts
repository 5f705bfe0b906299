/**
 * @module test/e2e/guest/suspend
 *
 * Suspends the machine to memory without asking the kernel: SLP_TYP 1 and SLP_EN into the chipset's own register, whose
 * port the firmware's tables name. That S3 is not offered there keeps nobody from writing it.
 *
 *   bun suspend.js
 *
 * @spec ACPI 6.4 §4.8.3.2.1 (PM1 control registers), §5.2.9 (FADT)
 */

import { CFunction, FFIType, dlopen, type Pointer, ptr, read } from "bun:ffi"
import { readFileSync } from "node:fs"

/** Where the FADT has the ports of PM1a's events and control. */
const PM1A_EVT_BLK = 56
const PM1A_CNT_BLK = 64
/** The timer's alarm wakes the machine. */
const RTC_EN = 1 << 10
const SLP_TYP_S3 = 1 << 10
const SLP_TYP_MASK = 7 << 10
const SLP_EN = 1 << 13

const PAGE = 4096
const PROT_READ_WRITE_EXEC = 7
const MAP_PRIVATE_ANONYMOUS = 0x22

/** edi is the port, esi the value. */
const OUT = [0x89, 0xfa, 0x89, 0xf0, 0x66, 0xef, 0xc3] // mov edx, edi; mov eax, esi; out dx, ax; ret
const IN = [0x89, 0xfa, 0x31, 0xc0, 0x66, 0xed, 0xc3] // mov edx, edi; xor eax, eax; in ax, dx; ret

const { symbols } = dlopen("libc.so.6", {
  iopl: { args: [FFIType.i32], returns: FFIType.i32 },
  memcpy: { args: [FFIType.ptr, FFIType.ptr, FFIType.u64], returns: FFIType.ptr },
  mmap: {
    args: [FFIType.ptr, FFIType.u64, FFIType.i32, FFIType.i32, FFIType.i32, FFIType.i64],
    returns: FFIType.ptr,
  },
})

function code(bytes: readonly number[], args: FFIType[], returns: FFIType): CallableFunction {
  const at = symbols.mmap(null, PAGE, PROT_READ_WRITE_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0) as Pointer
  symbols.memcpy(at, ptr(Uint8Array.from(bytes)), bytes.length)
  if (read.u8(at, 0) !== bytes[0]) throw new Error("no memory to run code in")
  return CFunction({ ptr: at, args, returns })
}

const out = code(OUT, [FFIType.i32, FFIType.i32], FFIType.void)
const inp = code(IN, [FFIType.i32], FFIType.i32)
if (symbols.iopl(3) !== 0) throw new Error("the kernel lets nobody at ports")

const facp = new DataView(readFileSync("/sys/firmware/acpi/tables/FACP").buffer)
const events = facp.getUint32(PM1A_EVT_BLK, true)
const control = facp.getUint32(PM1A_CNT_BLK, true)
const enabled = Number(inp(events + 2))
const before = Number(inp(control))
console.log(JSON.stringify({ events, control, enabled, before }))
out(events + 2, enabled | RTC_EN)
out(control, (before & ~SLP_TYP_MASK) | SLP_TYP_S3 | SLP_EN)
console.log("awake")
