/**
 * @module guest/services/service-file
 *
 * A service as a file: `/etc/mvm/services.d/NAME.toml`. The file's name is the service's. What a file does not say
 * is as without the option of `mvm guest serve` that has its key's name.
 *
 *     command = ["/usr/local/bin/backup", "--all"]     or  tcp = "127.0.0.1:5432"  or  unix = "/run/db.sock"
 *     user = "backup"
 *     max_runs = 1
 *     max_time = "10m"
 *     environment = { LANG = "C" }
 */

import { readFileSync, readdirSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import * as v from "valibot"
import { MvmError, asMvmError, errnoOf } from "../../lib/errors.ts"
import { readDocument, type Problem } from "../../lib/toml-document.ts"
import type { KeyPath, Places } from "../../lib/toml-places.ts"
import { parseDuration, parseSize } from "../../lib/units.ts"
import { isName } from "../../wire/schema.ts"
import { NO_LIMITS as NO_COPY_LIMITS } from "../copy/limits.ts"
import type { CopyService } from "../copy/service.ts"
import { parseTcp, parseUnix } from "../streams/address.ts"
import type { ServiceAction, ServiceDefinition } from "./definition.ts"
import { ENDS_OF_INPUT } from "./end-of-input.ts"

export const SERVICES_FOLDER = "/etc/mvm/services.d"
const SUFFIX = ".toml"
const MAX_FILE_BYTES = 64 * 1024
const MAX_WORDS = 256
const MAX_VARIABLES = 256
const MAX_RUNS = 1_000_000
const MAX_TIME_MS = 24 * 86_400_000
/** Whoever writes the file says what runs, and as whom. */
const WRITABLE_BY_OTHERS = 0o022

const ACTIONS = ["command", "tcp", "unix", "copy"] as const
/** Keys that mean something to one kind of service alone. */
const OF_COMMANDS = ["user", "directory", "environment", "pty"] as const
const OF_COPIES = ["read_only", "write_only", "max_files", "min_free", "links"] as const

const WORD = "expected text without control characters"
const word = v.pipe(v.string(WORD), v.maxLength(4096, WORD), v.regex(/^\P{Cc}*$/u, WORD))
const named = v.pipe(
  v.string(),
  v.check(isNameWord, "expected a name out of A-Z a-z 0-9 . _ -, at most 64 characters"),
)
const LINKS = ["inside", "all"] as const
const folder = v.pipe(word, v.startsWith("/", "expected an absolute path"))
const flag = v.boolean("expected true or false")
const VARIABLE = "expected the name of a variable, letters, digits and _, not MVM_..."

export const serviceDocument = v.strictObject({
  command: v.optional(
    v.pipe(
      v.array(word, "expected a list of words, the program first"),
      v.minLength(1, "expected a program"),
      v.maxLength(MAX_WORDS, `at most ${MAX_WORDS} words`),
    ),
  ),
  tcp: v.optional(parsed((text) => parseTcp(text, "tcp"), "expected HOST:PORT, as in 127.0.0.1:5432")),
  unix: v.optional(
    parsed((text) => parseUnix(text, "unix"), "expected the path of a socket, at most 107 bytes"),
  ),
  copy: v.optional(folder),
  read_only: v.optional(flag),
  write_only: v.optional(flag),
  max_files: v.optional(count(Number.MAX_SAFE_INTEGER)),
  min_free: v.optional(size("min_free")),
  links: v.optional(v.picklist(LINKS, `expected one of ${LINKS.join(", ")}`)),
  source: v.optional(named),
  user: v.optional(word),
  directory: v.optional(folder),
  environment: v.optional(
    v.pipe(
      v.record(v.pipe(v.string(), v.regex(/^(?!MVM_)[A-Za-z_][A-Za-z0-9_]*$/, VARIABLE)), word),
      v.check((table) => Object.keys(table).length <= MAX_VARIABLES, `at most ${MAX_VARIABLES} variables`),
    ),
  ),
  pty: v.optional(flag),
  eof: v.optional(v.picklist(ENDS_OF_INPUT, `expected one of ${ENDS_OF_INPUT.join(", ")}`)),
  max_runs: v.optional(count(MAX_RUNS)),
  max_time: v.optional(parsed(duration, 'expected a time, as in "30s" or "5m"')),
  max_bytes: v.optional(size("max_bytes")),
})

type ServiceDocument = v.InferOutput<typeof serviceDocument>

/** What a folder says: services, and files that say none, each with its reason. */
export interface ServicesFound {
  readonly definitions: ReadonlyMap<string, ServiceDefinition>
  readonly failures: readonly MvmError[]
}

/** The service that `text` describes. @throws MvmError `config`, `FILE:LINE:COLUMN: reason`. */
export function parseService(text: string, name: string, file: string): ServiceDefinition {
  const read = readDocument(text, serviceDocument)
  if ("problem" in read) throw broken(file, read.problem, read.cause)
  const { value, places } = read
  return {
    name,
    action: actionOf(value, places, file),
    source: value.source,
    user: value.user,
    directory: value.directory,
    environment: value.environment ?? {},
    endOfInput: value.eof ?? "close",
    terminal: value.pty ?? false,
    limits: {
      maxRuns: value.max_runs ?? MAX_RUNS,
      maxMs: value.max_time,
      // Of a copy, what counts is the content, not what travels.
      maxBytes: value.copy === undefined ? value.max_bytes : undefined,
    },
  }
}

/** Every `NAME.toml` of the folder. @throws MvmError `config` when there is no such folder. */
export function readServices(folder: string): ServicesFound {
  let names: string[]
  try {
    names = readdirSync(folder).filter((entry) => entry.endsWith(SUFFIX) && !entry.startsWith("."))
  } catch (cause) {
    throw new MvmError("config", `cannot read ${folder}: ${errnoOf(cause) ?? "failed"}`, {
      cause,
      hint: "make it, and put a file SERVICE.toml there for each service",
    })
  }
  const definitions = new Map<string, ServiceDefinition>()
  const failures: MvmError[] = []
  for (const entry of names.toSorted()) {
    try {
      const definition = readService(join(folder, entry), entry.slice(0, -SUFFIX.length))
      definitions.set(definition.name, definition)
    } catch (error) {
      failures.push(asMvmError(error))
    }
  }
  return { definitions, failures }
}

/** One file alone. */
export function readOneService(path: string): ServicesFound {
  try {
    const definition = readService(path, basename(path).replace(/\.toml$/, ""))
    return { definitions: new Map([[definition.name, definition]]), failures: [] }
  } catch (error) {
    return { definitions: new Map(), failures: [asMvmError(error)] }
  }
}

/** @throws MvmError `config` for what is no service, `refused` for a file that is not only its owner's to write. */
function readService(path: string, name: string): ServiceDefinition {
  if (!isName(name)) {
    throw new MvmError("config", `${path}: ${name} cannot name a service`, {
      hint: "letters, digits, . _ -, at most 64, not beginning with . or -",
    })
  }
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat?.isFile()) throw new MvmError("config", `${path}: there is no such file`)
  if (stat.size > MAX_FILE_BYTES) throw new MvmError("config", `${path}: longer than ${MAX_FILE_BYTES} bytes`)
  const isOthers = stat.uid !== 0 && stat.uid !== process.geteuid?.()
  if (isOthers || (stat.mode & WRITABLE_BY_OTHERS) !== 0) {
    throw new MvmError("refused", `${path}: others than its owner can write it`, {
      hint: `chown root ${path}; chmod 644 ${path}`,
    })
  }
  return parseService(readFileSync(path, "utf8"), name, path)
}

function actionOf(value: ServiceDocument, places: Places, file: string): ServiceAction {
  const given = ACTIONS.filter((key) => value[key] !== undefined)
  const at = (path: KeyPath, reason: string): MvmError => broken(file, { ...places.of(path), reason })
  if (given.length !== 1) throw at(given.slice(1), `expected one of ${ACTIONS.join(", ")}`)
  const misplaced = (keys: readonly (keyof ServiceDocument)[], what: string): void => {
    const key = keys.find((one) => value[one] !== undefined)
    if (key) throw at([key], `${key}: goes with ${what}`)
  }
  if (value.copy === undefined) misplaced(OF_COPIES, "copy")
  if (value.read_only && value.write_only)
    throw at(["write_only"], "read_only and write_only exclude each other")
  if (value.command) {
    const [program = "", ...words] = value.command
    return { kind: "command", command: [program, ...words] }
  }
  misplaced(OF_COMMANDS, "command")
  if (value.copy !== undefined) return { kind: "copy", copy: copyOf(value, value.copy) }
  const address = value.tcp ?? value.unix
  if (!address) throw at([], "expected a socket")
  return { kind: "socket", address }
}

function copyOf(value: ServiceDocument, folderPath: string): CopyService {
  return {
    folder: folderPath,
    mayRead: value.write_only !== true,
    mayWrite: value.read_only !== true,
    limits: {
      maxBytes: value.max_bytes ?? NO_COPY_LIMITS.maxBytes,
      maxFiles: value.max_files ?? NO_COPY_LIMITS.maxFiles,
      minFreeBytes: value.min_free ?? NO_COPY_LIMITS.minFreeBytes,
    },
    links: value.links ?? "inside",
  }
}

/** Text that `read` makes something of; what it throws is `message`. */
function parsed<T>(read: (text: string) => T, message: string) {
  return v.pipe(
    v.string(message),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value)
      } catch {
        addIssue({ message })
        return NEVER
      }
    }),
  )
}

function duration(text: string): number {
  const milliseconds = parseDuration(text, "max_time")
  if (milliseconds <= 0 || milliseconds > MAX_TIME_MS) throw new RangeError("no time a timer holds")
  return milliseconds
}

function count(greatest: number) {
  const message = `expected a whole number from 1 to ${greatest}`
  return v.pipe(v.number(message), v.integer(message), v.minValue(1, message), v.maxValue(greatest, message))
}

function size(key: string) {
  return parsed((text) => parseSize(text, key), 'expected a size, as in "512K" or "1G"')
}

function isNameWord(text: string): boolean {
  return isName(text)
}

function broken(file: string, { line, column, reason }: Problem, cause?: unknown): MvmError {
  return new MvmError("config", `${file}:${line}:${column}: ${reason}`, { cause })
}
