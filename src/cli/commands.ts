/**
 * @module cli/commands
 *
 * Every verb, in the order the overview shows them.
 */

import { auditExport, auditList, auditVerify } from "./audit.ts"
import { channelClose, channelList } from "./channel.ts"
import type { CommandSpec } from "./command.ts"
import { depositList, depositRemove } from "./deposit.ts"
import { completionCommand } from "./completion/command.ts"
import { doctorCommand } from "./doctor.ts"
import { guestAgent } from "./guest/agent.ts"
import { guestDoctor } from "./guest/doctor.ts"
import { guestCp } from "./guest/cp.ts"
import { guestConnect } from "./guest/connect.ts"
import { guestExec } from "./guest/exec.ts"
import { guestForward } from "./guest/forward.ts"
import { guestInstall } from "./guest/install.ts"
import { guestDeposit } from "./guest/deposit.ts"
import { guestPeers } from "./guest/peers.ts"
import { guestPing } from "./guest/ping.ts"
import { guestRecv } from "./guest/recv.ts"
import { guestServe } from "./guest/serve.ts"
import { guestSend } from "./guest/send.ts"
import { guestStatus } from "./guest/status.ts"
import { installCommand } from "./install.ts"
import { hostVerb } from "./host-verb.ts"
import { measureEvidence, measureExplain, measureVerify } from "./measure-evidence.ts"
import {
  measureApprove,
  measureDiff,
  measureExclude,
  measureExport,
  measureImport,
  measureRemove,
} from "./measure-values.ts"
import { measureLearn, measureRun, measureShow } from "./measure.ts"
import { policyCheck, policyTest } from "./policy.ts"
import { serveCommand } from "./serve.ts"
import { statusCommand } from "./status.ts"
import { vmConsole } from "./vm/console.ts"
import { vmCertificate } from "./vm/certificate.ts"
import { vmCreate } from "./vm/create.ts"
import { vmReboot, vmRemove, vmStart, vmStop, vmWait } from "./vm/lifecycle.ts"
import { vmList, vmShow } from "./vm/list.ts"
import { vmLibvirtXml, vmQemuArgs } from "./vm/machine.ts"
import { vmSet } from "./vm/set.ts"

export const COMMANDS: readonly CommandSpec[] = [
  serveCommand,
  statusCommand,
  installCommand,
  completionCommand,
  doctorCommand,
  vmCreate,
  vmStart,
  vmWait,
  vmStop,
  vmReboot,
  vmSet,
  vmRemove,
  vmList,
  vmShow,
  vmConsole,
  vmCertificate,
  vmLibvirtXml,
  vmQemuArgs,
  measureLearn,
  measureShow,
  measureDiff,
  measureApprove,
  measureRemove,
  measureExclude,
  measureImport,
  measureExport,
  measureExplain,
  measureRun,
  measureEvidence,
  measureVerify,
  policyCheck,
  policyTest,
  channelList,
  channelClose,
  depositList,
  depositRemove,
  auditList,
  auditVerify,
  auditExport,
  guestAgent,
  guestSend,
  guestRecv,
  guestServe,
  guestExec,
  guestForward,
  guestConnect,
  guestCp,
  guestDeposit,
  guestStatus,
  guestPeers,
  guestPing,
  guestInstall,
  guestDoctor,
  hostVerb(guestSend),
  hostVerb(guestRecv),
  hostVerb(guestExec),
  hostVerb(guestConnect),
  hostVerb(guestForward),
  hostVerb(guestPing),
  hostVerb(guestCp),
]
