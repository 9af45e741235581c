/*
 * From the Multiboot 1 loader to main(): 32-bit protected mode, own GDT and TSS, an identity map, 64-bit mode.
 *
 * Multiboot Specification 0.6.96, 3.2 Machine state; SDM 3A "Initializing IA-32e Mode".
 * Leaves out: any check that the processor has 64-bit mode (a processor with VMX and EPT has it), and SSE.
 */
#include "boot.h"

#define MULTIBOOT_HEADER_MAGIC 0x1BADB002
#define MULTIBOOT_LOADER_MAGIC 0x2BADB002
#define MULTIBOOT_PAGE_ALIGN   (1 << 0)
#define MULTIBOOT_MEMORY_INFO  (1 << 1)
#define MULTIBOOT_FLAGS        (MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO)

#define CR0_PE        (1 << 0)
#define CR0_PG        (1 << 31)
#define CR4_PAE       (1 << 5)
#define MSR_IA32_EFER 0xC0000080
#define EFER_LME      (1 << 8)

#define PTE_PRESENT  (1 << 0)
#define PTE_WRITABLE (1 << 1)
#define PDE_2M_PAGE  (1 << 7)

#define STACK_BYTES       16384
#define FAULT_STACK_BYTES 4096
#define PAGE_DIRECTORIES  4 /* one for each GiB */

        .section .multiboot, "a"
        .balign 4
        .long   MULTIBOOT_HEADER_MAGIC
        .long   MULTIBOOT_FLAGS
        .long   -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_FLAGS)

        .text
        .code32
        .globl  _start
_start:
        cli
        cld
        mov     $stack_top, %esp

        /* EBX holds the address of the Multiboot information, if a Multiboot loader started us; else pass NULL. */
        cmp     $MULTIBOOT_LOADER_MAGIC, %eax
        je      1f
        xor     %ebx, %ebx
1:
        /* PML4[0] -> PDPT; PDPT[0..3] -> four page directories, which lie one after the other. */
        movl    $(pdpt + PTE_PRESENT + PTE_WRITABLE), pml4
        mov     $(page_directories + PTE_PRESENT + PTE_WRITABLE), %eax
        xor     %ecx, %ecx
2:      mov     %eax, pdpt(, %ecx, 8)
        add     $4096, %eax
        inc     %ecx
        cmp     $PAGE_DIRECTORIES, %ecx
        jb      2b

        /* Entry i of the directories maps the 2 MiB page i. All tables are in .bss, so the high halves are zero. */
        mov     $(PTE_PRESENT + PTE_WRITABLE + PDE_2M_PAGE), %eax
        xor     %ecx, %ecx
3:      mov     %eax, page_directories(, %ecx, 8)
        add     $(2 << 20), %eax
        inc     %ecx
        cmp     $(512 * PAGE_DIRECTORIES), %ecx
        jb      3b

        /* A descriptor scatters its base over three places, which no relocation can express. */
        mov     $boot_tss, %eax
        mov     %ax, gdt + BOOT_TR + 2
        shr     $16, %eax
        mov     %al, gdt + BOOT_TR + 4
        mov     %ah, gdt + BOOT_TR + 7

        mov     %cr4, %eax
        or      $CR4_PAE, %eax
        mov     %eax, %cr4
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $MSR_IA32_EFER, %ecx
        rdmsr
        or      $EFER_LME, %eax
        wrmsr
        mov     %cr0, %eax
        or      $(CR0_PG | CR0_PE), %eax
        mov     %eax, %cr0

        lgdt    gdt_pointer
        ljmp    $BOOT_CS, $start64

        .code64
start64:
        mov     $BOOT_DS, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs
        mov     $BOOT_TR, %eax
        ltr     %ax
        mov     $stack_top, %esp

        call    serial_init
        call    idt_init
        mov     %ebx, %edi
        call    main
        mov     %eax, %edi
        call    finish

        .data
        .balign 16
gdt:
        .quad   0
        .quad   0x00AF9B000000FFFF      /* BOOT_CS: present, code, readable, accessed, L = 1 */
        .quad   0x00CF93000000FFFF      /* BOOT_DS: present, data, writable, accessed */
        .quad   0x0000890000000000 + BOOT_TSS_LIMIT /* BOOT_TR: present, available 64-bit TSS; base filled in above */
        .quad   0
gdt_end:

gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt

        .balign 16
        .globl  boot_tss
boot_tss:
        .long   0
        .quad   0, 0, 0                 /* RSP0 to RSP2: nothing here runs at another privilege level */
        .quad   0
        .quad   fault_stack_top         /* IST1 */
        .quad   0, 0, 0, 0, 0, 0        /* IST2 to IST7 */
        .quad   0
        .word   0
        .word   BOOT_TSS_LIMIT + 1      /* I/O map base beyond the limit: no I/O permission bitmap */

        .bss
        .balign 4096
pml4:   .skip   4096
pdpt:   .skip   4096
page_directories:
        .skip   4096 * PAGE_DIRECTORIES
        .skip   FAULT_STACK_BYTES
fault_stack_top:
        .skip   STACK_BYTES
stack_top:

        .section .note.GNU-stack, "", @progbits
