/**
 * @module tpm/constants
 *
 * The numbers of TPM 2.0 Part 2 that the commands used here need, under the specification's names.
 *
 * @spec TPM 2.0 Part 2 §6 (constants), §8 (attributes)
 */

/** @spec Part 2 §6.9 */
export const TPM_ST = {
  RSP_COMMAND: 0x00c4,
  NO_SESSIONS: 0x8001,
  SESSIONS: 0x8002,
  ATTEST_QUOTE: 0x8018,
  HASHCHECK: 0x8024,
} as const

/** @spec Part 2 §6.5.2 */
export const TPM_CC = {
  EVICT_CONTROL: 0x120,
  HIERARCHY_CONTROL: 0x121,
  CLEAR: 0x126,
  CLEAR_CONTROL: 0x127,
  HIERARCHY_CHANGE_AUTH: 0x129,
  NV_DEFINE_SPACE: 0x12a,
  PCR_ALLOCATE: 0x12b,
  CREATE_PRIMARY: 0x131,
  NV_WRITE: 0x137,
  DICTIONARY_ATTACK_PARAMETERS: 0x13a,
  PCR_RESET: 0x13d,
  STARTUP: 0x144,
  SHUTDOWN: 0x145,
  NV_READ: 0x14e,
  ECDH_ZGEN: 0x154,
  QUOTE: 0x158,
  SIGN: 0x15d,
  FLUSH_CONTEXT: 0x165,
  NV_READ_PUBLIC: 0x169,
  READ_PUBLIC: 0x173,
  GET_CAPABILITY: 0x17a,
  GET_RANDOM: 0x17b,
  PCR_READ: 0x17e,
  READ_CLOCK: 0x181,
  PCR_EXTEND: 0x182,
} as const

/** @spec Part 2 §6.3 */
export const TPM_ALG = {
  AES: 0x0006,
  SHA256: 0x000b,
  NULL: 0x0010,
  ECDSA: 0x0018,
  ECDH: 0x0019,
  ECC: 0x0023,
  CFB: 0x0043,
} as const

/** @spec Part 2 §6.4 */
export const TPM_ECC_NIST_P256 = 0x0003

/** @spec Part 2 §7.4 */
export const TPM_RH = {
  OWNER: 0x40000001,
  NULL: 0x40000007,
  LOCKOUT: 0x4000000a,
  ENDORSEMENT: 0x4000000b,
  PLATFORM: 0x4000000c,
} as const

/** Password session. @spec Part 2 §7.4 */
export const TPM_RS_PW = 0x40000009

/** @spec Part 2 §6.10 */
export const TPM_SU_CLEAR = 0x0000

/** @spec Part 2 §6.12 */
export const TPM_CAP = {
  HANDLES: 0x00000001,
  PCRS: 0x00000005,
  TPM_PROPERTIES: 0x00000006,
} as const

/** Bytes FF 'T' 'C' 'G' at the start of everything the TPM makes and signs. @spec Part 2 §6.2 */
export const TPM_GENERATED_VALUE = 0xff544347

/** Object attributes. @spec Part 2 §8.3 */
export const TPMA_OBJECT = {
  fixedTPM: 1 << 1,
  stClear: 1 << 2,
  fixedParent: 1 << 4,
  sensitiveDataOrigin: 1 << 5,
  userWithAuth: 1 << 6,
  adminWithPolicy: 1 << 7,
  noDA: 1 << 10,
  encryptedDuplication: 1 << 11,
  restricted: 1 << 16,
  decrypt: 1 << 17,
  sign: 1 << 18,
  x509sign: 1 << 19,
} as const

/** Every defined bit of TPMA_OBJECT; any other is reserved and refused. */
export const TPMA_OBJECT_DEFINED = Object.values(TPMA_OBJECT).reduce((all, bit) => all | bit, 0)

/** NV index attributes (those used here). @spec Part 2 §13.4 */
export const TPMA_NV = {
  PPWRITE: 1 << 0,
  OWNERWRITE: 1 << 1,
  AUTHWRITE: 1 << 2,
  POLICYWRITE: 1 << 3,
  PPREAD: 1 << 16,
  OWNERREAD: 1 << 17,
  AUTHREAD: 1 << 18,
  POLICYREAD: 1 << 19,
  NO_DA: 1 << 25,
  WRITTEN: 1 << 29,
  PLATFORMCREATE: 1 << 30,
} as const

/** Reserved bits of TPMA_NV: 8-9 and 20-24. */
export const TPMA_NV_RESERVED = 0x01f00300

/** Greatest command and response this codec sends or accepts, in bytes (libtpms uses 4096). */
export const MAX_TPM_MESSAGE_BYTES = 4096

/** PCRs of a PC Client TPM: 0-23. */
export const PCR_COUNT = 24
