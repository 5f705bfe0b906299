/**
 * @module mvm/install/plan
 *
 * What `mvm install` writes on the host, and how it is put in force: the daemon as a unit of a user of its own, with
 * the folders that user needs.
 */

import type { Installation } from "../../platform/installation.ts"
import { groupMembers, type SystemProgram } from "../../platform/system-programs.ts"
import { SERVICE_POLICY, SERVICE_STATE, hostUnit, vmsUnit } from "./units.ts"

export const HOST_USER = "mvm"
export const HOST_SERVICE = "mvm.service"
const VMS_SERVICE = "mvm-vms.service"

export interface PlanOptions {
  /** Absolute path of mvm on the installed system. */
  readonly executable: string
  /** Written for a package: below /usr/lib, and not enabled. */
  readonly vendor: boolean
}

export function hostInstallation({ executable, vendor }: PlanOptions): Installation {
  const base = vendor ? "/usr/lib" : "/etc"
  const file = (path: string, content: string) => ({ path, mode: 0o644, content })
  const unit = (name: string): string => `${base}/systemd/system/${name}`
  return {
    name: "host",
    folders: [{ path: "/etc/mvm", mode: 0o755 }],
    files: [
      file(`${base}/sysusers.d/mvm-host.conf`, SYSUSERS),
      file(`${base}/tmpfiles.d/mvm-host.conf`, TMPFILES),
      file(SERVICE_POLICY, POLICY),
      file("/etc/default/mvm", DEFAULTS),
      file(unit(HOST_SERVICE), hostUnit(executable)),
      file(unit(VMS_SERVICE), vmsUnit(executable)),
    ],
    links: vendor
      ? []
      : [HOST_SERVICE, VMS_SERVICE].map((name) => {
          return { path: `/etc/systemd/system/multi-user.target.wants/${name}`, target: unit(name) }
        }),
  }
}

/** Puts the files in force on the system that runs. */
export function hostActivation(): SystemProgram[] {
  const isLibvirtHost = groupMembers("libvirt") !== undefined
  return [
    { argv: ["systemd-sysusers"] },
    { argv: ["systemd-tmpfiles", "--create", "--prefix=/run/mvm", `--prefix=${SERVICE_STATE}`] },
    // Its group may talk to libvirt's daemon, which then needs no password.
    ...(isLibvirtHost ? [{ argv: ["usermod", "-aG", "libvirt", HOST_USER] } as const] : []),
    { argv: ["systemctl", "daemon-reload"] },
    { argv: ["systemctl", "restart", HOST_SERVICE] },
    // From now on the host's shutdown is theirs. Started already, it does nothing.
    { argv: ["systemctl", "start", VMS_SERVICE] },
  ]
}

/** Before the files go. The VMs run on, so what would stop them is not stopped. */
export function hostDeactivation(): SystemProgram[] {
  return [
    { argv: ["systemctl", "disable", VMS_SERVICE] },
    { argv: ["systemctl", "disable", "--now", HOST_SERVICE] },
  ]
}

/** After the files went. */
export function hostForgetting(): SystemProgram[] {
  return [{ argv: ["systemctl", "daemon-reload"] }]
}

// The group kvm may open /dev/kvm.
const SYSUSERS = `u ${HOST_USER} - "mvm, channels between virtual machines" ${SERVICE_STATE}
m ${HOST_USER} kvm
`

const TMPFILES = `d /run/mvm 0755 root root -
d ${SERVICE_STATE} 0700 ${HOST_USER} ${HOST_USER} -
# The shared memory of VMs that run is no litter, however old it is.
x /dev/shm/mvm-*
`

const POLICY = `# Who may talk to whom. Rules are tried in order and the first that matches decides; no match denies.
# mvm policy check says what is wrong with this file; a change is in force at once.
#
# [[rule]]
# service = "*"
# from = "web"
# to = "db"
# action = "allow"
`

const DEFAULTS = `# More words for mvm serve, as for example: --arena 1G --log-format json
MVM_SERVE_OPTIONS=
`
