/**
 * @module mvm/install/units
 *
 * The systemd units of the host: the daemon, and its VMs' start and end with the host.
 *
 * QEMU and swtpm are the daemon's children and outlive it, so that stopping or upgrading it stops no VM; they have its
 * limits too, and one that memory was too short for ends alone. The runtime makes code while it runs, and so does QEMU's
 * translator: no MemoryDenyWriteExecute. RemoveIPC would remove the arena from /dev/shm. It must see libvirt's QEMUs,
 * which are another user's: no ProtectProc. And it begins before libvirt does, whose domains may start with the host and
 * wait for their vTPMs.
 */

import { COMMON_HARDENING } from "../../platform/unit-hardening.ts"

export const SERVICE_STATE = "/var/lib/mvm"
export const SERVICE_POLICY = "/etc/mvm/policy.toml"

/** Neither needs any of root's powers. */
const HOST_HARDENING = `${COMMON_HARDENING}CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelTunables=yes
`

/** @param executable absolute path of mvm */
export function hostUnit(executable: string): string {
  return `[Unit]
Description=mvm, channels between virtual machines
Documentation=man:mvm(1)
After=network.target
Before=libvirtd.service virtqemud.service libvirt-guests.service

[Service]
Type=notify
WatchdogSec=30
User=mvm
Group=mvm
EnvironmentFile=-/etc/default/mvm
ExecStart=${executable} serve --state ${SERVICE_STATE} --policy ${SERVICE_POLICY} $MVM_SERVE_OPTIONS
Restart=on-failure
RestartSec=1
KillMode=process
OOMPolicy=continue
TasksMax=32768
LimitNOFILE=65536
RemoveIPC=no

ProtectHome=read-only
ReadWritePaths=${SERVICE_STATE} /run/mvm
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallFilter=@system-service seccomp
${HOST_HARDENING}
[Install]
WantedBy=multi-user.target
`
}

/**
 * Starts VMs with the host, and shuts all down in order before it ends: alone, the daemon leaves them to the host, which
 * kills them. A VM that does not start must not keep the others from an orderly end, hence the `-`. Nothing else starts
 * or stops this unit, so an upgrade of the daemon touches no VM.
 *
 * @param executable absolute path of mvm
 */
export function vmsUnit(executable: string): string {
  return `[Unit]
Description=mvm, virtual machines that start and end with the host
Documentation=man:mvm(1)
Wants=mvm.service
After=mvm.service

[Service]
Type=oneshot
RemainAfterExit=yes
User=mvm
Group=mvm
ExecStart=-${executable} vm start --all --state ${SERVICE_STATE}
ExecStop=${executable} vm stop --all --timeout 2m --state ${SERVICE_STATE}
TimeoutStartSec=10min
TimeoutStopSec=3min
ProtectHome=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=@system-service
${HOST_HARDENING}
[Install]
WantedBy=multi-user.target
`
}
