/**
 * @module platform/unit-hardening
 *
 * What no unit of ours needs, whether it runs on the host or in a VM: lines of its [Service] section.
 *
 * @spec systemd.exec(5)
 */

export const COMMON_HARDENING = `NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
UMask=0077
`
