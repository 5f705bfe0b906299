/** @module cli/guest/install */

import {
  GROUP,
  KERNEL_WORDS,
  guestActivation,
  guestDeactivation,
  guestForgetting,
  guestInstallation,
} from "../../guest/install/plan.ts"
import type { CommandSpec } from "../command.ts"
import { INSTALL_OPTIONS, runInstaller } from "../installer.ts"

export const guestInstall: CommandSpec = {
  usage: "guest install",
  summary: "make the agent a service of this VM, and have its kernel measure",
  options: INSTALL_OPTIONS,
  examples: [
    "guest install",
    "guest install --dry-run",
    "guest install --uninstall",
    "guest install --root /mnt",
  ],
  async run(call) {
    return runInstaller(call, {
      plan: guestInstallation,
      activate: guestActivation,
      deactivate: guestDeactivation,
      forget: guestForgetting,
      left: `the group ${GROUP} stays`,
      advice: () => [
        `the kernel's command line must have: ${KERNEL_WORDS.join(" ")} (and its root=)`,
        "mvm vm start says them; where the VM's own boot loader does: update-grub, then reboot",
        `users of the group ${GROUP} may open channels: usermod -aG ${GROUP} USER`,
        "mvm guest doctor says what else this VM lacks",
      ],
    })
  },
}
