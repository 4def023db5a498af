#!/bin/sh
# Builds init_amd64 and init_arm64 from src/ into the directory given, or into
# this one. On Debian 12: apt-get install gcc gcc-aarch64-linux-gnu (on arm64:
# gcc gcc-x86-64-linux-gnu). No header or library outside src/ is used, so the
# compiler and the linker alone decide the bytes. TestReproducible compares them
# with what is checked in, when these two are the versions installed:
# compiler: Debian 12.2.0-14
# linker: Debian) 2.40
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
export LC_ALL=C

build() { # build GOARCH TRIPLET FLAG...
	arch=$1 triplet=$2
	shift 2
	"$triplet-gcc" -std=c11 -Os -Wall -Wextra -Werror \
		-ffreestanding -nostdinc -nostdlib -static -fno-pie -no-pie \
		-mgeneral-regs-only -fno-stack-protector -fno-ident \
		-fno-unwind-tables -fno-asynchronous-unwind-tables "$@" \
		-Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,norelro -Wl,-z,noseparate-code \
		-Wl,--fatal-warnings -Wl,--strip-all \
		-o "$out/init_$arch" "$here/src/init.c"
}

build amd64 x86_64-linux-gnu -fcf-protection=none
build arm64 aarch64-linux-gnu -mbranch-protection=none
