#!/bin/bash
# The first process of the emulated machine: runs the tests that run.sh named, says how they ended, and
# turns the machine off.
export PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 CI=true
# Some ten times slower than the machine around it.
export TEST_PATIENCE=4
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
hostname arm64
ip link set lo up
cd /ztunnel
eval "tests=($(cat tests))"
echo "$(uname -srm), Node $(node_modules/.bin/node --version)"
node_modules/.bin/node --test --test-concurrency=1 --test-timeout=600000 --test-reporter=spec "${tests[@]}" 2>&1 &&
  echo "all tests passed on $(uname -m)"
sync
echo o >/proc/sysrq-trigger
sleep infinity
