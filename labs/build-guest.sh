#!/bin/sh
# Build a freestanding guest from the support library in labs/lib and the given sources (C and assembly, 64-bit).
#
#   build-guest.sh OUT.elf SOURCE...
#
# OUT.elf        Multiboot 1 image, an ELF32 file: for vmxon, QEMU -kernel, tools/bochs-run
# OUT.elf.debug  the same program as ELF64 with debug information: gdb's symbol file
#
# GUEST_CC (default gcc; may hold options, as in "clang --target=x86_64-linux-gnu"), GUEST_OBJCOPY (default objcopy) and
# GUEST_CFLAGS (more options) come from the environment. The bytes of OUT.elf depend on the sources and the compiler
# only: no build ID, date or path goes into them.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 OUT.elf SOURCE..." >&2
    exit 2
fi

out=$1
shift
lib=$(cd "$(dirname "$0")/lib" && pwd)

# -mgeneral-regs-only: boot.S does not enable SSE. -mno-red-zone: an exception writes below RSP.
# shellcheck disable=SC2086 # GUEST_CC and GUEST_CFLAGS hold several words
${GUEST_CC:-gcc} -std=c11 -O2 -g -Wall -Wextra \
    -m64 -ffreestanding -nostdlib -static -fno-pic -mno-red-zone -mgeneral-regs-only \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-ident \
    -ffile-prefix-map="$lib"=lib -ffile-prefix-map="$(pwd)"=. ${GUEST_CFLAGS:-} \
    -I"$lib" -T "$lib/link.ld" -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack \
    -o "$out.debug" "$@" "$lib"/*.c "$lib"/*.S

# Local symbols would carry the names of temporary files.
${GUEST_OBJCOPY:-objcopy} -O elf32-i386 --strip-debug --discard-all "$out.debug" "$out"
