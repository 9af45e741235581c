// Extended page tables: the walk from a guest-physical to a physical address.
//
// SDM 3C 29.3 "The Extended Page Table Mechanism (EPT)". Covers 4-level (and,
// where the capability says so, 5-level) tables, 4-KByte, 2-MByte and 1-GByte
// pages, execute-only, accessed and dirty flags, violations, misconfigurations.
#ifndef VMXON_EPT_EPT_H
#define VMXON_EPT_EPT_H

#include "base/types.h"
#include "mem/bus.h"

#define EPT_READ            BIT(0)
#define EPT_WRITE           BIT(1)
#define EPT_EXECUTE         BIT(2)
#define EPT_PERMISSIONS     (EPT_READ | EPT_WRITE | EPT_EXECUTE)
#define EPT_IGNORE_PAT      BIT(6)
#define EPT_LARGE_PAGE      BIT(7)
#define EPT_ACCESSED        BIT(8)
#define EPT_DIRTY           BIT(9)
#define EPTP_ACCESSED_DIRTY BIT(6)

// Exit-qualification bits of an EPT violation (SDM table "Exit Qualification for EPT Violations").
#define EPT_QUAL_READ                  BIT(0)
#define EPT_QUAL_WRITE                 BIT(1)
#define EPT_QUAL_FETCH                 BIT(2)
#define EPT_QUAL_READABLE              BIT(3)
#define EPT_QUAL_WRITABLE              BIT(4)
#define EPT_QUAL_EXECUTABLE            BIT(5)
#define EPT_QUAL_LINEAR_VALID          BIT(7)
#define EPT_QUAL_FINAL_TRANSLATION     BIT(8) // not a guest paging-structure access
#define EPT_QUAL_USER                  BIT(9)
#define EPT_QUAL_GUEST_WRITABLE        BIT(10)
#define EPT_QUAL_GUEST_EXECUTE_DISABLE BIT(11)

// What the processor supports; from IA32_VMX_EPT_VPID_CAP and CPUID.
struct ept_caps {
    bool execute_only;
    bool walk_length_5;
    bool page_2m;
    bool page_1g;
    bool advanced_violation_info; // IA32_VMX_EPT_VPID_CAP bit 22
    unsigned maxphyaddr;          // bits
};

enum ept_access { // may be combined
    EPT_ACCESS_READ = 1 << 0,
    EPT_ACCESS_WRITE = 1 << 1,
    EPT_ACCESS_FETCH = 1 << 2,
};

enum ept_status { EPT_OK, EPT_VIOLATION, EPT_MISCONFIGURATION };

struct ept_result {
    enum ept_status status;
    hpa_t frame;            // EPT_OK: physical address of the 4-KByte frame (bits 11:0 zero)
    uint64_t permissions;   // AND of EPT_PERMISSIONS over the entries used; 0 if one was not present
    bool dirty;             // the leaf's dirty flag is set, or accessed/dirty flags are disabled
    unsigned page_shift;    // 12, 21 or 30: size of the EPT mapping
    unsigned references;    // EPT entries read: 0 (address above the width of the walk) to 5
    uint64_t qualification; // EPT_VIOLATION: bits 5:0 of the exit qualification
    hpa_t entry_address[5]; // address and value of each entry read, from the root down
    uint64_t entry[5];
};

// Walks the tables of `eptp` for `gpa`. `access` is a set of enum ept_access. With EPTP bit 6 set it updates
// accessed and dirty flags, but only if the access is allowed. Entries outside RAM read as the bus answers.
void ept_walk(const struct ept_caps *caps, struct bus *bus, uint64_t eptp, gpa_t gpa, unsigned access,
              struct ept_result *result);

// For debuggers: where gpa leads, whatever the permissions, without touching flags or devices. False if
// an entry is not present, misconfigured or outside RAM.
bool ept_probe(const struct ept_caps *caps, const struct memory *memory, uint64_t eptp, gpa_t gpa, hpa_t *hpa);

#endif
