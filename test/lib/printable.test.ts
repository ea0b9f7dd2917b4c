import t from 'tap'
import { printable, unprintable } from '../../src/lib/printable.js'

t.test('printable: plain names stay, others are escaped', async (t) => {
  t.equal(printable(Buffer.from('a name.txt')), 'a name.txt')
  t.equal(printable(Buffer.from('Grüße €𝄞')), 'Grüße €𝄞')
  t.equal(printable(Buffer.from('a\nb\tc\\d')), 'a\\nb\\tc\\\\d')
  t.equal(printable(Buffer.from([0x61, 0xff, 0x62])), 'a\\377b')
  t.equal(printable(Buffer.from([0xc3, 0xa9, 0xc3])), 'é\\303')
  t.equal(printable(Buffer.from('\u001b[31mred')), '\\033[31mred')
  t.equal(printable(Buffer.from('a\u202eb')), 'a\\342\\200\\256b')
})

t.test('printable: reversible for all bytes', async (t) => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  t.same(unprintable(printable(all)), all)
  for (let round = 0; round < 200; round += 1) {
    const bytes = Buffer.from(Array.from({ length: 20 }, () => Math.floor(Math.random() * 256)))
    t.same(unprintable(printable(bytes)), bytes, bytes.toString('hex'))
  }
})
