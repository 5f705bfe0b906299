/**
 * @module platform/qemu-args
 *
 * A VM's options as QEMU arguments. Everything a VM has is named here: no defaults, no display, no user
 * configuration, no network card unless asked for, no suspend to memory or disk.
 */

import { MvmError } from "../lib/errors.ts"
import { accelArgs, type Accel } from "./accel.ts"

/**
 * What every guest kernel is told. IMA measures an initramfs only on ramfs, and measures init, busybox and the policy
 * file by its `tcb` rules until init has loaded ours. A panic is a reset, and a reset ends QEMU.
 */
export function kernelAppend(machine: Machine): string {
  return [
    `console=${machine === "virt" ? "ttyAMA0" : "ttyS0"}`,
    "quiet",
    "loglevel=3",
    "panic=1",
    "rootfstype=ramfs",
    "ima_policy=tcb",
    "ima_hash=sha256",
    "module.sig_enforce=1",
    "nohibernate",
  ].join(" ")
}

/** The name by which a guest finds its link to the MVM. */
export const LINK_PORT_NAME = "org.mvm.0"

/** Its device in the monitor's words: QEMU reports opening and closing only of a port with an id. */
export const LINK_PORT_ID = "link0"

/** pcie-root-ports for hot-plug on machines that need one for each device. */
const HOTPLUG_PORTS = 8

/** Of the first of them in a machine that others start: chassis have numbers, and they count theirs from 1. */
const FIRST_OTHERS_CHASSIS = 201

/** Devices that `pc` gets plugged at once; its bus has 32 places in all. */
const HOTPLUG_SLOTS = 16

/** The greatest BAR of a plugged device. A root port is given room for one when the firmware starts, or has none. */
export const HOTPLUG_MAX_BYTES = 512 * 2 ** 20

export interface QemuOptions {
  name: string
  uuid: string
  /** Absolute paths; so are all other paths here. */
  kernel: string
  initrd: string
  /** The whole kernel command line: {@link kernelAppend} and what the user adds. */
  append: string
  memoryMiB: number
  cpus: number
  net: "none" | "user"
  /** A raw image, or qcow2 by its extension. */
  disk?: string | undefined
  firmware: Firmware
  machine: Machine
  arena?: { path: string; sizeBytes: number } | undefined
  vtpmControlSocket: string
  linkSocket: string
  qmpSocket: string
  consoleSocket: string
  consoleLog: string
  accel: Accel
  /** With `ovmf`: this VM's own copy of the variable store. */
  firmwareVars?: string | undefined
}

/** Only these start a VM: both set the TPM's platform authorisation before anything of the guest runs. */
export type Firmware = "seabios" | "ovmf"
/** `virt` is the arm64 machine. */
export type Machine = "pc" | "q35" | "virt"

/** What a VM of this host is where nobody chose. @param arch as the runtime names it */
export function usualMachine(arch: string = process.arch): Machine {
  return arch === "arm64" ? "virt" : "pc"
}

/** The firmware of a machine where nobody chose. */
export function usualFirmware(machine: Machine): Firmware {
  return machine === "virt" ? "ovmf" : "seabios"
}

/** Debian's package of the QEMU program. */
export function qemuPackage(machine: Machine): string {
  return machine === "virt" ? "qemu-system-arm" : "qemu-system-x86"
}

/** Debian's package of a firmware. */
export function firmwarePackage(firmware: Firmware, machine: Machine): string {
  if (machine === "virt") return "qemu-efi-aarch64"
  return firmware
}

/** The QEMU program of a machine type. */
export function qemuProgram(machine: Machine): string {
  return machine === "virt" ? "qemu-system-aarch64" : "qemu-system-x86_64"
}

/** Where memory can be plugged into a machine: the id of a bus for each device it can have at once. */
export function hotplugBuses(machine: Machine): string[] {
  if (machine === "pc") return Array.from({ length: HOTPLUG_SLOTS }, () => "pci.0")
  return Array.from({ length: HOTPLUG_PORTS }, (_, port) => `hotplug${port}`)
}

/** The firmware file and the template of its variable store, from the Debian packages. */
export function firmwareFiles(firmware: Firmware, machine: Machine): { code: string; vars?: string } {
  if (machine === "virt") {
    if (firmware !== "ovmf") throw new MvmError("config", "firmware: the virt machine starts with ovmf only")
    return { code: "/usr/share/AAVMF/AAVMF_CODE.fd", vars: "/usr/share/AAVMF/AAVMF_VARS.fd" }
  }
  if (firmware === "seabios") return { code: "/usr/share/seabios/bios-256k.bin" }
  return { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", vars: "/usr/share/OVMF/OVMF_VARS_4M.fd" }
}

/** Where Debian's packages put SeaBIOS and OVMF. */
const FIRMWARE_FOLDERS = ["seabios", "OVMF", "AAVMF", "ovmf", "qemu", "qemu-efi-aarch64"]
/** What they are called there: the same folders have other firmware, such as qboot, which measures nothing. */
const FIRMWARE_NAMES = /^(bios(-256k)?\.bin|(OVMF|AAVMF|QEMU_EFI)[\w.-]*\.fd|edk2-[\w-]+-code\.fd)$/

/** Whether the file is one of them: other firmware may leave the TPM's platform hierarchy open. */
export function isKnownFirmware(path: string): boolean {
  const [, share, folder = "", name = ""] = /^(\/usr\/share)\/([^/]+)\/([^/]+)$/.exec(path) ?? []
  return share !== undefined && FIRMWARE_FOLDERS.includes(folder) && FIRMWARE_NAMES.test(name)
}

/**
 * The arguments after the program's name.
 *
 * A reset ends QEMU (`reboot=shutdown`): inside one QEMU process swtpm would be re-initialised without the MVM checking
 * keys and rewriting the pinned key first, so the MVM starts the next boot itself.
 *
 * @throws MvmError `config` for values QEMU cannot take, naming the field.
 */
export function qemuArgs(options: QemuOptions): string[] {
  requireValues(options)
  return [
    ...["-name", `guest=${quote(options.name)},debug-threads=on`, "-uuid", options.uuid],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-action", "reboot=shutdown,panic=shutdown"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...machineArgs(options.machine),
    ...accelArgs(options.accel),
    ...["-m", `${options.memoryMiB}`, "-smp", `${options.cpus}`, "-rtc", "base=utc"],
    ...firmwareArgs(options),
    ...["-kernel", options.kernel, "-initrd", options.initrd, "-append", options.append],
    ...["-chardev", `socket,id=vtpm,path=${quote(options.vtpmControlSocket)}`],
    ...["-tpmdev", "emulator,id=tpm0,chardev=vtpm"],
    // No physical presence interface: with it OVMF stops at a prompt when a guest asks for a clear. The CRB device has
    // no locality a guest's root can choose.
    ...["-device", options.machine === "virt" ? "tpm-tis-device,tpmdev=tpm0" : "tpm-crb,tpmdev=tpm0,ppi=off"],
    ...listener("link", options.linkSocket),
    ...["-device", "virtio-serial-pci,id=serial0,max_ports=4"],
    ...[
      "-device",
      `virtserialport,id=${LINK_PORT_ID},bus=serial0.0,nr=1,chardev=link,name=${LINK_PORT_NAME}`,
    ],
    ...listener("console", options.consoleSocket, `,logfile=${quote(options.consoleLog)},logappend=on`),
    ...["-serial", "chardev:console"],
    ...listener("qmp", options.qmpSocket),
    ...["-mon", "chardev=qmp,mode=control"],
    ...arenaArgs(options),
    ...diskArgs(options),
    ...["-nic", options.net === "none" ? "none" : "user,model=virtio-net-pci"],
  ]
}

/** What a QEMU that others start needs of the MVM's. Absolute paths. */
export interface MemberParts {
  readonly arena: { readonly path: string; readonly sizeBytes: number } | undefined
  readonly vtpmControlSocket: string
  /** The MVM listens there. */
  readonly linkSocket: string
  /** QEMU listens there. */
  readonly qmpSocket: string
}

/**
 * The arguments that make a QEMU which a person starts a member: vTPM, link, monitor, arena, no suspend, and an end in
 * place of a reset. The rest (machine, kernel, disks) is the person's.
 */
export function memberArgs(parts: MemberParts, machine: Machine): string[] {
  const { arena } = parts
  const chardev = (id: string, path: string, more = ""): string[] => {
    return ["-chardev", `socket,id=${id},path=${quote(path)}${more}`]
  }
  return [
    ...["-action", "reboot=shutdown"],
    ...noSuspendArgs(machine),
    ...chardev("mvm-vtpm", parts.vtpmControlSocket),
    ...["-tpmdev", "emulator,id=mvm-tpm,chardev=mvm-vtpm"],
    ...["-device", machine === "virt" ? "tpm-tis-device,tpmdev=mvm-tpm" : "tpm-crb,tpmdev=mvm-tpm,ppi=off"],
    ...chardev("mvm-link", parts.linkSocket, ",reconnect=1"),
    ...["-device", "virtio-serial-pci,id=mvm-serial,max_ports=4"],
    "-device",
    `virtserialport,id=${LINK_PORT_ID},bus=mvm-serial.0,nr=1,chardev=mvm-link,name=${LINK_PORT_NAME}`,
    ...chardev("mvm-qmp", parts.qmpSocket, ",server=on,wait=off"),
    ...["-mon", "chardev=mvm-qmp,mode=control"],
    ...(arena
      ? [
          "-object",
          `memory-backend-file,id=mvm-arena,mem-path=${quote(arena.path)},size=${arena.sizeBytes},share=on`,
          ...["-device", "ivshmem-plain,memdev=mvm-arena"],
        ]
      : []),
  ]
}

/**
 * Ports that such a QEMU needs so that channels can have memory of their own. Any empty ports with ids of its own do as
 * well.
 */
export function memberPortArgs({ arena }: MemberParts, machine: Machine): string[] {
  return arena === undefined || machine === "pc" ? [] : hotplugPorts(FIRST_OTHERS_CHASSIS)
}

function machineArgs(machine: Machine): string[] {
  if (machine === "virt") return ["-machine", "virt,gic-version=max", ...hotplugPorts()]
  const common = "vmport=off,dump-guest-core=off"
  if (machine === "pc") {
    return ["-machine", `pc,${common}`, ...noSuspendArgs(machine)]
  }
  return ["-machine", `q35,${common}`, ...noSuspendArgs(machine), ...hotplugPorts()]
}

/**
 * A suspended guest's firmware restarts the TPM with its PCRs zero and its platform hierarchy open. This takes sleep out
 * of what the firmware offers, and no more: the chipset still obeys who writes its register, and then the monitor says
 * SUSPEND.
 */
export function noSuspendArgs(machine: Machine): string[] {
  if (machine === "virt") return []
  const chipset = machine === "pc" ? "PIIX4_PM" : "ICH9-LPC"
  return ["-global", `${chipset}.disable_s3=1`, "-global", `${chipset}.disable_s4=1`]
}

function hotplugPorts(firstChassis = 1): string[] {
  const reserve = `pref64-reserve=${HOTPLUG_MAX_BYTES}`
  return hotplugBuses("q35").flatMap((id, index) => [
    "-device",
    `pcie-root-port,id=${id},chassis=${firstChassis + index},${reserve}`,
  ])
}

function firmwareArgs(options: QemuOptions): string[] {
  const { code, vars } = firmwareFiles(options.firmware, options.machine)
  if (vars === undefined) return ["-bios", code]
  if (options.firmwareVars === undefined) {
    throw new MvmError("config", `firmware: ${options.firmware} needs a variable store of this vm`)
  }
  const flash = (unit: number, file: string, isReadOnly: boolean) =>
    `if=pflash,format=raw,unit=${unit},file=${quote(file)}${isReadOnly ? ",readonly=on" : ""}`
  return ["-drive", flash(0, code, true), "-drive", flash(1, options.firmwareVars, false)]
}

function arenaArgs({ arena }: QemuOptions): string[] {
  if (arena === undefined) return []
  const backend = `memory-backend-file,id=arena,mem-path=${quote(arena.path)},size=${arena.sizeBytes},share=on`
  return ["-object", backend, "-device", "ivshmem-plain,id=arena0,memdev=arena"]
}

function diskArgs({ disk }: QemuOptions): string[] {
  if (disk === undefined) return []
  const format = disk.endsWith(".qcow2") ? "qcow2" : "raw"
  return ["-drive", `file=${quote(disk)},format=${format},if=virtio`]
}

function listener(id: string, path: string, more = ""): string[] {
  return ["-chardev", `socket,id=${id},path=${quote(path)},server=on,wait=off${more}`]
}

/** QEMU's option lists separate values with commas; a doubled one stands for itself. */
function quote(value: string): string {
  return value.replaceAll(",", ",,")
}

function requireValues(options: QemuOptions): void {
  const refuse = (field: string, problem: string): never => {
    throw new MvmError("config", `${field}: ${problem}`)
  }
  const paths = [
    "kernel",
    "initrd",
    "disk",
    "vtpmControlSocket",
    "linkSocket",
    "qmpSocket",
    "consoleSocket",
  ] as const
  for (const field of [...paths, "consoleLog", "firmwareVars"] as const) {
    const path = options[field]
    if (path === undefined) continue
    if (!path.startsWith("/") || path.includes("\0")) refuse(field, "not an absolute path")
    if (field.endsWith("Socket") && Buffer.byteLength(path) > 107) refuse(field, "longer than 107 bytes")
  }
  if (!/^[\w.-]{1,64}$/.test(options.name)) refuse("name", "not 1 to 64 letters, digits, dots or dashes")
  if (!Number.isSafeInteger(options.memoryMiB) || options.memoryMiB < 64) refuse("memoryMiB", "less than 64")
  if (!Number.isSafeInteger(options.cpus) || options.cpus < 1) refuse("cpus", "less than 1")
  if (/[\0\n]/.test(options.append)) refuse("append", "holds a control character")
  const sizeBytes = options.arena?.sizeBytes
  if (sizeBytes !== undefined && (sizeBytes < 4096 || !Number.isInteger(Math.log2(sizeBytes)))) {
    refuse("arena", `${sizeBytes} bytes is not a power of two of at least 4096`)
  }
}
