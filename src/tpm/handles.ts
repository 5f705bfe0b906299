/**
 * @module tpm/handles
 *
 * Where the objects that mvm keeps in a vTPM live. All are persistent under the platform hierarchy, so that
 * neither TPM2_Clear nor the owner of the guest can remove them: 0x8180xxxx is the platform's half of the
 * persistent range, and an NV index with PLATFORMCREATE belongs to the platform.
 *
 * @spec TCG Registry of Reserved TPM 2.0 Handles §2.3.1
 */

/** Restricted ECC storage key. */
export const STORAGE_HANDLE = 0x81800001

/** Restricted ECDSA-SHA256 P-256 key: signs nothing but what the TPM made, so a quote of it is a quote. */
export const ATTESTATION_HANDLE = 0x81800002

/** Unrestricted ECDSA-SHA256 P-256 key: signs requests and transcripts, never accepted for an attest. */
export const IDENTITY_HANDLE = 0x81800010

/** ECDH P-256 key that opens grants. */
export const SEALING_HANDLE = 0x81800011

/** NV index with the MVM's public key, 65 bytes SEC1; guests read it and cannot write it. */
export const MVM_KEY_NV_INDEX = 0x01c10100

/** The persistent keys of a VM by the names the rest of the program uses. */
export const KEY_HANDLES = {
  storage: STORAGE_HANDLE,
  attestation: ATTESTATION_HANDLE,
  identity: IDENTITY_HANDLE,
  sealing: SEALING_HANDLE,
} as const

export type KeyName = keyof typeof KEY_HANDLES
