/** The code of the HoldfastError that a function throws; `none` when it throws nothing. */
import { HoldfastError } from '../../src/lib/errors.js'

export function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return error instanceof HoldfastError ? error.code : String(error)
  }
  return 'none'
}
