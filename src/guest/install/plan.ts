/**
 * @module guest/install/plan
 *
 * What `mvm guest install` writes, and how it is put in force: the agent as a unit that starts with its port, the
 * kernel's measurement policy, the group whose users may use channels, and what keeps them from the devices behind.
 */

import type { Installation } from "../../platform/installation.ts"
import type { SystemProgram } from "../../platform/system-programs.ts"
import { findVirtioPort } from "../../platform/virtio-port.ts"
import { PORT_NAME } from "../environment.ts"
import { IMA_POLICY, IMA_POLICY_PATH } from "./ima-policy.ts"
import { PORT_DEVICE, agentUnit, serviceUnit } from "./units.ts"

export const GROUP = "mvm"
export const AGENT_SERVICE = "mvm-agent.service"
const SERVICE_TEMPLATE = "mvm-service@.service"
/** All of them that systemd has loaded. */
const ANY_SERVICE = "mvm-service@*.service"

/**
 * What the kernel must be told. `mvm vm start` says it itself; a VM with a boot loader of its own says it there. An
 * initramfs is measured because the line names a root: the kernel then keeps it on ramfs, not on tmpfs.
 */
export const KERNEL_WORDS = ["ima_policy=tcb", "ima_hash=sha256", "module.sig_enforce=1", "nohibernate"]

export interface PlanOptions {
  /** Absolute path of mvm on the installed system. */
  readonly executable: string
  /** Written for a package: below /usr/lib, and not enabled. */
  readonly vendor: boolean
}

export function guestInstallation({ executable, vendor }: PlanOptions): Installation {
  const base = vendor ? "/usr/lib" : "/etc"
  const file = (path: string, content: string) => ({ path, mode: 0o644, content })
  const units = `${base}/systemd/system`
  return {
    name: "guest",
    folders: [
      { path: "/etc/mvm", mode: 0o755 },
      { path: "/etc/mvm/services.d", mode: 0o755 },
    ],
    files: [
      file(`${base}/sysusers.d/mvm-guest.conf`, SYSUSERS),
      file(`${base}/tmpfiles.d/mvm-guest.conf`, TMPFILES),
      file(`${base}/modules-load.d/mvm-guest.conf`, MODULES),
      file(`${base}/sysctl.d/60-mvm-guest.conf`, SYSCTL),
      file(`${base}/udev/rules.d/70-mvm-guest.rules`, UDEV),
      file(IMA_POLICY_PATH, IMA_POLICY),
      file("/etc/default/grub.d/mvm-guest.cfg", GRUB),
      file(`${units}/${AGENT_SERVICE}`, agentUnit(executable)),
      file(`${units}/${SERVICE_TEMPLATE}`, serviceUnit(executable)),
    ],
    links: vendor
      ? []
      : [
          {
            path: `/etc/systemd/system/${PORT_DEVICE}.wants/${AGENT_SERVICE}`,
            target: `${units}/${AGENT_SERVICE}`,
          },
        ],
  }
}

/** Puts the files in force on the system that runs. */
export function guestActivation(): SystemProgram[] {
  const unless = findVirtioPort(PORT_NAME) ? undefined : `this machine has no port ${PORT_NAME} yet`
  return [
    { argv: ["systemd-sysusers"] },
    { argv: ["systemd-tmpfiles", "--create", "--prefix=/run/mvm"] },
    { argv: ["systemctl", "daemon-reload"] },
    { argv: ["udevadm", "control", "--reload"] },
    { argv: ["udevadm", "trigger", "--settle", "--subsystem-match=virtio-ports"] },
    { argv: ["udevadm", "trigger", "--settle", "--subsystem-match=tpm", "--subsystem-match=tpmrm"] },
    { argv: ["systemctl", "restart", "systemd-sysctl.service", "systemd-modules-load.service"] },
    { argv: ["update-grub"] },
    { argv: ["systemctl", "restart", AGENT_SERVICE], unless },
    // Those that run; the others start with the agent.
    { argv: ["systemctl", "try-restart", ANY_SERVICE] },
  ]
}

/** Before the files go. */
export function guestDeactivation(): SystemProgram[] {
  return [
    { argv: ["systemctl", "stop", ANY_SERVICE] },
    // A template stands for all that was enabled of it.
    { argv: ["systemctl", "disable", SERVICE_TEMPLATE] },
    { argv: ["systemctl", "disable", "--now", AGENT_SERVICE] },
  ]
}

/** After the files went. */
export function guestForgetting(): SystemProgram[] {
  return [
    { argv: ["systemctl", "daemon-reload"] },
    { argv: ["udevadm", "control", "--reload"] },
    { argv: ["udevadm", "trigger", "--settle", "--subsystem-match=tpm", "--subsystem-match=tpmrm"] },
    { argv: ["update-grub"] },
  ]
}

const SYSUSERS = `# Users of this group may open channels to other VMs, as far as the host's policy lets this VM.
g ${GROUP} -
`

const TMPFILES = `# The agent's socket is in here.
d /run/mvm 0755 root root -
`

const MODULES = `# The driver of the port to the host.
virtio_console
`

const SYSCTL = `# Nobody reads another process's memory, and the measured kernel is not replaced: both last until the next boot.
kernel.yama.ptrace_scope = 3
kernel.kexec_load_disabled = 1
kernel.dmesg_restrict = 1
kernel.kptr_restrict = 2
`

// Whoever opens the port is the VM for the host; whoever opens the TPM can sign and quote in its name.
const UDEV = `# The link to the host and the TPM behind it are the agent's alone.
SUBSYSTEM=="virtio-ports", ATTR{name}=="${PORT_NAME}", OWNER="root", GROUP="root", MODE="0600", SYMLINK+="virtio-ports/$attr{name}", TAG+="systemd"
SUBSYSTEM=="tpm", KERNEL=="tpm[0-9]*", OWNER="root", GROUP="root", MODE="0600"
SUBSYSTEM=="tpmrm", KERNEL=="tpmrm[0-9]*", OWNER="root", GROUP="root", MODE="0600", TAG+="systemd"
`

const GRUB = `# Has the kernel measure from its first program on. In force after update-grub and a reboot.
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX ${KERNEL_WORDS.join(" ")}"
`
