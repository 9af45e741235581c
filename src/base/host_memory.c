// Host memory on POSIX systems: lazily committed anonymous mappings.
#include "base/host.h"

#include <sys/mman.h>

void *host_map_zeroed(uint64_t size)
{
    if (size > SIZE_MAX)
        return NULL;
    void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void host_unmap(void *memory, uint64_t size) { munmap(memory, (size_t)size); }
