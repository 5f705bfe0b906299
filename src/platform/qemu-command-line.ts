/**
 * @module platform/qemu-command-line
 *
 * A QEMU that a person or libvirt started, by the words it was started with: whether the MVM's are among them, and which
 * files it boots. What this cannot read for certain is refused, never guessed.
 *
 * @spec qemu-system-x86_64(1)
 */

import { readlinkSync } from "node:fs"
import { resolve } from "node:path"
import { MvmError } from "../lib/errors.ts"
import type { LaunchFiles } from "./launch-digest.ts"
import type { ProcessId } from "./process.ts"
import { firmwareFiles, isKnownFirmware, noSuspendArgs, qemuProgram, type Machine } from "./qemu-args.ts"

/** Options that bring settings or firmware from elsewhere, or a machine that ran before. */
const HIDING = ["-readconfig", "-incoming", "-loadvm", "-set", "-L"]
/** Machine properties that have options of their own, and one that takes ACPI's switches away. */
const MACHINE_PROPERTIES = ["kernel", "initrd", "append", "firmware", "pflash0", "pflash1", "dtb"]

/** How libvirt names its drives for the firmware's code (0) and variables (1). */
const LIBVIRT_FLASH = /^pflash([01])=libvirt-pflash\1-(format|storage)$/

/** What follows these is a value, whatever it looks like. */
const VALUED = [
  "-kernel",
  "-initrd",
  "-append",
  "-bios",
  "-drive",
  "-pflash",
  "-global",
  "-machine",
  "-M",
  "-L",
]

/** Pairs of option and value, in their order; an option without a value has "". */
function optionsOf(words: readonly string[]): [option: string, value: string][] {
  const options: [string, string][] = []
  for (let at = 1; at < words.length; at++) {
    const word = (words[at] ?? "").replace(/^--/, "-")
    const next = words[at + 1]
    const hasValue = next !== undefined && (VALUED.includes(word) || !next.startsWith("-"))
    options.push([word, hasValue ? next : ""])
    if (hasValue) at++
  }
  return options
}

/**
 * @param needed option, value, option, value, ...
 * @throws MvmError `vm_state` naming the first option that is missing or undone.
 */
export function requireArguments(words: readonly string[], needed: readonly string[]): void {
  const options = optionsOf(words)
  for (const [option, value] of optionsOf(["", ...needed])) {
    if (options.some(([name, given]) => name === option && given === value)) continue
    throw new MvmError("vm_state", `it was started without ${option} ${value}`)
  }
  const undone = options.find(([option, value]) => {
    // Both ways to write it: DRIVER.PROPERTY=VALUE, and driver=DRIVER,property=PROPERTY,value=VALUE.
    if (option === "-global") return /disable_s[34]/.test(value) && !needed.includes(value)
    return option === "-action" && /(^|,)reboot=(?!shutdown(,|$))/.test(value)
  })
  if (undone) throw new MvmError("vm_state", `it was started with ${undone.join(" ")}`)
}

/**
 * Whether the QEMU of a libvirt domain does what the domain's XML says of it: that may hold more words for QEMU, which
 * come after libvirt's.
 *
 * @param files what the XML starts
 * @throws MvmError `vm_state` naming the option.
 */
export function judgeLibvirtCommandLine(words: readonly string[], files: LaunchFiles): void {
  const options = optionsOf(words)
  refuseHiding(options)
  if (files.machine) requireArguments(words, noSuspendArgs(files.machine))
  refuseMachineProperties(options, (property) => LIBVIRT_FLASH.test(property))
  for (const [option, is] of [
    ["-kernel", files.kernel],
    ["-initrd", files.initrd],
    ["-append", files.append],
  ] as const) {
    const given = options.findLast(([name]) => name === option)?.[1]
    if ((given ?? "").trim() === (is ?? "")) continue
    throw new MvmError(
      "vm_state",
      `it was started with ${option} ${given ?? "left out"}, not ${is ?? "without"}`,
    )
  }
  const firmware = [
    flashFile(options),
    ...options.filter(([option]) => option === "-bios").map(([, path]) => path),
  ]
  for (const path of [...firmware, ...libvirtFlashFiles(options)]) {
    if (path !== undefined && !isKnownFirmware(path)) throw unknownFirmware(path)
  }
}

/** Files that are the firmware's code for libvirt. */
function libvirtFlashFiles(options: readonly [string, string][]): string[] {
  return options
    .filter(([option, value]) => option === "-blockdev" && value.includes("libvirt-pflash0-storage"))
    .map(([, value]) => {
      try {
        const { filename } = JSON.parse(value) as { filename?: unknown }
        return typeof filename === "string" ? filename : undefined
      } catch {
        return value
      }
    })
    .filter((path) => path !== undefined)
}

function refuseHiding(options: readonly [string, string][]): void {
  const hiding = options.find(([option]) => HIDING.includes(option))
  if (hiding) throw new MvmError("vm_state", `it was started with ${hiding[0]}: what it runs cannot be told`)
}

/** @param isUsual properties that whoever started it gives in place of the options */
function refuseMachineProperties(
  options: readonly [string, string][],
  isUsual: (property: string) => boolean = () => false,
): void {
  for (const [option, value] of options) {
    if (option !== "-machine" && option !== "-M") continue
    const property = value
      .split(",")
      .find((part) => MACHINE_PROPERTIES.includes(part.split("=")[0] ?? "") && !isUsual(part))
    if (property)
      throw new MvmError("vm_state", `it was started with ${option} ${property}: use the option of that name`)
  }
}

function unknownFirmware(path: string): MvmError {
  return new MvmError("vm_state", `its firmware ${path} is neither SeaBIOS nor OVMF of the host's packages`)
}

/** @throws MvmError `vm_state` for options whose files cannot be told. */
export function launchFilesOfCommandLine(
  qemu: ProcessId,
  words: readonly string[],
  machine: Machine,
): LaunchFiles {
  const options = optionsOf(words)
  const last = (name: string): string | undefined => options.findLast(([option]) => option === name)?.[1]
  refuseHiding(options)
  refuseMachineProperties(options)
  const file = (path: string | undefined): string | undefined => path && resolve(folderOf(qemu, path), path)
  const kernel = file(last("-kernel"))
  const firmware = file(flashFile(options) ?? last("-bios")) ?? firmwareFiles("seabios", machine).code
  if (!isKnownFirmware(firmware)) throw unknownFirmware(firmware)
  return {
    qemu: programOf(qemu, words[0] ?? "", machine),
    firmware,
    kernel,
    initrd: file(last("-initrd")),
    append: kernel === undefined ? undefined : (last("-append") ?? ""),
    machine,
  }
}

/** The first flash drive holds the firmware's code. */
function flashFile(options: readonly [string, string][]): string | undefined {
  const drives = options
    .filter(([option]) => option === "-drive" || option === "-pflash")
    .map(([option, value]) =>
      option === "-pflash"
        ? new Map([
            ["if", "pflash"],
            ["file", value],
          ])
        : propertiesOf(value),
    )
    .filter((drive) => drive.get("if") === "pflash")
  return (drives.find((drive) => drive.get("unit") === "0") ?? drives[0])?.get("file")
}

/** "a=b,c=d", where a doubled comma stands for one. */
function propertiesOf(text: string): Map<string, string> {
  const parts = text.replaceAll(",,", "\0").split(",")
  return new Map(
    parts.map((part) => {
      const [name = "", ...value] = part.replaceAll("\0", ",").split("=")
      return [name, value.join("=")]
    }),
  )
}

function folderOf({ pid }: ProcessId, path: string): string {
  if (path.startsWith("/")) return "/"
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch (cause) {
    throw new MvmError("vm_state", `it was started with the relative path ${path}: use an absolute one`, {
      cause,
    })
  }
}

function programOf({ pid }: ProcessId, word: string, machine: Machine): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    // Another user's.
  }
  const path = word.startsWith("/") ? word : Bun.which(word === "" ? qemuProgram(machine) : word)
  if (path === null) throw new MvmError("vm_state", `its program ${word} cannot be found`)
  return path
}
