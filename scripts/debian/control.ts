/**
 * @module scripts/debian/control
 *
 * What a Debian package says of itself: its control file, its changelog, and whose code is in the executable.
 *
 * @spec Debian Policy §5 (control files), §4.4 (changelog), §12.5 (copyright)
 */

import { readFileSync } from "node:fs"
import { join } from "node:path"

export type Package = "mvm" | "mvm-host" | "mvm-guest"

export interface Built {
  readonly version: string
  /** Debian's name: "amd64". */
  readonly architecture: string
  readonly date: Date
}

const MAINTAINER = "mvm maintainers <mvm@localhost>"
/** The greatest version of a symbol that the runtime asks of the C library. */
const LIBC = "libc6 (>= 2.17)"

const QEMU: Readonly<Record<string, string>> = {
  amd64: "qemu-system-x86, seabios, ovmf",
  arm64: "qemu-system-arm, qemu-efi-aarch64",
}

interface Fields {
  readonly isForAll: boolean
  readonly relations: readonly string[]
  readonly summary: string
  readonly text: readonly string[]
}

function fields(name: Package, { version, architecture }: Built): Fields {
  switch (name) {
    case "mvm":
      return {
        isForAll: false,
        relations: [`Depends: ${LIBC}`, "Suggests: mvm-host, mvm-guest"],
        summary: "attested shared-memory channels between virtual machines",
        text: [
          "The virtual machines of one KVM host get private channels through shared memory,",
          "and nobody gets one before the host has checked who asks and what software it runs.",
          "",
          "This is the executable, for the host and for the virtual machines.",
        ],
      }
    case "mvm-host":
      return {
        isForAll: false,
        relations: [
          `Depends: mvm (= ${version}), swtpm, systemd`,
          `Recommends: ${QEMU[architecture]}`,
          "Suggests: swtpm-tools, libvirt-daemon-system",
        ],
        summary: "attested channels between virtual machines: the host's daemon",
        text: [
          "Runs mvm serve as a service with a user of its own: it starts virtual machines, gives",
          "each a virtual TPM, measures what they run, and lets them talk as its policy allows.",
        ],
      }
    case "mvm-guest":
      return {
        isForAll: true,
        relations: [`Depends: mvm (= ${version}), systemd, udev`],
        summary: "attested channels between virtual machines: the agent inside one",
        text: [
          "Runs mvm guest agent as a service, has the kernel measure what it executes (IMA), and",
          "lets users of the group mvm open channels to other virtual machines of the host.",
        ],
      }
  }
}

/** @param installedKib size of all files */
export function control(name: Package, built: Built, installedKib: number): string {
  const { isForAll, relations, summary, text } = fields(name, built)
  return [
    `Package: ${name}`,
    "Source: mvm",
    `Version: ${built.version}`,
    `Architecture: ${isForAll ? "all" : built.architecture}`,
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${installedKib}`,
    ...relations,
    "Section: admin",
    "Priority: optional",
    `Description: ${summary}`,
    ...text.map((line) => ` ${line === "" ? "." : line}`),
    "",
  ].join("\n")
}

export function changelog({ version, date }: Built): string {
  return [
    `mvm (${version}) bookworm; urgency=medium`,
    "",
    "  * This version's packages. What it does is in README.md beside this file.",
    "",
    ` -- ${MAINTAINER}  ${date.toUTCString().replace("GMT", "+0000")}`,
    "",
  ].join("\n")
}

/** @param root folder of the source, with its packages installed */
export function copyright(root: string): string {
  const own = readFileSync(join(root, "LICENSE"), "utf8")
  const { dependencies } = readPackage(root) as { dependencies: Record<string, string> }
  const names = [...Object.keys(dependencies), "bun"].toSorted()
  const parts = names.map((name) => {
    const { license, version } = readPackage(join(root, "node_modules", name))
    return `Files: usr/bin/mvm (${name} ${version})\nCopyright: its authors\nLicense: ${license}\n`
  })
  return [
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
    "Upstream-Name: mvm",
    "Comment: The executable holds the runtime bun and the packages below. Bun's JavaScriptCore is under the LGPL",
    " version 2.1, in /usr/share/common-licenses/LGPL-2.1.",
    "",
    "Files: *",
    `Copyright: ${/^Copyright.*$/m.exec(own)?.[0].replace(/^Copyright (\(c\) )?/, "") ?? "the authors of mvm"}`,
    "License: MIT",
    ...own
      .trim()
      .split("\n")
      .map((line) => (line === "" ? " ." : ` ${line}`)),
    "",
    parts.join("\n"),
  ].join("\n")
}

function readPackage(folder: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, unknown>
}
