/** What volumes and peers may be called: safe as a file name, and on a command line. */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
