/**
 * @module lib/untrusted
 *
 * The trust boundary as a type. A value a peer wrote is `Untrusted<T>`; the only way to a `T` is a `sanitize*`
 * function that checked it. The brand exists at compile time alone.
 */

declare const untrusted: unique symbol

/** A value of shape `T` that a peer wrote and nobody has checked. */
export type Untrusted<T> = { readonly [untrusted]: T }

export function markUntrusted<T>(value: unknown): Untrusted<T> {
  return value as Untrusted<T>
}

/** For use inside `sanitize*` functions alone: the raw value, to be checked before it is returned. */
export function inspectUntrusted(value: Untrusted<unknown>): unknown {
  return value
}
