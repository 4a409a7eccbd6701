#!/bin/sh
# work.sh BUSYBOX DIRECTORY: work for the integer unit, the x87, SSE and AVX by programs of a distribution. It prints
# the same on every computer that is right. DIRECTORY has work.c and work.pl, and takes what is written.
export LC_ALL=C
busybox=$1
cd "$2" || exit 1
bb() { "$busybox" "$@"; }
digest() { /usr/bin/openssl dgst -sha256 | bb cut -d= -f2; }

i=0
while [ $i -lt 16 ]; do
    i=$((i + 1))
    bb head -c 16384 "$busybox"
    bb seq 1 2000
done > data
bb wc -c < data

for hash in md5 sha1 sha256 sha512 sha3-256 blake2b512 ripemd160; do
    /usr/bin/openssl dgst -$hash data | bb cut -d= -f2
done
key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
iv=000102030405060708090a0b0c0d0e0f
for cipher in aes-128-cbc aes-256-ctr chacha20 camellia-128-cbc; do
    case $cipher in *128*) k=${key%????????????????????????????????} ;; *) k=$key ;; esac
    /usr/bin/openssl enc -$cipher -K $k -iv $iv -in data | digest
done
/usr/bin/openssl dgst -mac hmac -macopt key:abc -sha384 data | bb cut -d= -f2
/usr/bin/openssl genpkey -algorithm ed25519 -out key
/usr/bin/openssl pkeyutl -sign -inkey key -rawin -in work.c -out signature
/usr/bin/openssl pkeyutl -verify -inkey key -rawin -in work.c -sigfile signature
/usr/bin/openssl prime -hex 0xFFFFFFFFFFFFFFC5

bb sha256sum < data
bb sha512sum < data
bb gzip -c data | digest
bb gzip -c data | bb gunzip -c | bb cmp - data && echo gzip: the same
/usr/bin/xz -1 -c data | digest
/usr/bin/xz -1 -c data | /usr/bin/xz -dc | bb cmp - data && echo xz: the same

echo 'scale=200; a(1)*4; e(1); l(2); s(1)' | /usr/bin/bc -l
/usr/bin/mawk 'BEGIN {
    for (i = 1; i < 10000; i++) { s += sin(i) * exp(cos(i)) + sqrt(i) + log(i); t += i % 7 ^ 3 }
    printf "%.15g %d\n", s, t
}'
/usr/bin/perl work.pl
/usr/bin/tcc -o work work.c -lm && digest < work && ./work
