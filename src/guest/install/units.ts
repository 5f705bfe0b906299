/**
 * @module guest/install/units
 *
 * The systemd units of a guest.
 *
 * The agent is root with few of root's powers: it reads the kernel's measurement log and other users' programs, and
 * maps PCI memory. It makes code at run time (so no MemoryDenyWriteExecute), and sysfs must be writable for the
 * shared memory (so no ProtectKernelTunables).
 */

import { COMMON_HARDENING } from "../../platform/unit-hardening.ts"

/** How systemd writes the path of the port's device. @spec systemd.unit(5), string escaping */
export const PORT_DEVICE = "dev-virtio\\x2dports-org.mvm.0.device"

/** @param executable absolute path of mvm */
export function agentUnit(executable: string): string {
  return `[Unit]
Description=mvm guest agent
Documentation=man:mvm(1)
BindsTo=${PORT_DEVICE}
Wants=dev-tpmrm0.device
After=${PORT_DEVICE} dev-tpmrm0.device

[Service]
Type=notify
WatchdogSec=120
# The kernel first hashes the whole program, which takes its time on an emulated processor.
TimeoutStartSec=10min
ExecStart=${executable} guest agent --group mvm
Restart=always
RestartSec=1
LimitNOFILE=65536
ReadWritePaths=/run/mvm
StateDirectory=mvm-agent
StateDirectoryMode=0700
ProtectHome=read-only
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_PTRACE CAP_SYS_RAWIO
DevicePolicy=closed
DeviceAllow=char-virtio-portsdev rw
DeviceAllow=char-tpm rw
DeviceAllow=/dev/tpmrm0 rw
DeviceAllow=/dev/mem rw
SystemCallFilter=@system-service
${COMMON_HARDENING}
[Install]
WantedBy=${PORT_DEVICE}
`
}

/** One service file of /etc/mvm/services.d: `mvm-service@NAME.service` serves NAME.toml. */
export function serviceUnit(executable: string): string {
  return `[Unit]
Description=mvm service %i
Documentation=man:mvm(1)
Wants=mvm-agent.service
After=mvm-agent.service
ConditionPathExists=/etc/mvm/services.d/%i.toml

[Service]
Type=notify
WatchdogSec=120
TimeoutStartSec=10min
ExecStart=${executable} guest serve --file /etc/mvm/services.d/%i.toml
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
Restart=always
RestartSec=1

[Install]
WantedBy=mvm-agent.service
`
}
