/**
 * @module wire/reserved
 *
 * Service names that the agents answer themselves.
 */

const PREFIX = "mvm."

/** Every agent answers it: one record there, the same one back. The policy decides over it as over any service. */
export const PING_SERVICE = "mvm.ping"

/** Whether only an agent itself may offer `service`. */
export function isReserved(service: string): boolean {
  return service.startsWith(PREFIX)
}
