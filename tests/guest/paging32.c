/*
 * The two paging modes of 32-bit code: 32-bit paging with and without 4-MiB pages, and PAE paging with its PDPTE registers.
 * SDM 3A "32-Bit Paging", "PAE Paging".
 */
#include "check.h"
#include "start.h"

enum {
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    P = 1,
    W = 2,
    U = 4,
    A = 0x20,
    D = 0x40,
    PS = 0x80,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    WINDOW = 0x40000000, /* directory entry 256; PDPTE 1 */
    MSR_EFER = 0xC0000080,
    EFER_NXE = 1 << 11,
};
#define CR0_PG UINT32_C(0x80000000)
#define CR0_WP UINT32_C(0x00010000)
#define NX     (UINT64_C(1) << 63)

static uint32_t directory[1024] __attribute__((aligned(4096)));
static uint32_t table[1024] __attribute__((aligned(4096)));
static uint64_t pdptes[4] __attribute__((aligned(32)));
static uint64_t directories[2][512] __attribute__((aligned(4096)));
static uint64_t pae_table[512] __attribute__((aligned(4096)));
static volatile uint32_t frames[2][1024] __attribute__((aligned(4096)));
static volatile uint32_t *const window = (volatile uint32_t *)WINDOW;

#define READ_CR(n)                                            \
    static uint32_t read_cr##n(void)                          \
    {                                                         \
        uint32_t value;                                       \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value)); \
        return value;                                         \
    }                                                         \
    static void write_cr##n(uint32_t value) { __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory"); }
READ_CR(0)
READ_CR(3)
READ_CR(4)

static uint32_t read_cr2(void)
{
    uint32_t value;
    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static void invlpg(const volatile void *address) { __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory"); }
static void read_window(void) { TRY("mov (%0), %%eax", : : "r"(window) : "eax", "memory"); }
static void write_window(void) { TRY("movl $7, (%0)", : : "r"(window) : "memory"); }

static void check_fault(uint32_t error_code, const char *what)
{
    check(trapped(VECTOR_PF, error_code) && read_cr2() == WINDOW, "%s: #PF(%u)", what, trap.frame.error_code);
}

static void test_32_bit(void)
{
    write_cr4(read_cr4() | CR4_PSE);
    for (uint32_t i = 0; i < 8; i++) {
        directory[i] = i << 22 | P | W | PS;
    }
    directory[WINDOW >> 22] = (uint32_t)table | P | W | U;
    table[0] = (uint32_t)frames[0] | P | W;
    frames[0][0] = 0x1111;
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    check(window[0] == 0x1111, "32-bit paging: a 4-KiB page beside 4-MiB pages");
    check((*(volatile uint32_t *)&table[0] & (A | D)) == A, "A is set");
    window[1] = 0x2222;
    check(frames[0][1] == 0x2222 && (*(volatile uint32_t *)&table[0] & D), "a write; D is set");
    check((*(volatile uint32_t *)&directory[0] & (A | D)) == (A | D), "the entry of a 4-MiB page has A and D");
    table[0] = (uint32_t)frames[1] | P;
    invlpg(window);
    write_window();
    check_fault(P | W, "a write to a read-only page, CR0.WP");
    table[0] = 0;
    invlpg(window);
    read_window();
    check_fault(0, "a page not present");
    directory[WINDOW >> 22] = 0x00400000 | 1 << 21 | P | W | PS;
    invlpg(window);
    read_window();
    check_fault(P | 8, "bit 21 of the entry of a 4-MiB page is reserved");
    write_cr0(read_cr0() & ~CR0_PG);

    /* Without CR4.PSE bit 7 is ignored: the entry leads to a page table. The first 4 MiB need one too then. */
    static uint32_t low_table[1024] __attribute__((aligned(4096)));
    for (uint32_t i = 0; i < 1024; i++) {
        low_table[i] = i << 12 | P | W;
    }
    directory[0] = (uint32_t)low_table | P | W;
    directory[WINDOW >> 22] = (uint32_t)table | P | W | PS;
    table[0] = (uint32_t)frames[0] | P | W;
    write_cr4(read_cr4() & ~(uint32_t)CR4_PSE);
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | CR0_PG);
    check(window[0] == 0x1111, "without CR4.PSE bit 7 of a directory entry is ignored");
    write_cr0(read_cr0() & ~CR0_PG);
}

static void test_pae(void)
{
    for (uint64_t i = 0; i < 16; i++) {
        directories[0][i] = i << 21 | P | W | PS;
    }
    directories[1][0] = (uint32_t)pae_table | P | W | U;
    pdptes[0] = (uint32_t)directories[0] | P;
    pdptes[1] = (uint32_t)directories[1] | P;
    pae_table[0] = (uint32_t)frames[0] | P | W;
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((uint32_t)pdptes);
    write_cr0(read_cr0() | CR0_PG);
    frames[0][0] = 0x3333;
    frames[1][0] = 0x4444;
    check(window[0] == 0x3333, "PAE paging: a 4-KiB page beside 2-MiB pages");
    check((pae_table[0] & A) != 0, "A is set");

    pdptes[1] = 0;
    invlpg(window);
    check(window[0] == 0x3333, "PDPTEs are in registers: a change in memory has no effect");
    write_cr3(read_cr3());
    read_window();
    check_fault(0, "until MOV to CR3");
    pdptes[1] = (uint32_t)directories[1] | P | W;
    TRY("mov %0, %%cr3", : : "r"(read_cr3()) : "memory");
    check_trap(VECTOR_GP, 0, 0, "MOV to CR3 with a reserved bit in a PDPTE: #GP(0)");
    read_window();
    check_fault(0, "the PDPTEs are as before");
    pdptes[1] = (uint32_t)directories[1] | P;
    write_cr3(read_cr3());
    check(window[0] == 0x3333, "and then loaded");

    pae_table[0] = (uint32_t)frames[1] | P | W | NX;
    invlpg(window);
    read_window();
    check_fault(P | 8, "bit 63 without EFER.NXE is reserved");
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(MSR_EFER));
    __asm__ volatile("wrmsr" : : "a"(low | EFER_NXE), "d"(high), "c"(MSR_EFER));
    read_window();
    check(!trap.taken && window[0] == 0x4444, "with it the page can be read");
    TRY("jmp *%0", : : "r"(window) : "memory");
    check(trapped(VECTOR_PF, P | 16) && read_cr2() == WINDOW, "but not executed: #PF with ID");
    pae_table[0] = (uint32_t)frames[0] | UINT64_C(1) << 50 | P | W;
    invlpg(window);
    read_window();
    check_fault(P | 8, "an address bit beyond MAXPHYADDR is reserved");
    TRY("mov %0, %%cr0", : : "r"((read_cr0() | CR0_PG) & ~1u));
    check_trap(VECTOR_GP, 0, 0, "CR0 with PG and without PE: #GP(0)");
}

int main(void)
{
    check_begin("paging32", "32-bit and PAE paging");
    test_32_bit();
    test_pae();
    return check_verdict("%u checks", check_count());
}
