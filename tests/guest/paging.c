/*
 * Paging in IA-32e mode: accessed and dirty flags, CR0.WP, SMEP, SMAP, page sizes, global pages, PCIDs, INVPCID, and the
 * invalidations that software may rely on. SDM 3A "Paging". That a stale translation is used is never relied upon.
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "pages.h"
#include "trap.h"
#include "user.h"

enum {
    PF_P = 1,
    PF_W = 2,
    PF_U = 4,
    PF_ID = 16,
    PAGE = 8, /* of pages.h */
    INVPCID_ADDRESS = 0,
    INVPCID_CONTEXT = 1,
    INVPCID_ALL_GLOBAL = 2,
    INVPCID_ALL = 3,
};

static volatile uint64_t frames[3][512] __attribute__((aligned(4096)));
static volatile uint64_t *const window = (volatile uint64_t *)(PAGES_BASE + PAGE * 4096);

static uint64_t entry_flags(void) { return *(volatile uint64_t *)&pages_table[PAGE] & (PTE_A | PTE_D); }
static uint64_t frame(unsigned i) { return (uint64_t)frames[i]; }

static void test_accessed_dirty(void)
{
    page_set(PAGE, frame(0) | PTE_P | PTE_W);
    (void)window[0];
    check(entry_flags() == PTE_A, "a read sets A");
    window[0] = 1;
    check(entry_flags() == (PTE_A | PTE_D), "a write sets D");
    page_set(PAGE, frame(0) | PTE_P | PTE_W);
    __asm__ volatile("lock addq $0, (%0)" : : "r"(window) : "memory", "cc");
    check(entry_flags() == (PTE_A | PTE_D), "a read-modify-write sets both");
    page_set(PAGE, frame(0) | PTE_P);
    write_cr0(read_cr0() | CR0_WP);
    TRY("movq $1, (%0)", : : "r"(window) : "memory");
    check(trap.taken && trap.frame.error_code == (PF_P | PF_W), "a write to a read-only page: #PF");
    check(!(entry_flags() & PTE_D), "which leaves D clear");
    page_set(PAGE, frame(0) | PTE_P | PTE_W);
    __asm__ volatile("xor %%eax, %%eax; mov $1, %%ecx; lock cmpxchg %%rcx, (%0)"
                     :
                     : "r"(window + 1)
                     : "rax", "rcx", "memory", "cc");
    check(entry_flags() == (PTE_A | PTE_D), "CMPXCHG that does not change anything writes too");
    pages_directory[0] &= ~PTE_A;
    pages_pdpt[0] &= ~PTE_A;
    write_cr3(read_cr3());
    (void)window[0];
    check(*(volatile uint64_t *)&pages_directory[0] & PTE_A && *(volatile uint64_t *)&pages_pdpt[0] & PTE_A,
          "A is set in the entries above too");
    check(!(*(volatile uint64_t *)&pages_directory[0] & PTE_D), "D is not");
}

static void test_sizes(void)
{
    pages_directory[3] = 0x200000 | PTE_P | PTE_W | PTE_PS;
    volatile uint64_t *large = (volatile uint64_t *)(PAGES_BASE + (3 << 21) + 0x1000);
    volatile uint64_t *same = (volatile uint64_t *)(UINT64_C(0x200000) + 0x1000);
    uint64_t saved = *same;
    *large = 0x1234;
    check(*same == 0x1234, "a 2-MiB page");
    check((*(volatile uint64_t *)&pages_directory[3] & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "its entry has A and D");
    *same = saved;
    pages_directory[3] = 0;
    if (cpuid(0x80000001, 0).edx & 1 << 26) {
        pages_pdpt[4] = PTE_P | PTE_W | PTE_PS;
        volatile uint64_t *huge = (volatile uint64_t *)(PAGES_BASE + (UINT64_C(4) << 30) + 0x201000);
        *huge = 0x5678;
        check(*same == 0x5678, "a 1-GiB page");
        *same = saved;
        pages_pdpt[4] = 0;
    } else {
        note("left out: pages of 1 GiB");
    }
    write_cr3(read_cr3());
}

static void test_invalidation(void)
{
    for (unsigned i = 0; i < 3; i++) {
        frames[i][0] = 100 + i;
    }
    page_set(PAGE, frame(0) | PTE_P | PTE_W);
    check(window[0] == 100, "a page");
    page_set(PAGE, frame(1) | PTE_P | PTE_W);
    check(window[0] == 101, "moved, INVLPG: the new frame");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(2) | PTE_P | PTE_W;
    write_cr3(read_cr3());
    check(window[0] == 102, "moved, MOV to CR3: the new frame");
    page_set(PAGE, 0);
    TRY("mov (%0), %%rax", : : "r"(window) : "rax");
    check(trap.taken && trap.frame.vector == VECTOR_PF, "taken away, INVLPG: #PF");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(0) | PTE_P;
    check(window[0] == 100, "made present: no invalidation is needed");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(0) | PTE_P | PTE_W;
    TRY("movq $100, (%0)", : : "r"(window) : "memory");
    if (trap.taken) { /* allowed once: the fault itself invalidates */
        TRY("movq $100, (%0)", : : "r"(window) : "memory");
    }
    check(!trap.taken, "made writable: a fault at most once");

    write_cr4(read_cr4() | CR4_PGE);
    page_set(PAGE, frame(1) | PTE_P | PTE_W | PTE_G);
    check(window[0] == 101, "a global page");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(2) | PTE_P | PTE_W | PTE_G;
    invlpg((uint64_t)window);
    check(window[0] == 102, "INVLPG reaches it");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(0) | PTE_P | PTE_W | PTE_G;
    write_cr4(read_cr4() & ~CR4_PGE);
    check(window[0] == 100, "so does a change of CR4.PGE");
    page_set(PAGE, frame(0) | PTE_P | PTE_W);
}

void user_touch(void);
__asm__("user_touch: mov (%rsp), %rax; int3");

static void test_smep_smap(void)
{
    uint32_t features = cpuid(7, 0).ebx;
    *(volatile uint8_t *)frames[0] = 0xC3; /* RET */
    page_set(PAGE, frame(0) | PTE_P | PTE_W | PTE_U);
    TRY("call *%0", : : "r"(window) : "memory");
    check_no_trap("the supervisor executes a user page");
    /* From here on our own code must lie in supervisor pages: the boot tables' pages are, until user_init(). */
    if (features & 1 << 7) {
        write_cr4(read_cr4() | CR4_SMEP);
        TRY("call *%0", : : "r"(window) : "memory");
        check(trap.taken && trap.frame.vector == VECTOR_PF && trap.frame.error_code == (PF_P | PF_ID),
              "with SMEP: #PF");
        TRY("mov (%0), %%rax", : : "r"(window) : "rax");
        check_no_trap("but may read it");
        write_cr4(read_cr4() & ~CR4_SMEP);
    } else {
        note("left out: SMEP");
    }
    if (features & 1 << 20) {
        TRY("stac; clac", :);
        check_no_trap("STAC and CLAC");
        write_cr4(read_cr4() | CR4_SMAP);
        TRY("mov (%0), %%rax", : : "r"(window) : "rax");
        check(trap.taken && trap.frame.vector == VECTOR_PF && trap.frame.error_code == PF_P, "SMAP, a read: #PF");
        TRY("mov %%rax, (%0)", : : "r"(window) : "memory");
        check(trap.taken && trap.frame.error_code == (PF_P | PF_W), "a write: #PF");
        TRY("stac; mov (%0), %%rax; mov %%rax, (%0); clac", : : "r"(window) : "rax", "memory");
        check_no_trap("between STAC and CLAC: allowed");
        TRY("stac; clac; mov (%0), %%rax", : : "r"(window) : "rax");
        check(trap.taken, "after CLAC: #PF again");
        write_cr4(read_cr4() & ~CR4_SMAP);
    } else {
        note("left out: SMAP");
    }
}

static void invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
    struct {
        uint64_t pcid, address;
    } descriptor = {pcid, address};
    TRY("invpcid %0, %1", : : "m"(descriptor), "r"(type) : "memory");
}

static void test_pcid(void)
{
    uint64_t cr3 = read_cr3();
    if (!(cpuid(1, 0).ecx & 1 << 17) || !(cpuid(7, 0).ebx & 1 << 10)) {
        note("left out: PCIDs and INVPCID");
        return;
    }
    TRY("mov %0, %%cr4", : : "r"(read_cr4() | CR4_PCIDE));
    check_no_trap("CR4.PCIDE with CR3[11:0] 0");
    page_set(PAGE, frame(1) | PTE_P | PTE_W);
    write_cr3(cr3 | 5);
    check(window[0] == 101 && read_cr3() == (cr3 | 5), "PCID 5");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(2) | PTE_P | PTE_W;
    write_cr3(cr3 | 6);
    check(window[0] == 102, "PCID 6 has translations of its own");
    invpcid(INVPCID_ADDRESS, 5, (uint64_t)window);
    write_cr3(cr3 | 5 | UINT64_C(1) << 63);
    check(window[0] == 102 && read_cr3() == (cr3 | 5), "INVPCID of an address in PCID 5; CR3 bit 63 is not kept");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(1) | PTE_P | PTE_W;
    invpcid(INVPCID_CONTEXT, 5, 0);
    check(window[0] == 101, "INVPCID of a context");
    write_cr4(read_cr4() | CR4_PGE);
    *(volatile uint64_t *)&pages_table[PAGE] = frame(2) | PTE_P | PTE_W | PTE_G;
    invpcid(INVPCID_ALL, 0, 0);
    check(window[0] == 102, "INVPCID of all but globals");
    *(volatile uint64_t *)&pages_table[PAGE] = frame(1) | PTE_P | PTE_W;
    invpcid(INVPCID_ALL_GLOBAL, 0, 0);
    check(window[0] == 101, "INVPCID of all, globals too");
    invpcid(4, 0, 0);
    check_trap(VECTOR_GP, 0, 0, "type 4: #GP(0)");
    invpcid(INVPCID_ADDRESS, 0x1000, 0);
    check_trap(VECTOR_GP, 0, 0, "a reserved bit of the descriptor: #GP(0)");
    invpcid(INVPCID_ADDRESS, 5, UINT64_C(1) << 47);
    check_trap(VECTOR_GP, 0, 0, "a non-canonical address: #GP(0)");
    invpcid(INVPCID_ALL, 0x1000, 0);
    check_trap(VECTOR_GP, 0, 0, "a reserved bit counts for every type");
    TRY("mov %0, %%cr4", : : "r"(read_cr4() & ~CR4_PCIDE));
    check_no_trap("CR4.PCIDE can be cleared");
    TRY("mov %0, %%cr4", : : "r"(read_cr4() | CR4_PCIDE));
    check_trap(VECTOR_GP, 0, 0, "but not set while CR3[11:0] is not 0: #GP(0)");
    write_cr3(cr3);
    write_cr4(read_cr4() & ~CR4_PGE);
}

static void test_control(void)
{
    TRY("mov %0, %%cr3", : : "r"(read_cr3() | UINT64_C(1) << 62));
    check_trap(VECTOR_GP, 0, 0, "a reserved bit of CR3: #GP(0)");
    TRY("mov %0, %%cr0", : : "r"(read_cr0() & ~CR0_PG));
    check_trap(VECTOR_GP, 0, 0, "clearing CR0.PG in 64-bit mode: #GP(0)");
    TRY("mov %0, %%cr0", : : "r"((read_cr0() | CR0_NW) & ~CR0_CD));
    check_trap(VECTOR_GP, 0, 0, "CR0.NW without CD: #GP(0)");
    TRY("mov %0, %%cr0", : : "r"(read_cr0() | UINT64_C(1) << 32));
    check_trap(VECTOR_GP, 0, 0, "a high bit of CR0: #GP(0)");
    TRY("mov %0, %%cr8", : : "r"(UINT64_C(16)));
    check_trap(VECTOR_GP, 0, 0, "CR8 above 15: #GP(0)");
    TRY(".byte 0x0F, 0x22, 0xC8", :);
    check_trap(VECTOR_UD, 0, 0, "MOV to CR1: #UD");
    TRY("invlpg (%0)", : : "r"(UINT64_C(1) << 47));
    check_no_trap("INVLPG of a non-canonical address does nothing");
}

int main(void)
{
    check_begin("paging", "paging in IA-32e mode");
    trap_init();
    pages_init();
    test_accessed_dirty();
    test_sizes();
    test_invalidation();
    test_smep_smap();
    test_pcid();
    test_control();
    return check_verdict("%u checks", check_count());
}
