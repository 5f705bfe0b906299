/**
 * @module platform/ffi
 *
 * The C library functions the runtime has no call for. Loaded on first use, because a command that only prints
 * should not pay for it. Nothing above `platform/` calls these directly.
 */

import { dlopen, FFIType as T, read } from "bun:ffi"
import { constants } from "node:os"
import { MvmError } from "../lib/errors.ts"

const SYMBOLS = {
  __errno_location: { args: [], returns: T.ptr },
  dup2: { args: [T.i32, T.i32], returns: T.i32 },
  bind: { args: [T.i32, T.ptr, T.u32], returns: T.i32 },
  connect: { args: [T.i32, T.ptr, T.u32], returns: T.i32 },
  fallocate: { args: [T.i32, T.i32, T.i64, T.i64], returns: T.i32 },
  fcntl: { args: [T.i32, T.i32, T.u64], returns: T.i32 },
  flock: { args: [T.i32, T.i32], returns: T.i32 },
  futimens: { args: [T.i32, T.ptr], returns: T.i32 },
  getsockopt: { args: [T.i32, T.i32, T.i32, T.ptr, T.ptr], returns: T.i32 },
  ioctl: { args: [T.i32, T.u64, T.u64], returns: T.i32 },
  listen: { args: [T.i32, T.i32], returns: T.i32 },
  lseek: { args: [T.i32, T.i64, T.i32], returns: T.i64 },
  lgetxattr: { args: [T.cstring, T.ptr, T.ptr, T.u64], returns: T.i64 },
  lremovexattr: { args: [T.cstring, T.ptr], returns: T.i32 },
  lsetxattr: { args: [T.cstring, T.ptr, T.ptr, T.u64, T.i32], returns: T.i32 },
  madvise: { args: [T.ptr, T.u64, T.i32], returns: T.i32 },
  memfd_create: { args: [T.cstring, T.u32], returns: T.i32 },
  mkdirat: { args: [T.i32, T.ptr, T.u32], returns: T.i32 },
  mmap: { args: [T.ptr, T.u64, T.i32, T.i32, T.i32, T.i64], returns: T.i64 },
  munmap: { args: [T.ptr, T.u64], returns: T.i32 },
  openat: { args: [T.i32, T.ptr, T.i32, T.u32], returns: T.i32 },
  pipe2: { args: [T.ptr, T.i32], returns: T.i32 },
  poll: { args: [T.ptr, T.u64, T.i32], returns: T.i32 },
  readlinkat: { args: [T.i32, T.ptr, T.ptr, T.u64], returns: T.i64 },
  recv: { args: [T.i32, T.ptr, T.u64, T.i32], returns: T.i64 },
  renameat: { args: [T.i32, T.ptr, T.i32, T.ptr], returns: T.i32 },
  sched_yield: { args: [], returns: T.i32 },
  sendto: { args: [T.i32, T.ptr, T.u64, T.i32, T.ptr, T.u32], returns: T.i64 },
  socket: { args: [T.i32, T.i32, T.i32], returns: T.i32 },
  statx: { args: [T.i32, T.ptr, T.i32, T.u32, T.ptr], returns: T.i32 },
  symlinkat: { args: [T.ptr, T.i32, T.ptr], returns: T.i32 },
  tcgetattr: { args: [T.i32, T.ptr], returns: T.i32 },
  tcsetattr: { args: [T.i32, T.i32, T.ptr], returns: T.i32 },
  unlinkat: { args: [T.i32, T.ptr, T.i32], returns: T.i32 },
  usleep: { args: [T.u32], returns: T.i32 },
  utimensat: { args: [T.i32, T.ptr, T.ptr, T.i32], returns: T.i32 },
} as const

type Libc = ReturnType<typeof dlopen<typeof SYMBOLS>>["symbols"]

let loaded: Libc | undefined

/** The C library. @throws MvmError `setup` where it is not glibc. */
export function libc(): Libc {
  try {
    loaded ??= dlopen("libc.so.6", SYMBOLS).symbols
  } catch (cause) {
    throw new MvmError("setup", "libc: libc.so.6 could not be loaded", { cause })
  }
  return loaded
}

/** errno of the failure just seen: call it before anything else. */
export function lastErrno(): number {
  const at = libc().__errno_location()
  return at === null ? 0 : read.i32(at, 0)
}

/** The failure just seen, as an `io` error that names the call and the errno ("poll: EBADF"). */
export function systemError(call: string): MvmError {
  return new MvmError("io", `${call}: ${errnoName()}`)
}

/** The failure just seen as the runtime's own calls throw it: `code` is the errno's name. */
export function errnoError(call: string): Error & { readonly code: string } {
  const code = errnoName()
  return Object.assign(new Error(`${call}: ${code}`), { code })
}

function errnoName(): string {
  const errno = lastErrno()
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`
}
