import { testKills } from './kills.js'

await testKills('xfs')
