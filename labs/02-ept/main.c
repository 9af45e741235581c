/*
 * Lab 02, extended page tables: three page sizes, violations repaired on demand, a misconfiguration, execute-only
 * pages, accessed and dirty flags, INVEPT and INVVPID, and a guest in real mode. README.md tells what to look at.
 *
 * What a processor lacks is said in a line that begins with "note"; otherwise the output is the same everywhere.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check.h"
#include "cpu.h"
#include "ept.h"
#include "guest.h"
#include "multiboot.h"
#include "real_mode.h"
#include "serial.h"
#include "string.h"
#include "vmx.h"
#include "vmx_setup.h"

/* Qualification of an EPT violation, SDM 3C table "Exit Qualification for EPT Violations". */
enum ept_violation_bits {
    VIOLATION_READ = 1 << 0,
    VIOLATION_WRITE = 1 << 1,
    VIOLATION_FETCH = 1 << 2,
    VIOLATION_PAGE_READABLE = 1 << 3,
    VIOLATION_PAGE_WRITABLE = 1 << 4,
    VIOLATION_PAGE_EXECUTABLE = 1 << 5,
    VIOLATION_LINEAR_VALID = 1 << 7,
    VIOLATION_OF_TRANSLATION = 1 << 8, /* 0: of an access to one of the guest's paging structures */
    /* Bits 11:9 tell more on some processors; bit 6 and the bits above 11 are other features'. */
    VIOLATION_BITS_EVERYWHERE = 0x1BF,
    VIOLATION_OF_ACCESS = VIOLATION_LINEAR_VALID | VIOLATION_OF_TRANSLATION,
    VIOLATION_ALLOWED_SHIFT = 3,
};

enum {
    PAGE_BYTES = 4096,
    FRAMES = 12,
    FRAME_VALUE = 0x1000, /* frame i begins with the quadword FRAME_VALUE + i */
    WRITTEN_VALUE = 0x2000,
    CODE_VALUE = 0x600D,
    VPID = 1,
    MEMORY_KIB_MIN = 62 << 10,
};

/* The window's pages, by what each shows. Page i is meant to lie in frame i. */
enum window_page {
    PAGE_NOT_PRESENT,
    PAGE_READ_ONLY,
    PAGE_NO_EXECUTE,
    PAGE_EXECUTE_ONLY,
    PAGE_MISCONFIGURED,
    PAGE_READ,
    PAGE_WRITTEN,
    PAGE_MOVED_BY_HOST,
    PAGE_MOVED_BY_GUEST,
    PAGE_SPARE, /* where the moved ones move to */
};

enum { MEBIBYTE = 1 << 20, GIBIBYTE = 1 << 30 };

/* A place in a 2-MiB page, far from everything; the 1-GiB page shows it a second time. */
static const uint64_t plain_gpa = 32 * MEBIBYTE;
static const uint64_t alias_gpa = GIBIBYTE + 32 * MEBIBYTE;

static struct vmx_region vmxon_region;
static struct vmx_region vmcs;
static struct vmx_region real_mode_vmcs;
static volatile uint64_t frames[FRAMES][PAGE_BYTES / sizeof(uint64_t)] __attribute__((aligned(4096)));

static uint64_t eptp;
static uint64_t capabilities; /* IA32_VMX_EPT_VPID_CAP */

static uint64_t page_gva(enum window_page page) { return WINDOW_GVA + page * PAGE_BYTES; }
static uint64_t page_gpa(enum window_page page) { return WINDOW_GPA + page * PAGE_BYTES; }

/* Puts `page` into its frame, or gives it other rights there. */
static void map_page(enum window_page page, uint64_t rights)
{
    ept_map(page_gpa(page), (uint64_t)frames[page], EPT_PAGE_4K, rights);
}

/* A function that returns CODE_VALUE: mov $CODE_VALUE, %eax; ret */
static void write_code(enum window_page page)
{
    static const uint8_t code[] = {0xB8, CODE_VALUE & 0xFF, CODE_VALUE >> 8, 0, 0, 0xC3};
    memcpy((void *)frames[page], code, sizeof code);
}

static void enter_vmx_operation(const struct multiboot_info *mbi)
{
    serial_puts("1. Enter VMX operation, and look for EPT\n");
    require(mbi && (mbi->flags & MULTIBOOT_INFO_MEMORY) && mbi->mem_upper >= MEMORY_KIB_MIN,
            "the machine has 64 MiB of memory");
    require(vmx_is_supported(), "CPUID.1:ECX.VMX is 1");
    require(vmx_controls_allow(CONTROLS_SECONDARY, SECONDARY_ENABLE_EPT), "the control enable_ept may be 1");
    capabilities = rdmsr(MSR_IA32_VMX_EPT_VPID_CAP);
    require(capabilities & EPT_CAP_WALK_LENGTH_4, "EPT of four levels");
    require(capabilities & EPT_CAP_WRITE_BACK, "EPT in write-back memory");
    require(capabilities & EPT_CAP_2M_PAGES, "EPT pages of 2 MiB");
    require(capabilities & EPT_CAP_INVEPT, "INVEPT");

    require(vmx_enable(), "IA32_FEATURE_CONTROL is locked and permits VMXON; CR4.VMXE is 1");
    vmx_region_init(&vmxon_region);
    require(vmxon((uint64_t)&vmxon_region) == VMX_SUCCEED, "VMXON succeeds");
}

static bool has_vpid(void)
{
    return vmx_controls_allow(CONTROLS_SECONDARY, SECONDARY_ENABLE_VPID) && (capabilities & VPID_CAP_INVVPID);
}

/* The guest's memory: the first GiB as it is, in pages of 4 KiB and 2 MiB; the second GiB shows the first again. */
static void build_ept(void)
{
    serial_puts("2. Build the extended page tables\n");
    for (uint64_t gpa = 0; gpa < 2 * MEBIBYTE; gpa += PAGE_BYTES) {
        ept_map(gpa, gpa, EPT_PAGE_4K, EPT_ALL_RIGHTS);
    }
    check(true, "0 to 2 MiB: pages of 4 KiB");
    for (uint64_t gpa = 2 * MEBIBYTE; gpa < GIBIBYTE; gpa += 2 * MEBIBYTE) {
        ept_map(gpa, gpa, EPT_PAGE_2M, EPT_ALL_RIGHTS);
    }
    check(true, "2 MiB to 1 GiB: pages of 2 MiB");
    if (capabilities & EPT_CAP_1G_PAGES) {
        ept_map(GIBIBYTE, 0, EPT_PAGE_1G, EPT_ALL_RIGHTS);
        check(true, "1 GiB to 2 GiB: one page of 1 GiB, which shows the first GiB again");
    } else {
        for (uint64_t offset = 0; offset < GIBIBYTE; offset += 2 * MEBIBYTE) {
            ept_map(GIBIBYTE + offset, offset, EPT_PAGE_2M, EPT_ALL_RIGHTS);
        }
        note("this processor has no EPT pages of 1 GiB: pages of 2 MiB show the first GiB again");
    }

    for (unsigned i = 0; i < FRAMES; i++) {
        frames[i][0] = FRAME_VALUE + i;
    }
    eptp = ept_pointer(false);
}

static void write_controls(void)
{
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, 0));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_PRIMARY, PRIMARY_ACTIVATE_SECONDARY_CONTROLS));
    vmcs_write(VMCS_SECONDARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_SECONDARY, SECONDARY_ENABLE_EPT | (has_vpid() ? SECONDARY_ENABLE_VPID : 0)));
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS, vmx_controls_value(CONTROLS_EXIT, EXIT_HOST_ADDRESS_SPACE_SIZE));
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls_value(CONTROLS_ENTRY, ENTRY_IA32E_MODE_GUEST));
    vmcs_write(VMCS_EPTP, eptp);
    if (has_vpid()) {
        vmcs_write(VMCS_VPID, VPID);
    }
}

static void make_current(struct vmx_region *region)
{
    vmx_region_init(region);
    require(vmclear((uint64_t)region) == VMX_SUCCEED && vmptrld((uint64_t)region) == VMX_SUCCEED,
            "a VMCS is clear and current");
}

static void launch_guest(void)
{
    serial_puts("3. Launch a 64-bit guest, and look at one byte through pages of each size\n");
    make_current(&vmcs);
    write_controls();
    vmx_write_host_state();
    guest_build_page_tables();
    guest_launch();
    check(true, "the guest runs, on page tables of its own below the EPT");

    volatile uint64_t *plain = (volatile uint64_t *)plain_gpa;
    *plain = FRAME_VALUE;
    check(guest_do(GUEST_READ, plain_gpa, 0) == FRAME_VALUE, "at 0x%lx the guest reads what we wrote", plain_gpa);
    guest_do(GUEST_WRITE, alias_gpa, FRAME_VALUE + 1);
    check(*plain == FRAME_VALUE + 1, "at 0x%lx it writes to the same memory", alias_gpa);
    uint64_t in_4k_page = (uint64_t)frames[PAGE_SPARE];
    check(guest_do(GUEST_READ, in_4k_page, 0) == guest_do(GUEST_READ, GIBIBYTE + in_4k_page, 0),
          "so it is for memory in pages of 4 KiB");
}

/* For three bits of read, write, fetch: those that tell the access, or those that tell what is allowed. */
static const char *const access_words[] = {
    "nothing", "read", "write", "read and write", "fetch", "read and fetch", "write and fetch", "everything",
};

/* The exit must be an EPT violation with these bits of the qualification, at these addresses. */
static void check_violation(uint64_t expected, uint64_t gpa, uint64_t gva)
{
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    require(reason == EXIT_EPT_VIOLATION, "EPT violation: exit reason %u", reason);

    uint64_t qualification = vmcs_read(VMCS_EXIT_QUALIFICATION) & VIOLATION_BITS_EVERYWHERE;
    check(qualification == expected, "  qualification 0x%lx: %s, where the entries allow %s; %s", qualification,
          access_words[qualification & 7], access_words[qualification >> VIOLATION_ALLOWED_SHIFT & 7],
          qualification & VIOLATION_OF_TRANSLATION ? "the access itself" : "a step of the guest's page walk");
    check(vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS) == gpa, "  guest-physical address 0x%lx",
          vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS));
    check(vmcs_read(VMCS_GUEST_LINEAR_ADDRESS) == gva, "  guest linear address 0x%lx",
          vmcs_read(VMCS_GUEST_LINEAR_ADDRESS));
}

static void show_violations(void)
{
    serial_puts("4. EPT violations, each repaired\n");
    guest_begin(GUEST_READ, page_gva(PAGE_NOT_PRESENT), 0);
    check_violation(VIOLATION_READ | VIOLATION_OF_ACCESS, page_gpa(PAGE_NOT_PRESENT), page_gva(PAGE_NOT_PRESENT));
    map_page(PAGE_NOT_PRESENT, EPT_ALL_RIGHTS);
    check(guest_end() == FRAME_VALUE + PAGE_NOT_PRESENT, "with the page mapped, the guest reads its value");

    map_page(PAGE_READ_ONLY, EPT_READ);
    check(guest_do(GUEST_READ, page_gva(PAGE_READ_ONLY), 0) == FRAME_VALUE + PAGE_READ_ONLY,
          "a read-only page can be read");
    guest_begin(GUEST_WRITE, page_gva(PAGE_READ_ONLY), WRITTEN_VALUE);
    check_violation(VIOLATION_WRITE | VIOLATION_PAGE_READABLE | VIOLATION_OF_ACCESS, page_gpa(PAGE_READ_ONLY),
                    page_gva(PAGE_READ_ONLY));
    check(frames[PAGE_READ_ONLY][0] == FRAME_VALUE + PAGE_READ_ONLY, "nothing was written");
    map_page(PAGE_READ_ONLY, EPT_READ | EPT_WRITE);
    guest_end();
    check(frames[PAGE_READ_ONLY][0] == WRITTEN_VALUE, "with the page writable, it was");

    write_code(PAGE_NO_EXECUTE);
    map_page(PAGE_NO_EXECUTE, EPT_READ | EPT_WRITE);
    guest_begin(GUEST_CALL, page_gva(PAGE_NO_EXECUTE), 0);
    check_violation(VIOLATION_FETCH | VIOLATION_PAGE_READABLE | VIOLATION_PAGE_WRITABLE | VIOLATION_OF_ACCESS,
                    page_gpa(PAGE_NO_EXECUTE), page_gva(PAGE_NO_EXECUTE));
    map_page(PAGE_NO_EXECUTE, EPT_ALL_RIGHTS);
    check(guest_end() == CODE_VALUE, "with the page executable, the function there returns");
}

/* One of the guest's own page tables is not present in the EPT: the walk stops before it knows the final address. */
static void show_violation_of_page_walk(void)
{
    serial_puts("5. An EPT violation in the middle of the guest's page walk\n");
    uint64_t gva = WALK_GVA + PAGE_READ_ONLY * PAGE_BYTES;
    uint64_t entry_gpa = WALK_TABLE_GPA + PAGE_READ_ONLY * sizeof(uint64_t);
    guest_begin(GUEST_READ, gva, 0);
    check_violation(VIOLATION_READ | VIOLATION_LINEAR_VALID, entry_gpa, gva);
    ept_map(WALK_TABLE_GPA, (uint64_t)guest_walk_table(), EPT_PAGE_4K, EPT_ALL_RIGHTS);
    check(guest_end() == WRITTEN_VALUE, "with the page table mapped, the guest reads the value");
}

static void show_misconfiguration(void)
{
    serial_puts("6. An EPT misconfiguration\n");
    map_page(PAGE_MISCONFIGURED, EPT_WRITE);
    guest_begin(GUEST_READ, page_gva(PAGE_MISCONFIGURED), 0);
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    require(reason == EXIT_EPT_MISCONFIGURATION, "an entry with W = 1 and R = 0: exit reason %u", reason);
    check(vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS) == page_gpa(PAGE_MISCONFIGURED), "  guest-physical address 0x%lx",
          vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS));
    map_page(PAGE_MISCONFIGURED, EPT_READ | EPT_WRITE);
    check(guest_end() == FRAME_VALUE + PAGE_MISCONFIGURED, "with R = 1, the guest reads its value");
}

static void show_execute_only(void)
{
    serial_puts("7. An execute-only page\n");
    if (!(capabilities & EPT_CAP_EXECUTE_ONLY)) {
        note("this processor has no execute-only EPT pages: such an entry would be a misconfiguration");
        return;
    }
    write_code(PAGE_EXECUTE_ONLY);
    map_page(PAGE_EXECUTE_ONLY, EPT_EXECUTE);
    check(guest_do(GUEST_CALL, page_gva(PAGE_EXECUTE_ONLY), 0) == CODE_VALUE, "the function there can be called");
    guest_begin(GUEST_READ, page_gva(PAGE_EXECUTE_ONLY), 0);
    check_violation(VIOLATION_READ | VIOLATION_PAGE_EXECUTABLE | VIOLATION_OF_ACCESS, page_gpa(PAGE_EXECUTE_ONLY),
                    page_gva(PAGE_EXECUTE_ONLY));
    map_page(PAGE_EXECUTE_ONLY, EPT_READ | EPT_EXECUTE);
    check(guest_end() == frames[PAGE_EXECUTE_ONLY][0], "with the page readable, the guest reads the code");
}

/* Checks accessed and dirty flag of a page. */
static void check_flags(enum window_page page, uint64_t expected, const char *what)
{
    uint64_t flags = *ept_entry(page_gpa(page)) & (EPT_ACCESSED | EPT_DIRTY);
    check(flags == expected, "%s: accessed %u, dirty %u", what, (flags & EPT_ACCESSED) != 0, (flags & EPT_DIRTY) != 0);
}

static void show_accessed_and_dirty_flags(void)
{
    serial_puts("8. Accessed and dirty flags\n");
    if (!(capabilities & EPT_CAP_ACCESSED_DIRTY)) {
        note("this processor has no accessed and dirty flags for EPT");
        return;
    }
    map_page(PAGE_READ, EPT_ALL_RIGHTS);
    map_page(PAGE_WRITTEN, EPT_ALL_RIGHTS);
    eptp = ept_pointer(true);
    vmcs_write(VMCS_EPTP, eptp);
    ept_invalidate(eptp);
    check_flags(PAGE_READ, 0, "before");

    guest_do(GUEST_READ, page_gva(PAGE_READ), 0);
    check_flags(PAGE_READ, EPT_ACCESSED, "after a read");
    guest_do(GUEST_WRITE, page_gva(PAGE_WRITTEN), 1);
    check_flags(PAGE_WRITTEN, EPT_ACCESSED | EPT_DIRTY, "after a write");

    *ept_entry(page_gpa(PAGE_WRITTEN)) &= ~(uint64_t)(EPT_ACCESSED | EPT_DIRTY);
    ept_invalidate(eptp); /* else the processor may still know the flags as set, and not set them again */
    guest_do(GUEST_READ, page_gva(PAGE_WRITTEN), 0);
    check_flags(PAGE_WRITTEN, EPT_ACCESSED, "cleared, INVEPT, and a read");
    guest_do(GUEST_WRITE, page_gva(PAGE_WRITTEN), 2);
    check_flags(PAGE_WRITTEN, EPT_ACCESSED | EPT_DIRTY, "and a write again");
}

static void check_invalid_operand(enum vmx_result result, const char *what)
{
    if (check_quietly(result == VMX_FAIL_VALID, "%s: VMfailValid", what)) {
        uint64_t error = vmcs_read(VMCS_VM_INSTRUCTION_ERROR);
        check(error == VM_ERROR_INVALIDATE_INVALID_OPERAND, "%s: VM-instruction error %lu", what, error);
    }
}

/* Both moves are of a page whose translation the guest has just used: without the invalidation it may see the old. */
static void show_invalidation(void)
{
    enum { INVALID_TYPE = 9 };

    serial_puts("9. INVEPT\n");
    map_page(PAGE_MOVED_BY_HOST, EPT_ALL_RIGHTS);
    check(guest_do(GUEST_READ, page_gva(PAGE_MOVED_BY_HOST), 0) == FRAME_VALUE + PAGE_MOVED_BY_HOST,
          "the guest reads a page");
    ept_map(page_gpa(PAGE_MOVED_BY_HOST), (uint64_t)frames[PAGE_SPARE], EPT_PAGE_4K, EPT_ALL_RIGHTS);
    ept_invalidate(eptp);
    check(guest_do(GUEST_READ, page_gva(PAGE_MOVED_BY_HOST), 0) == FRAME_VALUE + PAGE_SPARE,
          "we give the page another frame, INVEPT: the guest reads that frame");
    check_invalid_operand(invept((enum invept_type)INVALID_TYPE, eptp), "INVEPT of an unknown type");

    serial_puts("10. VPID and INVVPID\n");
    if (!has_vpid() || !(capabilities & VPID_CAP_INDIVIDUAL_ADDRESS)) {
        note("this processor has no VPID, or no INVVPID of an individual address");
        return;
    }
    map_page(PAGE_MOVED_BY_GUEST, EPT_ALL_RIGHTS);
    map_page(PAGE_SPARE, EPT_ALL_RIGHTS);
    uint64_t gva = page_gva(PAGE_MOVED_BY_GUEST);
    check(guest_do(GUEST_READ, gva, 0) == FRAME_VALUE + PAGE_MOVED_BY_GUEST, "the guest reads a page, with VPID %u",
          (unsigned)VPID);
    guest_do(GUEST_WRITE, (uint64_t)guest_window_entry(PAGE_MOVED_BY_GUEST), *guest_window_entry(PAGE_SPARE));
    check(invvpid(INVVPID_INDIVIDUAL_ADDRESS, VPID, gva) == VMX_SUCCEED, "INVVPID of an individual address succeeds");
    check(guest_do(GUEST_READ, gva, 0) == FRAME_VALUE + PAGE_SPARE,
          "the guest changed its own page table, and we invalidated for it: it reads the other page");
    check_invalid_operand(invvpid(INVVPID_INDIVIDUAL_ADDRESS, 0, gva), "INVVPID of VPID 0");
    check_invalid_operand(invvpid(INVVPID_INDIVIDUAL_ADDRESS, VPID, UINT64_C(1) << 63),
                          "INVVPID of an address that is not canonical");
}

static void show_real_mode(void)
{
    serial_puts("11. A guest in real mode\n");
    check(vmclear((uint64_t)&vmcs) == VMX_SUCCEED, "the first guest is no longer needed");
    if (!vmx_controls_allow(CONTROLS_SECONDARY, SECONDARY_UNRESTRICTED_GUEST)) {
        note("this processor has no unrestricted guest: CR0.PE and CR0.PG are always 1 in a guest");
        return;
    }
    make_current(&real_mode_vmcs);
    real_mode_demonstrate(eptp);
    check(vmclear((uint64_t)&real_mode_vmcs) == VMX_SUCCEED, "VMCLEAR succeeds");
}

int main(const struct multiboot_info *mbi)
{
    check_begin("lab 02", "extended page tables");
    enter_vmx_operation(mbi);
    build_ept();
    launch_guest();
    show_violations();
    show_violation_of_page_walk();
    show_misconfiguration();
    show_execute_only();
    show_accessed_and_dirty_flags();
    show_invalidation();
    show_real_mode();
    check(vmxoff() == VMX_SUCCEED, "VMXOFF succeeds");
    return check_verdict("%u checks", check_count());
}
