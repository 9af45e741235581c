// The EPT walk: SDM 3C 29.3.2 "EPT Translation Mechanism", 29.3.3 "EPT-Induced VM Exits", 29.3.5 "Accessed and Dirty Flags for EPT".
//
// Each entry is judged as it is read: not present (violation) first, then
// misconfiguration. Privileges are judged once, over all entries used, and only
// an allowed access touches accessed and dirty flags.
// Leaves out: mode-based execute control, sub-page permissions, page-modification logging, #VE.
#include "ept/ept.h"

#include <string.h>

#define EPT_NON_LEAF_RESERVED BITS(6, 3) // where a leaf has its memory type and "ignore PAT"
#define EPT_SHIFT_PT          12
#define EPT_SHIFT_PD          21
#define EPT_SHIFT_PDPT        30
#define EPT_SHIFT_PML4        39
#define EPT_SHIFT_PML5        48

enum entry_kind { ENTRY_NOT_PRESENT, ENTRY_MISCONFIGURED, ENTRY_TABLE, ENTRY_LEAF };

static bool memory_type_reserved(uint64_t entry)
{
    uint64_t type = bits_get(entry, 5, 3);
    return type == 2 || type == 3 || type == 7;
}

// Only these two levels have a size bit, and only if the processor supports the size.
static bool large_page_allowed(const struct ept_caps *caps, unsigned shift)
{
    return (shift == EPT_SHIFT_PD && caps->page_2m) || (shift == EPT_SHIFT_PDPT && caps->page_1g);
}

// Judges an entry of the table whose entries each cover 1 << shift bytes.
static enum entry_kind classify_entry(const struct ept_caps *caps, uint64_t entry, unsigned shift)
{
    if (!(entry & EPT_PERMISSIONS))
        return ENTRY_NOT_PRESENT;
    if (!(entry & EPT_READ) && ((entry & EPT_WRITE) || !caps->execute_only))
        return ENTRY_MISCONFIGURED;
    if (entry & BITS(51, caps->maxphyaddr))
        return ENTRY_MISCONFIGURED;
    if (shift != EPT_SHIFT_PT && !(entry & EPT_LARGE_PAGE))
        return entry & EPT_NON_LEAF_RESERVED ? ENTRY_MISCONFIGURED : ENTRY_TABLE;
    if (shift != EPT_SHIFT_PT && (!large_page_allowed(caps, shift) || (entry & BITS(shift - 1, 12))))
        return ENTRY_MISCONFIGURED;
    return memory_type_reserved(entry) ? ENTRY_MISCONFIGURED : ENTRY_LEAF;
}

// Shift of the root table's entries: the page-walk length is EPTP bits 5:3 plus one.
static unsigned root_shift(uint64_t eptp) { return bits_get(eptp, 5, 3) == 4 ? EPT_SHIFT_PML5 : EPT_SHIFT_PML4; }

static uint64_t entry_address(uint64_t table, gpa_t gpa, unsigned shift)
{
    return (table & BITS(51, 12)) | (bits_get(gpa, shift + 8, shift) << 3);
}

static uint64_t read_entry(struct bus *bus, hpa_t address)
{
    const uint8_t *host = memory_host(bus->memory, address);
    if (unlikely(!host))
        return bus_read(bus, address, 8);
    uint64_t entry;
    memcpy(&entry, host, sizeof entry);
    return entry;
}

// Sets flags in the entry as memory holds it now: the same entry may serve two levels of a walk.
static void set_entry_flags(struct bus *bus, hpa_t address, uint64_t flags)
{
    uint64_t entry = read_entry(bus, address);
    if ((entry & flags) != flags)
        bus_write(bus, address, 8, entry | flags);
}

static void update_accessed_dirty(struct bus *bus, struct ept_result *result, bool write)
{
    unsigned leaf = result->references - 1;
    for (unsigned i = 0; i <= leaf; i++) {
        uint64_t flags = EPT_ACCESSED | (i == leaf && write ? EPT_DIRTY : 0);
        if (likely((result->entry[i] & flags) == flags))
            continue;
        set_entry_flags(bus, result->entry_address[i], flags);
        result->entry[i] |= flags;
    }
}

static void fail_violation(struct ept_result *result, unsigned access, uint64_t permissions)
{
    result->status = EPT_VIOLATION;
    result->permissions = permissions;
    result->qualification = access | (permissions << 3);
}

_Static_assert(EPT_ACCESS_READ == EPT_QUAL_READ && EPT_ACCESS_WRITE == EPT_QUAL_WRITE &&
                   EPT_ACCESS_FETCH == EPT_QUAL_FETCH && EPT_READ << 3 == EPT_QUAL_READABLE &&
                   EPT_ACCESS_READ == EPT_READ && EPT_ACCESS_WRITE == EPT_WRITE && EPT_ACCESS_FETCH == EPT_EXECUTE,
               "accesses, permissions and qualification bits have the same order");

// Everything was present and well formed: judges the access and, if it is allowed, finishes the result.
static void finish_walk(struct bus *bus, uint64_t eptp, gpa_t gpa, unsigned access, unsigned shift,
                        struct ept_result *result)
{
    if (access & ~result->permissions) {
        fail_violation(result, access, result->permissions);
        return;
    }
    if (eptp & EPTP_ACCESSED_DIRTY)
        update_accessed_dirty(bus, result, access & EPT_ACCESS_WRITE);
    uint64_t leaf = result->entry[result->references - 1];
    result->status = EPT_OK;
    result->frame = (leaf & BITS(51, shift)) | (gpa & BITS(shift - 1, 0) & PAGE_FRAME_MASK);
    result->dirty = !(eptp & EPTP_ACCESSED_DIRTY) || (leaf & EPT_DIRTY);
    result->page_shift = shift;
}

void ept_walk(const struct ept_caps *caps, struct bus *bus, uint64_t eptp, gpa_t gpa, unsigned access,
              struct ept_result *result)
{
    result->references = 0;
    result->permissions = EPT_PERMISSIONS;
    result->qualification = 0;
    unsigned shift = root_shift(eptp);
    if (unlikely(gpa >> (shift + 9))) {
        fail_violation(result, access, 0);
        return;
    }
    for (uint64_t table = eptp;; shift -= 9) {
        hpa_t address = entry_address(table, gpa, shift);
        uint64_t entry = read_entry(bus, address);
        result->entry_address[result->references] = address;
        result->entry[result->references++] = entry;
        switch (classify_entry(caps, entry, shift)) {
        case ENTRY_NOT_PRESENT: fail_violation(result, access, 0); return;
        case ENTRY_MISCONFIGURED: result->status = EPT_MISCONFIGURATION; return;
        case ENTRY_TABLE:
            result->permissions &= entry;
            table = entry;
            break;
        case ENTRY_LEAF:
            result->permissions &= entry;
            finish_walk(bus, eptp, gpa, access, shift, result);
            return;
        }
    }
}

bool ept_probe(const struct ept_caps *caps, const struct memory *memory, uint64_t eptp, gpa_t gpa, hpa_t *hpa)
{
    unsigned shift = root_shift(eptp);
    if (gpa >> (shift + 9))
        return false;
    for (uint64_t table = eptp;; shift -= 9) {
        uint64_t entry;
        if (!memory_read(memory, entry_address(table, gpa, shift), &entry, sizeof entry))
            return false;
        enum entry_kind kind = classify_entry(caps, entry, shift);
        if (kind == ENTRY_NOT_PRESENT || kind == ENTRY_MISCONFIGURED)
            return false;
        if (kind == ENTRY_LEAF) {
            *hpa = (entry & BITS(51, shift)) | (gpa & BITS(shift - 1, 0));
            return true;
        }
        table = entry;
    }
}
