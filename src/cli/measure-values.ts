/**
 * @module cli/measure-values
 *
 * Reference values from and to files, and one by one.
 */

import { statSync } from "node:fs"
import { resolve } from "node:path"
import { utf8 } from "../lib/bytes.ts"
import { MvmError, errnoOf } from "../lib/errors.ts"
import { printable } from "../lib/log.ts"
import { cpioReference } from "../mvm/reference/cpio.ts"
import { formatReference } from "../mvm/reference/file.ts"
import { walkReference } from "../mvm/reference/walk.ts"
import { emptyReference } from "../tcb/measurement/reference-table.ts"
import type { Call, CommandSpec } from "./command.ts"
import { JSON_OPTION, STATE_OPTION, ask } from "./connect.ts"
import { readInput, readInputBytes } from "./input.ts"
import { note, print, printJson, writeRaw } from "./output.ts"

/** Base64 of it has to fit one line of the control socket. */
const MAX_IMPORT_BYTES = 40 * 1024 * 1024

const REASON_OPTION = { flags: "--reason <text>", description: "why, for the audit log" }
export const GROUP_OPTION = {
  flags: "--group <tag>",
  description: "the values that all VMs with this tag share, not those of this VM alone",
}

interface Value {
  path: string
  digest: string
}

export const measureApprove: CommandSpec = {
  usage: "measure approve <vm> [path]",
  summary: "allow what a VM was seen to run and was refused for; what was allowed before stays so",
  options: [
    STATE_OPTION,
    { flags: "--all", description: "everything that is seen and not allowed" },
    { flags: "--digest <hex>", description: "exactly this content, seen or not" },
    { flags: "--required", description: "and demand it from now on" },
    GROUP_OPTION,
    REASON_OPTION,
    JSON_OPTION,
  ],
  examples: [
    "measure approve web /usr/bin/rsync --reason upgrade",
    "measure approve web --all --group web --reason 4.2",
    "measure approve web pcr:4 --reason 'new kernel'",
  ],
  async run(call) {
    const result = await ask<{ approved: Value[]; skipped: string[] }>(call, "measure.approve", {
      ...target(call),
      path: call.args[1],
      all: call.flag("all"),
      digest: call.text("digest"),
      required: call.flag("required"),
    })
    for (const path of result.skipped) note(`warning: ${path} has no sha256 digest that could be allowed`)
    if (call.flag("json")) return printJson(result)
    for (const { path, digest } of result.approved) print(`${digest}  ${path}`)
  },
}

export const measureDiff: CommandSpec = {
  usage: "measure diff <vm>",
  summary: "show what a VM ran that is not allowed, and what is allowed and was not seen",
  options: [STATE_OPTION, JSON_OPTION],
  examples: ["measure diff web", "measure diff web --json"],
  async run(call) {
    const diff = await ask<{
      seen: Value[]
      other: Value[]
      violations: string[]
      missing: string[]
      unseen: Value[]
    }>(call, "measure.diff", { vm: call.arg(0) })
    if (call.flag("json")) return printJson(diff)
    for (const { path, digest } of diff.seen) print(`+ ${digest}  ${path}`)
    for (const { path, digest } of diff.other) print(printable(`! ${digest}  ${path}`))
    for (const path of diff.violations) print(printable(`! changed while in use  ${path}`))
    for (const path of diff.missing) print(`? required and not measured  ${path}`)
    for (const { path, digest } of diff.unseen) print(`- ${digest}  ${path}`)
  },
}

export const measureImport: CommandSpec = {
  usage: "measure import <vm> [file]",
  summary: "add reference values from a manifest, a sha256sum listing, a directory tree or an initramfs",
  options: [
    STATE_OPTION,
    {
      flags: "--format <name>",
      description: "manifest or sha256sum",
      default: "manifest",
      values: ["manifest", "sha256sum"],
    },
    { flags: "--tree <dir>", description: "no file: the programs, libraries and modules under this root" },
    { flags: "--image <file>", description: "no file: those of an initramfs (cpio, also in gzip or zstd)" },
    { flags: "--all-files", description: "with --tree or --image: every regular file" },
    {
      flags: "--signature <file>",
      description: "ed25519 signature of the manifest: 64 bytes, hex or base64",
    },
    { flags: "--key <file>", description: "public key it must be by, where the state directory names none" },
    { flags: "--replace", description: "drop the values there were, instead of adding to them" },
    GROUP_OPTION,
    REASON_OPTION,
    JSON_OPTION,
  ],
  examples: [
    "measure import web image.manifest --signature image.manifest.sig --reason 4.2",
    "measure import web sums.txt --format sha256sum",
    "measure import group:web --tree /mnt/image",
  ],
  async run(call) {
    const signature = call.text("signature")
    const { format, content } = await importSource(call)
    if (content.length > MAX_IMPORT_BYTES) {
      throw new MvmError("too_large", `reference file: ${content.length} bytes, at most ${MAX_IMPORT_BYTES}`)
    }
    const result = await ask<{ vm: string; entries: number; added: number; signedBy: string | null }>(
      call,
      "measure.import",
      {
        ...target(call),
        format,
        content: content.toBase64(),
        signature: signature === undefined ? undefined : readInputBytes(signature).toBase64(),
        keys: call.texts("key").map(readInput),
        replace: call.flag("replace"),
      },
    )
    if (call.flag("json")) return printJson(result)
    const signed = result.signedBy === null ? "" : `, signed by ${result.signedBy.slice(0, 16)}`
    print(`${result.vm}: ${result.entries} values, ${result.added} of them new${signed}`)
  },
}

export const measureExport: CommandSpec = {
  usage: "measure export <vm>",
  summary: "write all reference values that count for a VM as a manifest",
  options: [STATE_OPTION, GROUP_OPTION],
  examples: ["measure export web >web.manifest", "measure export group:web >group.manifest"],
  async run(call) {
    const { text } = await ask<{ text: string }>(call, "measure.export", target(call))
    writeRaw(utf8(text))
  },
}

export const measureRemove: CommandSpec = {
  usage: "measure remove <vm> [path]",
  summary: "no longer allow a path, one content of it, or a PCR value",
  options: [
    STATE_OPTION,
    { flags: "--digest <hex>", description: "only this content" },
    { flags: "--all", description: "every value: the VM is trusted no more" },
    GROUP_OPTION,
    REASON_OPTION,
  ],
  examples: ["measure remove web /usr/bin/rsync --digest ab12...", "measure remove web pcr:4"],
  async run(call) {
    const { removed } = await ask<{ removed: number }>(call, "measure.remove", {
      ...target(call),
      path: call.args[1],
      digest: call.text("digest"),
      all: call.flag("all"),
    })
    print(`${call.arg(0)}: ${removed} removed`)
  },
}

export const measureExclude: CommandSpec = {
  usage: "measure exclude <vm> <glob>",
  summary: "do not judge files whose path matches: `*` within a folder, `**` across",
  options: [
    STATE_OPTION,
    { flags: "--remove", description: "judge them again" },
    GROUP_OPTION,
    REASON_OPTION,
  ],
  examples: [
    "measure exclude web '/var/lib/app/cache/**' --reason plugins",
    "measure exclude web '/x/*' --remove",
  ],
  async run(call) {
    const { removed } = await ask<{ removed: boolean }>(call, "measure.exclude", {
      ...target(call),
      glob: call.arg(1),
      remove: call.flag("remove"),
    })
    print(`${call.arg(0)}: ${call.arg(1)} is ${removed ? "judged again" : "not judged"}`)
  },
}

/** What every change of values names. */
export function target(call: Call): Record<string, unknown> {
  return { vm: call.arg(0), group: call.text("group"), reason: call.text("reason") ?? "" }
}

async function importSource(call: Call): Promise<{ format: string; content: Uint8Array }> {
  const tree = call.text("tree")
  const image = call.text("image")
  const file = call.args[1]
  if ([tree, image, file].filter((source) => source !== undefined).length !== 1) {
    throw new MvmError("usage", "name a file, --tree DIR or --image FILE, one of the three", {
      hint: "mvm measure import --help",
    })
  }
  if (file !== undefined) {
    const format = call.oneOf("format", ["manifest", "sha256sum"], "manifest")
    return { format, content: readInputBytes(file) }
  }
  const all = call.flag("allFiles")
  if (image !== undefined) return asManifest(cpioReference(readInputBytes(image), { all }))
  const root = resolve(tree!)
  if (!isDirectory(root)) throw new MvmError("usage", `${root} is no directory`)
  const files = await walkReference(root, { all })
  if (files.size === 0) throw new MvmError("not_found", `${root}: no file in it can become code`)
  return asManifest(files)
}

function asManifest(files: ReadonlyMap<string, ReadonlySet<string>>): {
  format: string
  content: Uint8Array
} {
  return { format: "tree", content: utf8(formatReference({ ...emptyReference("kernel"), files })) }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch (cause) {
    throw new MvmError("usage", `cannot read ${path}: ${errnoOf(cause) ?? "failed"}`, { cause })
  }
}
