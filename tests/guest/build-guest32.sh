#!/bin/sh
# Build a 32-bit freestanding guest: build-guest32.sh OUT.elf SOURCE... (lib32/, and what of labs/lib is not 64-bit).
# GUEST_CC and GUEST_CFLAGS as in labs/build-guest.sh.
set -eu
out=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
lib=$here/../../labs/lib
# shellcheck disable=SC2086 # GUEST_CC and GUEST_CFLAGS hold several words
${GUEST_CC:-gcc} -std=c11 -O2 -g -Wall -Wextra \
    -m32 -ffreestanding -nostdlib -static -fno-pic -fno-pie -mgeneral-regs-only \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-ident \
    -ffile-prefix-map="$here"=. ${GUEST_CFLAGS:-} \
    -I"$here/lib32" -I"$lib" -T "$lib/link.ld" -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack \
    -o "$out.debug" "$@" "$here"/lib32/*.c "$here"/lib32/*.S "$lib"/serial.c "$lib"/check.c "$lib"/end.c "$lib"/string.c
${GUEST_OBJCOPY:-objcopy} --strip-debug --discard-all "$out.debug" "$out"
