/**
 * @module guest/services/command-service
 *
 * A service that is a program: each call is a run of it, with the caller's streams as its own. The argument of the
 * caller is in its environment and nowhere else; no shell sees it.
 *
 *     a connection   stdin and stdout are the connection, stderr is the server's
 *     exec           stdin and stdout are one stream; stderr, signals and the status the other
 *     exec --pty     all three are a terminal, which is one stream; signals, sizes and the status the other
 */

import { closeSync } from "node:fs"
import { MvmError, asMvmError, errnoOf } from "../../lib/errors.ts"
import { makePipe, type Pipe } from "../../platform/descriptors.ts"
import type { User } from "../../platform/users.ts"
import { DescriptorDuplex, readerOf, writerOf, type ByteReader } from "../streams/descriptor-duplex.ts"
import { carry } from "../streams/join.ts"
import { taking, type EndOfInput } from "./end-of-input.ts"
import { RunGroup } from "./run-group.ts"
import {
  brokenBy,
  callerEnvironment,
  type CalledRun,
  type ServiceCall,
  type ServiceHandler,
} from "./service.ts"
import { MAX_ERRORS_BYTES } from "./side.ts"
import { runInTerminal } from "./terminal-run.ts"

export interface CommandOptions {
  readonly command: readonly [string, ...string[]]
  /** undefined: as whom the server runs */
  readonly user: User | undefined
  readonly directory: string | undefined
  /** Without the caller's facts */
  readonly environment: Readonly<Record<string, string>>
  readonly endOfInput: EndOfInput
  /** Whether callers may have a terminal */
  readonly terminal: boolean
}

export function commandService(options: CommandOptions): ServiceHandler {
  return async (call) => {
    const { run, broken } = call
    if (broken.aborted) throw brokenBy(broken)
    if (!run?.terminal) return runOnPipes(call, options)
    if (!options.terminal) throw new MvmError("refused", "the service gives no terminal")
    const { side, terminal } = run
    await runInTerminal(call, { side, terminal, user: options.user }, (line) =>
      spawn(call, options, { terminal: line }),
    )
  }
}

async function runOnPipes(call: ServiceCall, options: CommandOptions): Promise<void> {
  const { run, stream, broken } = call
  const pipes = [makePipe(), makePipe(), ...(run ? [makePipe()] : [])] as [Pipe, Pipe, Pipe?]
  const [stdin, stdout, stderr] = pipes
  const given = [stdin.readFd, stdout.writeFd, ...(stderr ? [stderr.writeFd] : [])]
  let child: Bun.Subprocess
  try {
    child = spawn(call, options, { stdio: [stdin.readFd, stdout.writeFd, stderr?.writeFd ?? 2] })
  } catch (error) {
    for (const fd of [stdin.writeFd, stdout.readFd, ...(stderr ? [stderr.readFd] : [])]) closeSync(fd)
    throw error
  } finally {
    for (const fd of given) closeSync(fd)
  }
  const group = new RunGroup(child)
  const release = group.endOn(broken)
  const program = new DescriptorDuplex(readerOf(stdout.readFd), writerOf(stdin.writeFd))
  try {
    const input = carry(
      stream,
      taking(program, options.endOfInput, () => group.hangUp()),
    )
    // Whatever fails it fails the other direction too, which is waited for first.
    input.catch(() => {})
    if (run) void group.obey(run.side).catch((error: unknown) => stream.reset(asMvmError(error)))
    await Promise.all([
      carry(program, stream),
      run && stderr ? carryErrors(readerOf(stderr.readFd), run) : undefined,
      child.exited,
    ])
    stream.stop(new MvmError("sink", "the program has ended"))
    await input
  } catch (error) {
    // Until then it counts, and whoever stops the service waits for it.
    await group.end()
    throw broken.aborted ? brokenBy(broken) : asMvmError(error)
  } finally {
    release()
  }
  await run?.side.send("EXITED", group.outcome)
  await run?.side.end()
}

/** @throws MvmError `peer_failed`: what is missing is the service's affair. */
function spawn(
  call: ServiceCall,
  { command, user, directory, environment }: CommandOptions,
  how: { stdio?: [number, number, number]; terminal?: Bun.TerminalOptions },
): Bun.Subprocess {
  try {
    return Bun.spawn([...command], {
      ...how,
      env: {
        ...environment,
        ...(how.terminal?.name === undefined ? {} : { TERM: how.terminal.name }),
        ...callerEnvironment(call),
      },
      ...(directory === undefined ? {} : { cwd: directory }),
      ...(user ? { uid: user.uid, gid: user.gid } : {}),
      // A session of its own: signals reach all of the run and nothing else.
      detached: true,
    } as Parameters<typeof Bun.spawn>[1])
  } catch (cause) {
    throw new MvmError("peer_failed", "the service cannot start its program", {
      cause: new Error(`${command[0]}: ${errnoOf(cause) ?? (cause as Error).message}`),
    })
  }
}

async function carryErrors(reader: ByteReader, { side, countErrors }: CalledRun): Promise<void> {
  for (;;) {
    const bytes = await reader.read()
    if (bytes === null) return
    countErrors(bytes.length)
    for (let at = 0; at < bytes.length; at += MAX_ERRORS_BYTES) {
      await side.send("ERRORS", { bytes: bytes.subarray(at, at + MAX_ERRORS_BYTES) })
    }
  }
}
