/**
 * @module bench/echo-peer
 *
 * The answering end of an echo over a real channel: `bun echo-peer.ts AGENT-SOCKET`.
 */

import { KIND } from "../../src/channel/record.ts"
import { AgentClient } from "../../src/guest/agent-client.ts"
import { ChannelEnd } from "../../src/guest/channel-end.ts"

const agent = await AgentClient.connect(process.argv[2] ?? "")
const end = await ChannelEnd.offer(agent, { service: "echo", source: undefined, role: "duplex" }, () => {
  console.log("offered")
})
end.sealer.trySeal(KIND.HANDSHAKE, end.handshake)
end.flush()
while (!end.opener.ended) {
  const record = end.opener.tryOpen()
  if (record === null) {
    await end.awaitData()
  } else if (record.kind === KIND.DATA) {
    end.sealer.trySeal(KIND.DATA, record.plaintext)
    end.flush()
  }
}
end.close()
agent.close()
