import { testKills } from './kills.js'

await testKills('ext4')
