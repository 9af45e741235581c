/* The memory functions of the C library that exist here. */
#ifndef LABS_LIB_STRING_H
#define LABS_LIB_STRING_H

#include <stddef.h>

void *memset(void *destination, int byte, size_t count);
void *memcpy(void *destination, const void *source, size_t count);
void *memmove(void *destination, const void *source, size_t count);
int memcmp(const void *left, const void *right, size_t count);

#endif
