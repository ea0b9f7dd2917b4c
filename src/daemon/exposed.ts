/** What a command finds in its environment of the snapshot that it is shown. */
import type { Exposed } from './snapshot-views.js'

/** As it appears in the name of a variable. */
export function variableName(name: string): string {
  return name.toUpperCase().replaceAll(/[^A-Z0-9]/g, '_')
}

export function exposedEnvironment({ certificate, path, views }: Exposed): Record<string, string> {
  const { name, group } = certificate
  const env: Record<string, string> = { HOLDFAST_SNAPSHOT: name, HOLDFAST_VIEW: path }
  if (group !== null) env.HOLDFAST_GROUP = group.name
  for (const view of views) {
    const suffix = variableName(view.volume)
    env[`HOLDFAST_VIEW_${suffix}`] = view.path
    env[`HOLDFAST_SEQ_${suffix}`] = `${view.seq}`
  }
  return env
}
