/** @module cli/install */

import {
  HOST_USER,
  hostActivation,
  hostDeactivation,
  hostForgetting,
  hostInstallation,
} from "../mvm/install/plan.ts"
import type { CommandSpec } from "./command.ts"
import { INSTALL_OPTIONS, runInstaller } from "./installer.ts"

export const installCommand: CommandSpec = {
  usage: "install",
  summary: "make the host daemon a service of this system",
  options: INSTALL_OPTIONS,
  examples: ["install", "install --dry-run", "install --uninstall", "install --root /mnt/host"],
  async run(call) {
    return runInstaller(call, {
      plan: hostInstallation,
      activate: hostActivation,
      deactivate: hostDeactivation,
      forget: hostForgetting,
      left: `the user ${HOST_USER}, its group and its state in /var/lib/mvm stay`,
      advice: () => [
        `the daemon runs as ${HOST_USER}, which must be able to read kernels and write disks of its VMs: they may lie in`,
        `  /var/lib/mvm, or elsewhere with ReadWritePaths=FOLDER under [Service] in systemctl edit mvm`,
        "mvm doctor says what else this host lacks",
      ],
    })
  },
}
