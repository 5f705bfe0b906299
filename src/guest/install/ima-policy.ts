/**
 * @module guest/install/ima-policy
 *
 * What the kernel of a guest measures into PCR 10: everything that is executed, mapped executable, or loaded into the
 * kernel, wherever it lies (tmpfs and memfd too), and no plain data reads.
 *
 * @spec Linux Documentation/ABI/testing/ima_policy
 */

import { IMA_POLICY_PATHS } from "../../tcb/measurement/reference-table.ts"

/** Where systemd looks for it, before it starts anything. @spec systemd src/core/ima-setup.c */
export const IMA_POLICY_PATH = IMA_POLICY_PATHS[1]

// The three magics: procfs, sysfs, securityfs.
export const IMA_POLICY = `# What the kernel of a guest measures into PCR 10 once init has loaded this file: everything that is executed,
# mapped executable, or loaded into the kernel, wherever it lies (tmpfs and memfd too), and no plain data reads.
dont_measure fsmagic=0x9fa0
dont_measure fsmagic=0x62656572
dont_measure fsmagic=0x73636673
measure func=BPRM_CHECK mask=MAY_EXEC
measure func=MMAP_CHECK mask=MAY_EXEC
measure func=MODULE_CHECK
measure func=FIRMWARE_CHECK
measure func=POLICY_CHECK
measure func=KEXEC_KERNEL_CHECK
measure func=KEXEC_INITRAMFS_CHECK
measure func=KEXEC_CMDLINE
measure func=CRITICAL_DATA
`
