/**
 * What a host may do here as the coordinator of a group. Nothing follows from anything else: who may hold
 * I/O and take snapshots may not therefore run programs, nor write.
 */
export interface Rights {
  /** Hold I/O of this volume, and take, show and forget snapshots of it. */
  mayCut(volume: string): boolean
  /** Run this program, by its name among those that this host offers to coordinators. */
  mayRun(program: string): boolean
  /** Any program, of any name: it can do that without us, too. */
  readonly mayRunAll: boolean
  /** Bring moments of this volume back in place. */
  mayRestore(volume: string): boolean
  /** Copies of moments of what it may cut may be made below this directory; null: nowhere; '/': anywhere. */
  readonly copiesBelow: string | null
}

/** Of this host itself, and of who comes by ssh: he is root here by other means. */
export const ALL_RIGHTS: Rights = {
  mayCut: () => true,
  mayRun: () => true,
  mayRunAll: true,
  mayRestore: () => true,
  copiesBelow: '/',
}

/** As they are kept with a peer. */
export interface Grants {
  mayCut?: string[] | undefined
  mayRun?: string[] | undefined
  mayRestore?: boolean | undefined
  copiesBelow?: string | undefined
}

/** `read`: the grants as they are now; asked each time, so that what is taken back is gone at once. */
export function rightsOf(read: () => Grants): Rights {
  const mayCut = (volume: string) => {
    const { mayCut: allowed = [] } = read()
    return allowed.includes('*') || allowed.includes(volume)
  }
  return {
    mayCut,
    mayRun: (program) => read().mayRun?.includes(program) === true,
    mayRunAll: false,
    mayRestore: (volume) => read().mayRestore === true && mayCut(volume),
    get copiesBelow() {
      return read().copiesBelow ?? null
    },
  }
}
