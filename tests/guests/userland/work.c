/* Floating point of all three widths, and memory, for work.sh: compiled by a small compiler on the guest. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t shuffle_memory(void)
{
    static char a[4096], b[4096];
    uint64_t hash = 1469598103934665603u;

    memset(a, 7, sizeof a);
    for (int n = 0; n < 1000; n++) {
        memcpy(b, a + n % 64, 4096 - 64);
        memmove(a + n % 61, b, 4000);
        a[n % 4096] ^= (char)n;
        hash = hash * 31 + strlen(a) + (unsigned char)b[n];
    }
    return hash;
}

int main(void)
{
    double d = 0;
    float f = 0;
    long double l = 0;

    for (int i = 1; i < 10000; i++) {
        double x = i * 0.001;

        d += sin(x) * exp(-x) + sqrt(x) / log(x + 2) + pow(x, 1.5) + atan2(x, 3) + fmod(x, 0.7);
        f += sinf(i) * cosf(i) + tanf(0.01f * i);
        l += sinl(x) * expl(-x) + sqrtl(x) + logl(x + 1) + atanl(x) + powl(x, 0.3L);
    }
    printf("%.17g %.9g %.21Lg %016llx\n", d, f, l, (unsigned long long)shuffle_memory());
    return 0;
}
