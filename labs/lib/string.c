/* memset, memcpy, memmove, memcmp: what a freestanding compiler may call on its own. */
#include "string.h"

#include <stdint.h>

void *memset(void *destination, int byte, size_t count)
{
    void *next = destination;
    __asm__ volatile("rep stosb" : "+D"(next), "+c"(count) : "a"(byte) : "memory");
    return destination;
}

void *memcpy(void *destination, const void *source, size_t count)
{
    void *next = destination;
    __asm__ volatile("rep movsb" : "+D"(next), "+S"(source), "+c"(count) : : "memory");
    return destination;
}

void *memmove(void *destination, const void *source, size_t count)
{
    if ((uintptr_t)destination - (uintptr_t)source >= count) { /* ascending order reads no byte already written */
        return memcpy(destination, source, count);
    }
    char *last = (char *)destination + count - 1;
    const char *from = (const char *)source + count - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(last), "+S"(from), "+c"(count) : : "memory");
    return destination;
}

int memcmp(const void *left, const void *right, size_t count)
{
    const unsigned char *a = left;
    const unsigned char *b = right;
    for (; count; a++, b++, count--) {
        if (*a != *b) {
            return *a - *b;
        }
    }
    return 0;
}
