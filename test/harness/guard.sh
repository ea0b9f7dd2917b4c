#!/usr/bin/env bash
# guard.sh ROOT: waits until its input ends (the test is over, or dead), then clears what was made
# below ROOT: processes started with HOLDFAST_TEST_ROOT=ROOT, mounts, loop devices, network
# namespaces, files.
root="$1"
case "$root" in /*/holdfast-test-*) ;; *) exit 2 ;; esac
trap '' HUP INT TERM
cat >/dev/null

# By their environment, or, where a program writes over it (sshd), by a path below ROOT in a command.
ours() {
  local process
  for process in /proc/[0-9]*; do
    if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "HOLDFAST_TEST_ROOT=$root" ||
      tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$root/"; then
      echo "${process##*/}"
    fi
  done
}
# Below ROOT, what was mounted last first.
mounts() { cut -d ' ' -f 5 /proc/self/mountinfo | grep "^$root/" | tac; }

# A stopped process would not die of anything else; a killed one may start no further.
for _ in 1 2 3; do
  pids="$(ours 2>/dev/null)"
  [ -n "$pids" ] || break
  # shellcheck disable=SC2086
  kill -KILL $pids 2>/dev/null
  sleep 0.05
done
for _ in 1 2 3 4 5; do
  while read -r mount; do umount -l "$mount" 2>/dev/null; done < <(mounts)
  [ -n "$(mounts)" ] || break
  sleep 0.1
done
[ -z "$(mounts)" ] || { echo "guard: still mounted below $root: $(mounts)" >&2; exit 1; }
for namespace in /run/netns/hf-"${root##*/holdfast-test-}"-*; do
  [ ! -e "$namespace" ] || ip netns delete "${namespace##*/}"
done
chattr -R -i -a "$root" 2>/dev/null
rm -rf --one-file-system "$root"
exit 0
