/**
 * @module test/channel/secrets
 *
 * What both sides of the test of wiped secrets know, and none of it is secret.
 */

import type { LinkTranscript } from "../../src/tcb/link-handshake.ts"

export const TRANSCRIPT = new Uint8Array(32).fill(7)
export const INFO = new Uint8Array(8).fill(3)

export function linkTranscript(mvmShare: Uint8Array): LinkTranscript {
  const bytes = (length: number): Uint8Array => new Uint8Array(length).fill(5)
  return {
    version: 1,
    vmUuid: bytes(16),
    vmName: "a",
    epoch: bytes(16),
    guestNonce: bytes(32),
    guestShare: bytes(32),
    mvmShare,
    bootId: bytes(16),
    mvmMeasurement: bytes(32),
  }
}
