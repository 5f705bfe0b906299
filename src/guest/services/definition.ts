/**
 * @module guest/services/definition
 *
 * A service as its owner describes it, on a command line or in a file, and the handler that comes of it.
 */

import { accessSync, constants, statSync } from "node:fs"
import { isAbsolute, join } from "node:path"
import { MvmError } from "../../lib/errors.ts"
import { findUser, ownUser, type User } from "../../platform/users.ts"
import { copyService, type CopyService } from "../copy/service.ts"
import type { Address } from "../streams/address.ts"
import { commandService } from "./command-service.ts"
import type { ServiceLimits } from "./limits.ts"
import type { ServiceOptions } from "./server.ts"
import type { EndOfInput } from "./end-of-input.ts"
import type { ServiceHandler } from "./service.ts"
import { socketService } from "./socket-service.ts"

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/** Of this process's own environment, what a service's program is given. */
const PASSED = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR"]

export type ServiceAction =
  | { readonly kind: "command"; readonly command: readonly [string, ...string[]] }
  | { readonly kind: "socket"; readonly address: Address }
  | { readonly kind: "copy"; readonly copy: CopyService }

export interface ServiceDefinition {
  readonly name: string
  readonly action: ServiceAction
  /** The only VM whose calls are taken; undefined: the policy alone decides */
  readonly source: string | undefined
  /** Name of the user a command runs as; undefined: as whom the server runs */
  readonly user: string | undefined
  readonly directory: string | undefined
  readonly environment: Readonly<Record<string, string>>
  readonly endOfInput: EndOfInput
  /** Whether callers of a command may have a terminal */
  readonly terminal: boolean
  readonly limits: ServiceLimits
}

/**
 * What the server needs to serve it.
 *
 * @throws MvmError `not_found` for a user, program or directory that is not there; `refused` for a user that this
 *   process cannot become.
 */
export function serviceOptions(definition: ServiceDefinition): ServiceOptions {
  const { name, source, limits } = definition
  return { name, source, limits, handler: handlerOf(definition) }
}

function handlerOf({ action, ...definition }: ServiceDefinition): ServiceHandler {
  if (action.kind === "socket") return socketService(action.address, definition.endOfInput)
  if (action.kind === "copy") {
    requireDirectory(action.copy.folder)
    return copyService(action.copy)
  }
  const user = definition.user === undefined ? undefined : findUser(definition.user)
  const isOther = user !== undefined && user.uid !== process.geteuid?.()
  if (isOther && process.geteuid?.() !== 0) {
    throw new MvmError("refused", `only root can run a service as ${user.name}`)
  }
  const { directory, endOfInput, terminal } = definition
  if (directory !== undefined) requireDirectory(directory)
  const environment = { ...baseEnvironment(user), ...definition.environment }
  const [program, ...words] = action.command
  return commandService({
    command: [findProgram(program, environment["PATH"] ?? DEFAULT_PATH), ...words],
    user: isOther ? user : undefined,
    directory: directory ?? (isOther ? homeOf(user) : undefined),
    environment,
    endOfInput,
    terminal,
  })
}

function requireDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return
  throw new MvmError("not_found", `there is no directory ${path}`)
}

/** A program starts in few and known surroundings; its own state and sockets of ours are not among them. */
function baseEnvironment(user: User | undefined): Record<string, string> {
  const { name, home, shell } = user ??
    ownUser() ?? { name: "", home: process.env["HOME"] ?? "/", shell: "/bin/sh" }
  const passed = PASSED.flatMap((key) => {
    const value = process.env[key]
    return value === undefined ? [] : [[key, value] as const]
  })
  return {
    PATH: DEFAULT_PATH,
    ...Object.fromEntries(passed),
    HOME: home,
    SHELL: shell,
    ...(name === "" ? {} : { USER: name, LOGNAME: name }),
  }
}

function homeOf({ home }: User): string {
  return statSync(home, { throwIfNoEntry: false })?.isDirectory() ? home : "/"
}

/** Found once, so that a mistyped program is an error of the service's owner and not of each caller. */
function findProgram(program: string, path: string): string {
  const candidates =
    isAbsolute(program) || program.includes("/")
      ? [program]
      : path.split(":").map((folder) => join(folder, program))
  const found = candidates.find(isProgram)
  if (found !== undefined) return found
  throw new MvmError("not_found", `there is no program ${program}`, {
    hint: "name it by its path, and see that it may be executed",
  })
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
