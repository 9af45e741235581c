// What differs between host systems, kept out of every other module.
#ifndef VMXON_BASE_HOST_H
#define VMXON_BASE_HOST_H

#include "base/types.h"

// Reserves `size` bytes (a multiple of 4096) of zeroed, page-aligned memory that costs the host
// nothing until touched. NULL if the host refuses. Released with host_unmap and the same size.
void *host_map_zeroed(uint64_t size);
void host_unmap(void *memory, uint64_t size);

#endif
