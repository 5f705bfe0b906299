/**
 * @module test/tpm/golden
 *
 * Bytes of TPM structures that tpm2-tools wrote, and what the decoder tests share.
 */

import { expect } from "bun:test"
import { MvmError } from "../../src/lib/errors.ts"

// Written by tpm2_quote, tpm2_readpublic -f tss (without its length), tpm2_nvreadpublic of a provisioned vTPM.
export const ATTEST =
  "ff54434780180022000b3a89bd7061de44c21f39338a58cf81b8d2757d875ff9539c1c2b14d30b231b8000040011223300000000" +
  "00000051000000030000000001201910230016363600000001000b03ff060000207b6436b0c98f62380866d9432c2af0ee08ce16" +
  "a171bda6951aecd95ee1307d61"
export const SIGNATURE =
  "0018000b0020fed2071e01cf08d572e02b808863ef5536a2cb1853e469aafcea02d66a7b71050020f570bcd79a05ea3742cef4db" +
  "fc647a5df3c5b662d7e8ebada4240b1651797b7e"
export const STORAGE_PUBLIC =
  "0023000b0003047200000006008000430010000300100020a49fb4b80b03d04ce2f4d0076ee2c409b6561add296090fd47b711a9" +
  "2083c3ff0020b166c841ed863cf9da303827896bf5a104a302391cd1ec64bd1ae7e30e9a3e24"
export const ATTESTATION_PUBLIC =
  "0023000b00050472000000100018000b00030010002086770d2049a723161203877781d97b5a1d2df9b03ceba1e82e955607df86" +
  "9d2500206e0cf8d251d4e3ccb83e4b6438f6260f99a6a3f79b3c166f892397b669777835"
export const ATTESTATION_NAME = "000b31a1a1d3d49ce2ecc58c0cfa79438264aa1ce0451f630cb68a6a9d5d91ce21a8"
export const SEALING_PUBLIC =
  "0023000b00020472000000100019000b000300100020a8fbaca8e2f4fad5f1e78bc260d9420049127be1b488a7ce94f1f79abc20" +
  "ae6b0020ce86d0d29655903af03258c2830d65b5d993e610678371fc376abb5ab399a3e0"
export const NV_PUBLIC = "01c10100000b6207000100000041"
export const SELECTION = "00000001000b03ff0600"
export const DIGESTS = `000000020020${"11".repeat(32)}0020${"22".repeat(32)}`
export const CLOCK_INFO = "0000000000000051000000030000000001"

export function failure(run: () => unknown): MvmError {
  let error: unknown
  try {
    run()
  } catch (thrown) {
    error = thrown
  }
  expect(error).toBeInstanceOf(MvmError)
  return error as MvmError
}

/** Deterministic 32-bit generator, so that a failure can be repeated. */
function mulberry32(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
}

/** Decodes mutated copies; only MvmError may come out. */
export function survivesMutation(golden: Uint8Array, decode: (bytes: Uint8Array) => unknown): void {
  const next = mulberry32(0x7e57)
  for (let round = 0; round < 2000; round++) {
    const bytes = golden.slice(0, 1 + (next() % (golden.length + 1)))
    const flips = 1 + (next() % 4)
    for (let i = 0; i < flips; i++) bytes[next() % bytes.length] = next() & 0xff
    try {
      decode(bytes)
    } catch (error) {
      if (!(error instanceof MvmError)) throw error
    }
  }
}
