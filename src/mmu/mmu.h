// Address translation of one vCPU: guest paging, EPT and the architectural TLB.
//
// SDM 3A ch. 4 "Paging", SDM 3C 29.4 "Caching Translation Information".
// The TLB is architectural state (design D8): an entry lives until the guest
// invalidates it or another one takes its place. `tlb` holds the translations,
// tagged by a context number that stands for (VPID, PCID, EPTRTA); `fast` is
// derived from it and from CR0.WP, CR4.SMEP/SMAP, EFER.NXE and RFLAGS.AC: it
// holds ready host pointers and may be dropped at any time without effect.
//
//   slot(gva) = bits 12+TLB_BITS-1..12 of the linear address, the same slot in
//   `tlb` and in each of the `fast` tables. fast[b][m][slot] is valid only while
//   tlb[b][slot] holds the same translation. There are two banks: a guest, whose
//   linear addresses often are those of its hypervisor, does not evict it.
//
// Two kinds of small numbers. A context number tags a TLB entry; a context is
// invalidated by giving it a new number, so the old entries match no more. A
// fast tag number (`context`) stands for what fast entries depend on: the
// current context, its context of global pages, and the control bits above. It
// changes with any of them, so VM entry and exit drop nothing. 0 means that the
// current context has no number yet; no fast entry matches then, and the next
// mmu_translate gives it one.
//
// A right that a cached translation lacks is looked up again in memory before
// a fault is reported, so software that adds rights sees no spurious faults;
// software that takes rights away must invalidate.
#ifndef VMXON_MMU_MMU_H
#define VMXON_MMU_MMU_H

#include "base/types.h"
#include "ept/ept.h"
#include "mem/bus.h"

#define CR0_PE         BIT(0)
#define CR0_MP         BIT(1)
#define CR0_EM         BIT(2)
#define CR0_TS         BIT(3)
#define CR0_ET         BIT(4)
#define CR0_NE         BIT(5)
#define CR0_WP         BIT(16)
#define CR0_AM         BIT(18)
#define CR0_NW         BIT(29)
#define CR0_CD         BIT(30)
#define CR0_PG         BIT(31)
#define CR3_PCID_MASK  BITS(11, 0)
#define CR3_NOFLUSH    BIT(63)
#define CR4_VME        BIT(0)
#define CR4_PVI        BIT(1)
#define CR4_TSD        BIT(2)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_MCE        BIT(6)
#define CR4_PGE        BIT(7)
#define CR4_PCE        BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_SMXE       BIT(14)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE        BIT(22)
#define EFER_SCE       BIT(0)
#define EFER_LME       BIT(8)
#define EFER_LMA       BIT(10)
#define EFER_NXE       BIT(11)

// Page-fault error code (SDM 3A 4.7).
#define PF_PRESENT  BIT(0)
#define PF_WRITE    BIT(1)
#define PF_USER     BIT(2)
#define PF_RESERVED BIT(3)
#define PF_FETCH    BIT(4)

#define TLB_BITS           10
#define TLB_ENTRIES        (1u << TLB_BITS)
#define TLB_BANKS          2
#define TLB_LARGE_REGIONS  512
#define TLB_CONTEXTS       64  // live at a time: (VPID, PCID, EPTRTA), their globals, and EPTRTAs
#define TLB_GUEST_PHYSICAL 512 // entries for guest-physical mappings

// The control bits that decide rights, valid with paging on only (`controls`).
enum mmu_control {
    MMU_WP = 1 << 0,
    MMU_SMEP = 1 << 1,
    MMU_SMAP = 1 << 2,
    MMU_NXE = 1 << 3, // EFER.NXE, in PAE and 4-level paging
    MMU_PGE = 1 << 4,
    MMU_PSE = 1 << 5,
    MMU_PAGING = 1 << 6,
};

// Which of the fast tables serves an access.
enum mmu_mode {
    MMU_SUPERVISOR,    // CPL 0-2, or implicit supervisor access; SMAP (if on) forbids user pages
    MMU_USER,          // CPL 3
    MMU_SUPERVISOR_AC, // CPL 0-2 with RFLAGS.AC = 1: SMAP does not forbid
    MMU_MODES
};

enum mmu_access { MMU_READ, MMU_WRITE, MMU_FETCH };

// A translation's rights, already combined over guest and EPT entries.
enum tlb_flag {
    TLB_USER = 1 << 0,       // U/S = 1 in every guest entry
    TLB_WRITABLE = 1 << 1,   // R/W = 1 in every guest entry
    TLB_NO_EXECUTE = 1 << 2, // XD = 1 in some guest entry (and EFER.NXE)
    TLB_GLOBAL = 1 << 3,
    TLB_DIRTY = 1 << 4,     // guest D flag is set (or paging is off): a write needs no walk
    TLB_LARGE = 1 << 5,     // part of a guest page larger than 4 KBytes
    TLB_EPT_READ = 1 << 6,  // EPT rights; all three set without EPT
    TLB_EPT_WRITE = 1 << 7, // includes: EPT D flag set, if EPT accessed/dirty flags are on
    TLB_EPT_EXECUTE = 1 << 8,
    TLB_LARGE_4M = 1 << 9,  // with TLB_LARGE: the guest page has 4 MBytes, or
    TLB_LARGE_1G = 1 << 10, // 1 GByte; neither: 2 MBytes
};

struct tlb_entry {
    gva_t page;       // linear address of the 4-KByte page; UINT64_MAX: empty entry
    hpa_t frame;      // physical address of the 4-KByte frame
    gpa_t gpa;        // guest-physical address of the frame
    uint32_t context; // number of the context, 0: empty entry
    uint16_t flags;   // enum tlb_flag
};

// A guest-physical mapping: 4 KBytes of EPT translation, kept until INVEPT, eviction or an EPT violation on it.
struct tlb_guest_physical {
    gpa_t page; // UINT64_MAX: empty entry
    hpa_t frame;
    uint32_t context;    // number of the context of kind TLB_NO_LINEAR
    uint8_t permissions; // EPT_PERMISSIONS
    bool dirty;          // as struct ept_result
};

// A tag matches if it equals (page | mmu->context). Never matching: TLB_NO_TAG.
#define TLB_NO_TAG UINT64_MAX
struct fast_entry {
    uint64_t read;   // tag if reads are allowed and the frame is RAM
    uint64_t write;  // tag if writes are allowed, the frame is RAM, clean of decoded code, and D is set
    uint64_t fetch;  // tag if fetches are allowed and the frame is RAM
    uint64_t addend; // host address = linear address + addend (mod 2^64)
};

struct tlb_context {
    uint64_t eptrta;    // EPTP bits 51:12 if EPT is in use, else 0; bit 0 set if EPT is in use
    uint16_t vpid;      // 0 for TLB_NO_LINEAR
    uint16_t pcid;      // 0 to 4095, or one of TLB_ANY_PCID, TLB_NO_PAGING, TLB_NO_LINEAR
    uint32_t number;    // tags its entries; 0: it has none
    uint64_t last_used; // for replacement: the least recently used slot is taken
};
#define TLB_ANY_PCID  0xFFFF // global pages
#define TLB_NO_PAGING 0xFFFE // made while CR0.PG = 0; invalidated as PCID 000H
#define TLB_NO_LINEAR 0xFFFD // guest-physical mappings

// How linear addresses are translated now; derived from the control registers.
enum paging_mode { PAGING_OFF, PAGING_32BIT, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL };

#define MMU_FAST_TAGS 4094 // fast tag numbers 1..4094; 4095 would make TLB_NO_TAG a possible tag
#define MMU_VIEWS     64
struct mmu_view { // the fast tag number given to a combination of what fast entries depend on
    uint32_t linear_context, global_context;
    uint16_t controls;
    uint16_t tag; // 0: empty
};

struct mmu {
    // Derived and hot: the fast table of the current mode and the current context number.
    struct fast_entry *current; // &fast[bank][mode][0]
    uint64_t context;           // fast tag number, 1..MMU_FAST_TAGS; 0: nothing can match

    // Derived from the inputs below by the setters.
    uint32_t linear_context;   // context number of the current (VPID, PCID, EPTRTA)
    uint32_t global_context;   // of global pages; equal to linear_context with paging off
    uint32_t physical_context; // of guest-physical mappings, 0 without EPT
    unsigned bank;             // 1 while a VPID or EPT is in use, else 0
    enum paging_mode paging;
    uint16_t controls;      // enum mmu_control
    uint64_t reserved_bits; // reserved in every present PAE or 4-level entry

    // Inputs, written only through mmu_set_*.
    uint64_t cr0, cr3, cr4, efer;
    uint64_t pdpte[4]; // PAE PDPTE registers
    bool ept_enabled;  // in VMX non-root operation with "enable EPT"
    uint64_t eptp;
    uint16_t vpid;      // current VPID; 0 outside non-root or with VPID disabled
    enum mmu_mode mode; // mode of explicit data accesses and of fetches at the current CPL
    struct ept_caps ept_caps;
    unsigned maxphyaddr; // bits
    bool page_1g;        // 1-GByte pages in guest paging
    struct bus *bus;
    struct memory *memory;

    // The code page that instructions are fetched from: a one-entry instruction TLB, architectural as `tlb` is.
    struct {
        gva_t page; // linear address, or UINT64_MAX: none
        hpa_t frame;
    } code;

    // Statistics and cost: memory references of walks made since the caller last cleared it.
    unsigned references;
    uint64_t walks; // TLB misses so far
    uint64_t ept_walks;

    // Architectural: with the inputs, `code` and the counters, what a snapshot saves.
    struct tlb_entry tlb[TLB_BANKS][TLB_ENTRIES];
    struct tlb_guest_physical guest_physical[TLB_GUEST_PHYSICAL];
    struct tlb_context contexts[TLB_CONTEXTS];
    unsigned contexts_used; // contexts[0..contexts_used-1] have been given out
    uint32_t next_context_number;
    uint64_t context_clock;
    // Where TLB_LARGE entries may be, by hashes of their address: INVLPG scans only there.
    uint64_t large_2m[TLB_LARGE_REGIONS / 64]; // regions of 2 MBytes, for pages of 2 and 4 MBytes
    uint64_t large_1g;                         // regions of 1 GByte, for pages of that size

    // Derived: may be dropped at any time.
    enum mmu_access last_access; // of the last mmu_translate
    uint16_t next_fast_tag;
    uint8_t context_hint[16];
    struct mmu_view views[MMU_VIEWS];
    struct fast_entry fast[TLB_BANKS][MMU_MODES][TLB_ENTRIES];
};

enum mmu_status {
    MMU_OK,
    MMU_PAGE_FAULT,    // fault.error_code, fault.gva
    MMU_EPT_VIOLATION, // fault.gpa, fault.gva, fault.qualification
    MMU_EPT_MISCONFIGURATION,
};

struct mmu_fault {
    gva_t gva;
    gpa_t gpa;
    uint32_t error_code;    // page fault
    uint64_t qualification; // EPT violation: bits 0 to 11
    bool gva_valid;         // false for PDPTE loads by MOV CR
};

// maxphyaddr: 32 to 52 bits. 1-GByte pages and the EPT features of 4-level walks start on; the owner may
// change `page_1g` and `ept_caps` afterwards.
void mmu_init(struct mmu *mmu, struct bus *bus, unsigned maxphyaddr);
// As after RESET: paging off, every cached translation gone.
void mmu_reset(struct mmu *mmu);

// Translates a linear address. `mode` is the mode of this access (which may differ from mmu->mode, for implicit
// supervisor accesses). On MMU_OK stores the physical address (with the page offset). Uses the TLB, else walks (setting A/D flags) and fills the TLB.
enum mmu_status mmu_translate(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_mode mode, hpa_t *hpa,
                              struct mmu_fault *fault);

// Fills the fast entry of the page from the translation just made by mmu_translate (with the same mode), if the frame
// is RAM: the read and fetch tags if permitted; the write tag if permitted, that access was a write and the page
// holds no decoded code. The frame's PAGE_DIRTY is set before a write tag is given.
void mmu_fill_fast(struct mmu *mmu, gva_t gva, enum mmu_mode mode);

// Translates a guest-physical address outside a linear access (PDPTE loads, and whatever VMX reads guest-physically).
enum mmu_status mmu_translate_gpa(struct mmu *mmu, gpa_t gpa, enum mmu_access access, hpa_t *hpa,
                                  struct mmu_fault *fault);

// Walks without any side effect (no A/D, no TLB): for debuggers. Returns false if not mapped.
bool mmu_probe(const struct mmu *mmu, gva_t gva, hpa_t *hpa);

// Reads the four PDPTEs at CR3 (through EPT if on) for PAE paging into `pdpte`; MMU_PAGE_FAULT means a reserved bit was set (-> #GP(0)).
enum mmu_status mmu_read_pdptes(struct mmu *mmu, uint64_t cr3, uint64_t pdpte[4], struct mmu_fault *fault);
bool mmu_pdpte_valid(const struct mmu *mmu, uint64_t pdpte); // false: present with a reserved bit set

// True if PAE paging (not 4-level) is what these registers ask for.
static inline bool mmu_is_pae(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

// Sets the control registers that decide translation, without any invalidation but that of derived state. VM entry and exit use it
// too; the architectural invalidations of MOV CR are mmu_invalidate_* below, called by the instruction.
void mmu_set_control(struct mmu *mmu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer);
void mmu_set_mode(struct mmu *mmu, enum mmu_mode mode);
// Loads the PDPTE registers (VM entry from the VMCS, MOV CR after mmu_read_pdptes).
void mmu_set_pdptes(struct mmu *mmu, const uint64_t pdpte[4]);
// Enters or leaves the address space of a VM: VPID (0 if disabled), EPT on/off with its pointer.
void mmu_set_vm(struct mmu *mmu, uint16_t vpid, bool ept_enabled, uint64_t eptp);

// Invalidations (SDM 3A 4.10.4, SDM 3C 29.4.3). All also forget the code page.
void mmu_invalidate_page(struct mmu *mmu, gva_t gva);                     // INVLPG: current VPID and PCID, and globals
void mmu_invalidate_pcid_page(struct mmu *mmu, uint16_t pcid, gva_t gva); // INVPCID type 0, globals excepted
void mmu_invalidate_pcid(struct mmu *mmu, uint16_t pcid); // MOV CR3, INVPCID type 1: current VPID, not globals
void mmu_invalidate_vpid(struct mmu *mmu, uint16_t vpid, bool keep_globals); // MOV CR4, INVPCID 2/3, INVVPID 1/3
void mmu_invalidate_vpid_page(struct mmu *mmu, uint16_t vpid, gva_t gva);    // INVVPID 0
void mmu_invalidate_all_vpids(struct mmu *mmu);                              // INVVPID 2: all but VPID 0000H
void mmu_invalidate_eptp(struct mmu *mmu, uint64_t eptp);                    // INVEPT 1
void mmu_invalidate_all_epts(struct mmu *mmu);                               // INVEPT 2
void mmu_invalidate_everything(struct mmu *mmu);                             // RESET

// Drops derived state: all fast entries (also needed after PAGE_DIRTY flags were cleared), or the write tags of one
// physical frame (a page became code).
void mmu_drop_fast(struct mmu *mmu);
void mmu_protect_frame(struct mmu *mmu, hpa_t frame);

// After the architectural fields and inputs were restored from a snapshot: rebuilds everything derived.
void mmu_rebuild(struct mmu *mmu);

static inline unsigned mmu_slot(gva_t gva) { return (unsigned)(gva >> PAGE_SHIFT) & (TLB_ENTRIES - 1); }

#endif
