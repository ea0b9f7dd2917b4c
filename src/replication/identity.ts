/**
 * Who a host is: a key and a certificate of its own making. Peers know each other by the
 * fingerprint (SHA-256) of the certificate, which is pinned when they are introduced; there is no
 * authority that both would have to trust. The one file that imports `@peculiar/x509`.
 */
import { X509Certificate as NodeCertificate, webcrypto } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type * as X509 from '@peculiar/x509'
import { HoldfastError } from '../lib/errors.js'

const KEY = 'key.pem'
const CERTIFICATE = 'certificate.pem'
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** Pinned, not expired: a certificate that ends would end protection on that day. */
const NOT_AFTER = new Date('9999-12-31T23:59:59Z')

/** The library speaks of the browser's types, which are Node's by another name. */
type Provider = Parameters<typeof X509.cryptoProvider.set>[0]
type Keys = Parameters<typeof X509.X509CertificateGenerator.createSelfSigned>[0]['keys']

export interface Identity {
  /** PEM. */
  readonly key: string
  readonly certificate: string
  /** SHA-256 of the certificate, lower-case hexadecimal. */
  readonly fingerprint: string
}

/** The identity kept in `directory` (mode 0700); made at first use. */
export async function hostIdentity(directory: string): Promise<Identity> {
  const keyFile = join(directory, KEY)
  const certificateFile = join(directory, CERTIFICATE)
  if (!existsSync(certificateFile)) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const { key, certificate } = await makeIdentity()
    writeFileSync(keyFile, key, { mode: 0o600 })
    // Last: a certificate means that both are there.
    writeFileSync(certificateFile, certificate, { mode: 0o644 })
  }
  try {
    const certificate = readFileSync(certificateFile, 'utf8')
    const key = readFileSync(keyFile, 'utf8')
    return { key, certificate, fingerprint: fingerprintOf(new NodeCertificate(certificate)) }
  } catch (cause) {
    throw new HoldfastError('IDENTITY', `the identity of this host in ${directory} is unreadable`, {
      op: 'replication.identity',
      cause,
      hint: 'Restore it from a backup, or remove the directory and introduce the hosts again.',
    })
  }
}

async function makeIdentity(): Promise<{ key: string; certificate: string }> {
  // Hundreds of files, needed once in the life of a host.
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  x509.cryptoProvider.set(webcrypto as unknown as Provider)
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=holdfast',
    keys: keys as unknown as Keys,
    notBefore: new Date(0),
    notAfter: NOT_AFTER,
    signingAlgorithm: ALGORITHM,
  })
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  return { key: pem('PRIVATE KEY', key), certificate: `${certificate.toString('pem')}\n` }
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

export function fingerprintOf(certificate: NodeCertificate): string {
  return certificate.fingerprint256.replaceAll(':', '').toLowerCase()
}

/** As people compare it: groups of four. */
export function formatFingerprint(fingerprint: string): string {
  return (fingerprint.match(/.{1,4}/g) ?? []).join(' ')
}
