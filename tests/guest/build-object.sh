#!/bin/sh
# Compile one source of ordinary code, SSE2 and x87 allowed, for a guest that enables them: build-object.sh OUT.o SOURCE
# No vectorizer or contraction differences: the expected results are those of IEEE arithmetic in source order.
set -eu
# shellcheck disable=SC2086 # GUEST_CC holds several words
${GUEST_CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -m64 -msse2 -mno-avx -mno-red-zone -ffreestanding -fno-pic -ffp-contract=off \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-ident -c -o "$1" "$2"
