/**
 * @module mvm/install/units
 *
 * The systemd unit of the host daemon. QEMU and swtpm are its children and outlive it, so that stopping or upgrading
 * it stops no VM; they have its limits too, and one that memory was too short for ends alone. The runtime makes code while it runs, and so does QEMU's translator: no
 * MemoryDenyWriteExecute. RemoveIPC would remove the arena from /dev/shm. It must see libvirt's QEMUs, which are another
 * user's: no ProtectProc. And it begins before libvirt does, whose domains may start with the host and wait for their
 * vTPMs.
 */

export const SERVICE_STATE = "/var/lib/mvm"
export const SERVICE_POLICY = "/etc/mvm/policy.toml"

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
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=${SERVICE_STATE} /run/mvm
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service seccomp
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`
}
