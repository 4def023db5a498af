#!/bin/sh
# prepare.sh makes the kernels that "go test ./kernels" boots, on Debian 12:
#
#	6.1    Debian's kernel, amd64
#	6.12   the newer kernel of bookworm-security, amd64
#	arm64  Debian's 6.1 for arm64, with a small arm64 user land
#
# and beside them
#
#	systemd  a small amd64 user land whose process 1 is Debian's systemd
#	zfs      6.1 once more, with zfs: Debian gives its source, in contrib, from which the modules are built here
#
# They go to $CAISSON_KERNELS_DIR, by default ~/.cache/caisson/kernels, each in a directory of its own, beside the
# SELinux policy of the SELinux boot. A second run replaces only what apt has a newer package of. Root is needed where
# tools are to be installed or apt has no package lists yet.
set -eu
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
cache=${CAISSON_KERNELS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/caisson/kernels}
mkdir -p "$cache"
# In the cache, so that the last step of each preparation is a rename.
tmp=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
# _apt, to whom apt gives its downloads over, cannot write there.
apt_options="-qq -o APT::Sandbox::User=root"

main() {
	install_tools
	apt-cache show linux-image-amd64 >/dev/null 2>&1 || update
	amd64 6.1 '^linux-image-6\.1\.0-[0-9]+-amd64$'
	amd64 6.12 '^linux-image-6\.12\.[0-9]+\+deb12-amd64$'
	systemd
	zfs
	arm64 # last: it changes what apt is asked for
	# 30 ms, so there is no question whether it is out of date.
	sh "$here/selinux-tiny-policy.sh" >"$tmp/tiny.cil"
	secilc -M true -c 33 -f /dev/null -o "$tmp/selinux.pol" "$tmp/tiny.cil"
	mv "$tmp/selinux.pol" "$cache/selinux.pol"
	echo "kernels are in $cache"
}

install_tools() {
	missing=
	for pair in qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm depmod:kmod xz:xz-utils zstd:zstd \
		secilc:secilc gcc-12:gcc-12 make:make /usr/include/stdlib.h:libc6-dev libelf.so.1:libelf1; do
		command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || [ -e "/usr/lib/x86_64-linux-gnu/${pair%%:*}" ] || missing="$missing ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	update
	# shellcheck disable=SC2086 # lists of words
	DEBIAN_FRONTEND=noninteractive apt-get $apt_options install -y --no-install-recommends $missing
}

# update tolerates errors: one source of many may be out of reach, and what then is missing is said later.
update() {
	# shellcheck disable=SC2086
	apt-get $apt_options update || true
}

# newest REGEX prints the newest package whose name matches.
newest() {
	# shellcheck disable=SC2086
	name=$(apt-cache $apt_options pkgnames linux-image- | grep -E "$1" | sort -V | tail -n 1)
	[ -n "$name" ] || { echo "prepare.sh: apt knows no package $1; is bookworm-security among its sources?" >&2; return 1; }
	echo "$name"
}

# prepared NAME PACKAGE says whether the cache has NAME made from PACKAGE by this very script.
prepared() {
	[ "$(cat "$cache/$1/made-from" 2>/dev/null)" = "$(recipe "$2")" ]
}

recipe() {
	echo "$1 $(cksum <"$here/prepare.sh")"
}

# unpack NAME PACKAGE leaves boot and lib/modules of a kernel package in $tmp/NAME.
unpack() {
	echo "preparing $1 from $2"
	mkdir "$tmp/$1"
	# shellcheck disable=SC2086
	(cd "$tmp" && apt-get $apt_options download "$2" && dpkg -x ./*.deb "$1" && rm ./*.deb)
	rm -rf "$tmp/$1/usr"
	trim "$tmp/$1"/lib/modules/*/kernel
	depmod -b "$tmp/$1" "$(basename "$tmp/$1"/lib/modules/*)"
}

# trim KERNEL removes drivers of hardware that the machines do not have: three quarters of the modules.
trim() {
	for d in "$1"/drivers/*; do
		case ${d##*/} in block | char | md | net | tty | vhost | virtio) ;; *) rm -rf "$d" ;; esac
	done
	rm -rf "$1/sound" "$1/drivers/net/ethernet" "$1/drivers/net/wireless"
}

# finish NAME PACKAGE puts $tmp/NAME into the cache.
finish() {
	rm -rf "$tmp/$1/boot" "${cache:?}/$1"
	recipe "$2" >"$tmp/$1/made-from"
	mv "$tmp/$1" "$cache/$1"
}

# amd64 NAME REGEX prepares a kernel for qemu's microvm, which boots a plain vmlinux by PVH without any firmware.
amd64() {
	package=$(newest "$2")
	if prepared "$1" "$package"; then return; fi
	unpack "$1" "$package"
	extract_vmlinux "$tmp/$1"/boot/vmlinuz-* "$tmp/$1/vmlinux"
	finish "$1" "$package"
}

# extract_vmlinux BZIMAGE OUT takes the compressed vmlinux out of a bzImage. Where it lies is in the setup header:
# setup_sects, payload_offset and payload_length of Documentation/arch/x86/boot.rst.
extract_vmlinux() {
	offset=$((($(number "$1" 497 1) + 1) * 512 + $(number "$1" 584 4)))
	tail -c +$((offset + 1)) "$1" | head -c "$(number "$1" 588 4)" >"$2.packed"
	case $(od -An -t x1 -N 2 "$2.packed" | tr -d ' ') in
	fd37) unpacker=xz ;;
	28b5) unpacker=zstd ;;
	*) unpacker=gzip ;;
	esac
	# The unpacker complains of the size that the kernel's build appends to the stream, so what counts is the result.
	$unpacker -dc <"$2.packed" >"$2" 2>/dev/null || true
	rm "$2.packed"
	[ "$(head -c 4 "$2" | tail -c 3)" = ELF ] || { echo "prepare.sh: no vmlinux in $1" >&2; return 1; }
}

# number FILE OFFSET SIZE prints an unsigned little-endian number.
number() {
	od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# arm64 reads the arm64 package lists into a state of its own, so that the machine's apt stays as it is. They are only
# read where the amd64 kernel is newer than ours: both are built from one source and have the same number.
arm64() {
	package=$(newest '^linux-image-6\.1\.0-[0-9]+-amd64$' | sed 's/amd64$/arm64/')
	if prepared arm64 "$package"; then return; fi
	arm64_apt
	package=$(newest '^linux-image-6\.1\.0-[0-9]+-arm64$')
	if prepared arm64 "$package"; then return; fi
	unpack arm64 "$package"
	mv "$tmp"/arm64/boot/vmlinuz-* "$tmp/arm64/vmlinuz"
	arm64_userland "$tmp/arm64/root"
	finish arm64 "$package"
}

arm64_apt() {
	state=$tmp/apt
	mkdir -p "$state/lists/partial" "$state/archives/partial"
	: >"$state/status"
	apt_options="$apt_options -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$state"
	apt_options="$apt_options -o Dir::State::lists=$state/lists -o Dir::State::status=$state/status -o Dir::Cache=$state"
	update
}

# zfs builds zfs's modules for the kernel of 6.1, in two to three minutes of two processors, most of which goes to asking the kernel's headers 280
# questions. What is 6.1's is shared with it. The programs and their libraries come into a directory of their own: the machine has the host's files.
zfs() {
	package=$(newest '^linux-image-6\.1\.0-[0-9]+-amd64$')
	if prepared zfs "$package"; then return; fi
	echo "preparing zfs for $package"
	work=$tmp/zfs-work
	mkdir -p "$work/debs" "$work/source" "$work/user" "$tmp/zfs/programs"
	headers=linux-headers-${package#linux-image-}
	# shellcheck disable=SC2086
	(cd "$work/debs" && apt-get $apt_options download "$headers" "${headers%amd64}common" linux-kbuild-6.1)
	zfs_packages
	for deb in "$work"/debs/linux-*.deb "$work"/debs/zfs-dkms*.deb; do dpkg -x "$deb" "$work/source"; done
	for deb in "$work"/debs/zfsutils*.deb "$work"/debs/lib*.deb; do dpkg -x "$deb" "$work/user"; done
	zfs_modules
	cp -a "$work"/user/sbin/zfs "$work"/user/sbin/zpool "$work"/user/lib/x86_64-linux-gnu/*.so.* "$tmp/zfs/programs/"
	if LD_LIBRARY_PATH=$tmp/zfs/programs ldd "$tmp/zfs/programs/zfs" | grep 'not found' >&2; then
		echo "prepare.sh: these libraries of the program zfs are not on this machine" >&2
		return 1
	fi
	rm -rf "$work"
	finish zfs "$package"
}

# zfs_packages reads contrib into a state of its own, from where the machine has Debian from.
zfs_packages() {
	state=$work/apt
	mkdir -p "$state/lists/partial"
	: >"$state/status"
	# shellcheck disable=SC2086
	mirror=$(apt-get $apt_options indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' 'Created-By: Packages' | head -n 1)
	echo "deb ${mirror:-http://deb.debian.org/debian} bookworm contrib" >"$state/sources.list"
	options="-o Dir::Etc::sourcelist=$state/sources.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=$state/status -o Dir::Cache=$state"
	options="$options -o Dir::State::lists=$state/lists"
	# shellcheck disable=SC2086
	(cd "$work/debs" && apt-get $apt_options $options update &&
		apt-get $apt_options $options download zfs-dkms zfsutils-linux libzfs4linux libzpool5linux libnvpair3linux libuutil3linux) || {
		echo "prepare.sh: no zfs: the component contrib of bookworm is not to be had from $(cat "$state/sources.list")" >&2
		return 1
	}
}

# zfs_modules builds with less optimization and without debugging information, which no test looks at: that takes half as long.
zfs_modules() {
	src=$work/source/usr/src
	sed -i "s#/usr/src#$src#" "$src/$headers/Makefile"
	(export KCFLAGS="-g0 -O1" && cd "$src"/zfs-[0-9]* && ./configure -q --prefix=/usr --with-config=kernel \
		--with-linux="$src/${headers%amd64}common" --with-linux-obj="$src/$headers" && make -s -j"$(nproc)") >"$work/log" 2>&1 || {
		tail -n 50 "$work/log" >&2
		echo "prepare.sh: zfs's modules could not be built" >&2
		return 1
	}
	modules=$(basename "$cache"/6.1/lib/modules/*)
	mkdir -p "$tmp/zfs/lib/modules/$modules/extra"
	cp -l "$cache/6.1/vmlinux" "$tmp/zfs/vmlinux"
	cp -al "$cache/6.1/lib/modules/$modules/kernel" "$tmp/zfs/lib/modules/$modules/"
	cp "$cache/6.1/lib/modules/$modules"/modules.* "$tmp/zfs/lib/modules/$modules/"
	cp "$src"/zfs-[0-9]*/module/*/*.ko "$tmp/zfs/lib/modules/$modules/extra/"
	depmod -b "$tmp/zfs" "$modules"
}

# systemd prepares a user land of systemd, a bus for the system and for users, and what the tests call. The packages come with
# all that they depend on, as if nothing were installed, and are not configured.
systemd() {
	# shellcheck disable=SC2086
	package=systemd=$(apt-cache $apt_options policy systemd | sed -n 's/^ *Candidate: //p')
	if prepared systemd "$package"; then return; fi
	echo "preparing systemd from $package"
	state=$tmp/systemd-apt
	mkdir -p "$state/partial"
	: >"$state/status"
	options="-o Debug::NoLocking=1 -o Dir::State::status=$state/status -o Dir::State::extended_states=$state/extended -o Dir::Cache::archives=$state"
	packages="systemd dbus dbus-user-session dash coreutils kmod"
	# The lists may be older than what the mirror has.
	# shellcheck disable=SC2086
	apt-get $apt_options $options install -y --download-only --no-install-recommends $packages >/dev/null || {
		update
		apt-get $apt_options $options install -y --download-only --no-install-recommends $packages >/dev/null
	}
	systemd_userland "$tmp/systemd"
	finish systemd "$package"
}

# systemd_userland ROOT leaves out what is only there to configure packages, and the generators of units, each of which takes a tenth of a second of
# every boot and reload.
systemd_userland() {
	mkdir -p "$1/etc"
	for d in bin sbin lib lib64; do
		mkdir -p "$1/usr/$d"
		ln -s "usr/$d" "$1/$d"
	done
	for deb in "$state"/*.deb; do
		case ${deb##*/} in *perl* | *usrmerge* | dpkg_* | debconf_* | adduser_* | passwd_* | tar_*) continue ;; esac
		dpkg --fsys-tarfile "$deb" | tar -C "$1" -x --keep-directory-symlink --exclude './usr/share/doc' --exclude './usr/share/locale' \
			--exclude './usr/share/man'
	done
	rm -rf "$1"/usr/lib/systemd/*-generators
	find "$1" -type f -perm /6000 -exec chmod ug-s {} + # nothing of it is for this machine to run
	[ -e "$1/bin/sh" ] || ln -s dash "$1/bin/sh"
	printf '%s:/:/bin/sh\n' root:x:0:0: messagebus:x:100:100: caisson:x:1000:1000: >"$1/etc/passwd"
	printf '%s\n' root:x:0: messagebus:x:100: caisson:x:1000: >"$1/etc/group"
}

# arm64_userland ROOT unpacks a shell, the usual small programs and modprobe with all they need, and configures nothing.
arm64_userland() {
	# shellcheck disable=SC2086
	apt-get $apt_options install -y --download-only --no-install-recommends dash coreutils kmod >/dev/null
	mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/etc"
	ln -s usr/bin usr/sbin usr/lib "$1"
	for deb in "$state"/archives/*.deb; do
		dpkg --fsys-tarfile "$deb" | tar -C "$1" -x --keep-directory-symlink --exclude './usr/share/*'
	done
	[ -e "$1/bin/sh" ] || ln -s dash "$1/bin/sh"
	echo root:x:0:0:root:/root:/bin/sh >"$1/etc/passwd"
	echo root:x:0: >"$1/etc/group"
}

main
