/**
 * @module guest/streams/descriptor-duplex
 *
 * Two descriptors as one stream of bytes: a program's pipes, or this process's own standard input and output. They
 * are this module's own from then on, and it closes them.
 */

import { closeSync, constants, fstatSync, openSync, readSync, writeSync, type Stats } from "node:fs"
import { MvmError, errnoOf } from "../../lib/errors.ts"
import { replaceByNothing } from "../../platform/descriptors.ts"
import { turn } from "../channel-end.ts"
import type { JoinableDuplex } from "./join.ts"

/** Of a regular file, read or written at a time. */
const BLOCK_BYTES = 256 * 1024
const FIRST_OWN = 3

/** What brings bytes. */
export interface ByteReader {
  /** The next bytes, at least one; null at the end. @throws MvmError `io`, or what {@link stop} was given. */
  read(): Promise<Uint8Array | null>
  /** A read that waits fails with `error`, and so does every later one. */
  stop(error: MvmError): void
}

/** What takes bytes. */
export interface ByteWriter {
  /** @throws MvmError `sink` when nobody reads. */
  write(bytes: Uint8Array): Promise<void>
  end(): void
}

export class DescriptorDuplex implements JoinableDuplex {
  readonly #reader: ByteReader
  readonly #writer: ByteWriter

  constructor(reader: ByteReader, writer: ByteWriter) {
    this.#reader = reader
    this.#writer = writer
  }

  read(): Promise<Uint8Array | null> {
    return this.#reader.read()
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#writer.write(bytes)
  }

  async end(): Promise<void> {
    this.#writer.end()
  }

  stop(error: MvmError): void {
    this.#reader.stop(error)
  }

  reset(error: MvmError): void {
    this.#reader.stop(error)
    this.#writer.end()
  }
}

/** @param given open for reading, or closed: then nothing comes */
export function readerOf(given: number): ByteReader {
  const fd = openOr(given)
  return fstatSync(fd).isFile() ? new FileReader(fd) : new PipeReader(fd)
}

/**
 * A pipe or terminal that is shared with other processes is opened once more where that is possible: the runtime
 * makes what it writes to non-blocking, and the others that hold it did not ask for that.
 *
 * @param given open for writing, or closed: then nothing
 */
export function writerOf(given: number): ByteWriter {
  const fd = openOr(given)
  const stat = fstatSync(fd)
  if (stat.isFile()) return new FileWriter(fd)
  const own = fd < FIRST_OWN && canReopen(stat) ? reopen(fd) : fd
  return new PipeWriter(own, fd)
}

/** A reader of the runtime's streams, as far as it is used here. */
interface PulledReader {
  read(): Promise<{ value?: Uint8Array | undefined; done: boolean }>
  cancel(): Promise<void>
}

class PipeReader implements ByteReader {
  readonly #fd: number
  readonly #reader: PulledReader
  #failure: MvmError | undefined
  #closed = false

  constructor(fd: number) {
    this.#fd = fd
    this.#reader = Bun.file(fd).stream().getReader()
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#failure) throw this.#failure
    try {
      const { value, done } = await this.#reader.read()
      if (this.#failure) throw this.#failure
      if (!done && value) return value
      this.#close()
      return null
    } catch (error) {
      // A terminal whose other side has gone says EIO where others say that it ends.
      if (errnoOf(error) === "EIO") return null
      throw error instanceof MvmError ? error : unreadable(error)
    }
  }

  stop(error: MvmError): void {
    if (this.#failure) return
    this.#failure = error
    void this.#reader.cancel().finally(() => this.#close())
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    close(this.#fd)
  }
}

class PipeWriter implements ByteWriter {
  readonly #fds: readonly number[]
  readonly #sink: Bun.FileSink
  #ended = false

  /** @param given what to close beside `fd` */
  constructor(fd: number, given = fd) {
    this.#fds = given === fd ? [fd] : [fd, given]
    this.#sink = Bun.file(fd).writer({ highWaterMark: BLOCK_BYTES })
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#ended) throw unwritable("EPIPE", undefined)
    try {
      // Either may be a promise, and either may be the one that fails.
      await Promise.all([this.#sink.write(bytes as Uint8Array<ArrayBuffer>), this.#sink.flush()])
    } catch (error) {
      this.end()
      throw unwritable(errnoOf(error), error)
    }
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    // The runtime holds a duplicate of its own.
    void Promise.resolve(this.#sink.end()).catch(() => {})
    for (const fd of this.#fds) close(fd)
  }
}

class FileReader implements ByteReader {
  readonly #fd: number
  readonly #block = new Uint8Array(BLOCK_BYTES)
  #failure: MvmError | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#failure) throw this.#failure
    await turn()
    try {
      const got = readSync(this.#fd, this.#block, 0, BLOCK_BYTES, null)
      return got === 0 ? null : this.#block.slice(0, got)
    } catch (error) {
      throw unreadable(error)
    }
  }

  stop(error: MvmError): void {
    if (this.#failure) return
    this.#failure = error
    close(this.#fd)
  }
}

class FileWriter implements ByteWriter {
  readonly #fd: number

  constructor(fd: number) {
    this.#fd = fd
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at)
    } catch (error) {
      throw unwritable(errnoOf(error), error)
    }
  }

  end(): void {
    close(this.#fd)
  }
}

/** `fd`, or nothing in its place where it is closed: a process may be started without its three. */
function openOr(fd: number): number {
  try {
    fstatSync(fd)
    return fd
  } catch (error) {
    if (errnoOf(error) !== "EBADF") throw error
    return openSync("/dev/null", constants.O_RDWR)
  }
}

function canReopen(stat: Stats): boolean {
  return stat.isFIFO() || stat.isCharacterDevice()
}

function reopen(fd: number): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch {
    return fd
  }
}

/** The first three stay open, as nothing: their other ends see that this one is done. */
function close(fd: number): void {
  if (fd < FIRST_OWN) replaceByNothing(fd)
  else closeSync(fd)
}

function unreadable(cause: unknown): MvmError {
  return new MvmError("io", `cannot read the input: ${errnoOf(cause) ?? (cause as Error).message}`, { cause })
}

function unwritable(errno: string | undefined, cause: unknown): MvmError {
  return new MvmError("sink", `cannot write the output: ${errno ?? (cause as Error).message}`, {
    cause,
    hint: errno === "EPIPE" ? "the reader of the pipe has ended" : undefined,
  })
}
