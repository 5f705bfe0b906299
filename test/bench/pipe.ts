/**
 * @module bench/pipe
 *
 * A whole file through the commands people type, beside the programs they use today: from a file, and in a pipe
 * between two cats.
 */

import { BenchHost } from "./host.ts"
import { figure, ratios, type Bench } from "./measure.ts"
import { SshPeer } from "./ssh-peer.ts"
import { TlsPeer } from "./tls-peer.ts"
import { RECEIVER, SENDER, transfer } from "./transfer.ts"

const LENGTH_BYTES = 4 * 2 ** 30

export const bench: Bench = async ({ rounds, note }) => {
  using tls = await TlsPeer.start(LENGTH_BYTES)
  using ssh = await SshPeer.start()
  const host = await BenchHost.start()
  try {
    for (const name of [SENDER, RECEIVER]) await host.addMember(name)
    const rows = { file: row(), pipe: row(), tlsFile: row(), tlsPipe: row(), ssh: row() }
    for (let round = 0; round < rounds; round += 1) {
      rows.file.push(await transfer(host, tls.file, "file"))
      rows.tlsFile.push(await tls.round("file"))
      rows.ssh.push(await ssh.round(tls.file))
      rows.pipe.push(await transfer(host, tls.file, "cats"))
      rows.tlsPipe.push(await tls.round("cats"))
      note(`pipe: round ${round + 1} of ${rounds}`)
    }
    return [
      figure("pipe.file_gb_s", "GB/s", rows.file),
      figure("pipe.pipe_gb_s", "GB/s", rows.pipe),
      figure("pipe.socat_tls_file_gb_s", "GB/s", rows.tlsFile),
      figure("pipe.socat_tls_pipe_gb_s", "GB/s", rows.tlsPipe),
      figure("pipe.ssh_gb_s", "GB/s", rows.ssh),
      figure("pipe.file_vs_socat_tls", "", ratios(rows.file, rows.tlsFile), "at least 3"),
      figure("pipe.pipe_vs_socat_tls", "", ratios(rows.pipe, rows.tlsPipe), "at least 2.5"),
      figure("pipe.vs_ssh", "", ratios(rows.file, rows.ssh), "at least 4"),
    ]
  } finally {
    await host.stop()
  }
}

function row(): number[] {
  return []
}
