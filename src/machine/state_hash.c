// The hash of the whole state of a machine.
//
// Every architectural item is put into the hash by value, in a fixed order and
// little-endian, so that padding, host pointers and derived state (decoded
// blocks, fast TLB entries) have no part in it. Pages of RAM that hold only
// zeros are left out, whether the host has backed them or not.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "machine/machine.h"

static void put(XXH3_state_t *hash, uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    XXH3_128bits_update(hash, bytes, sizeof bytes);
}

static void hash_memory(XXH3_state_t *hash, const struct memory *memory)
{
    static const uint8_t zeros[PAGE_SIZE];
    uint64_t pages = (memory->low_size + memory->high_size) >> PAGE_SHIFT;
    put(hash, pages);
    for (uint64_t page = 0; page < pages; page++) {
        const uint8_t *bytes = memory->ram + (page << PAGE_SHIFT);
        if (!(memory->page_flags[page] & PAGE_DIRTY) || memcmp(bytes, zeros, PAGE_SIZE) == 0)
            continue;
        put(hash, page);
        XXH3_128bits_update(hash, bytes, PAGE_SIZE);
    }
}

static void hash_registers(XXH3_state_t *hash, const struct cpu *cpu)
{
    for (unsigned i = 0; i < 16; i++)
        put(hash, cpu->regs[i]);
    put(hash, cpu->regs[REG_RIP]);
    put(hash, cpu_rflags(cpu));
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &cpu->segments[i];
        put(hash, segment->base);
        put(hash, segment->limit);
        put(hash, segment->access_rights);
        put(hash, segment->selector);
    }
    const uint64_t control[] = {cpu->gdtr.base,
                                cpu->gdtr.limit,
                                cpu->idtr.base,
                                cpu->idtr.limit,
                                cpu->cr0,
                                cpu->cr2,
                                cpu->cr3,
                                cpu->cr4,
                                cpu->dr[0],
                                cpu->dr[1],
                                cpu->dr[2],
                                cpu->dr[3],
                                cpu->dr6,
                                cpu->dr7,
                                cpu->efer,
                                cpu->star,
                                cpu->lstar,
                                cpu->cstar,
                                cpu->fmask,
                                cpu->kernel_gs_base,
                                cpu->tsc_aux,
                                cpu->sysenter_cs,
                                cpu->sysenter_esp,
                                cpu->sysenter_eip,
                                cpu->pat,
                                cpu->misc_enable,
                                cpu->debugctl,
                                cpu->xcr0,
                                cpu->xss,
                                cpu->spec_ctrl,
                                cpu->feature_control,
                                cpu->tsc_adjust,
                                cpu->perf_global_ctrl,
                                cpu->bios_sign_id,
                                cpu->mtrr_def_type,
                                (uint64_t)cpu->tsc_offset,
                                cpu->mxcsr,
                                cpu->activity,
                                cpu->interruptibility,
                                cpu->pending_debug,
                                cpu->monitor_address,
                                cpu->monitor_armed,
                                cpu->instructions,
                                cpu_now(cpu),
                                cpu->random_state};
    for (unsigned i = 0; i < sizeof control / sizeof control[0]; i++)
        put(hash, control[i]);
    for (unsigned i = 0; i < 11; i++)
        put(hash, cpu->mtrr_fixed[i]);
    for (unsigned i = 0; i < 10; i++) {
        put(hash, cpu->mtrr_base[i]);
        put(hash, cpu->mtrr_mask[i]);
    }
}

static void hash_floating_point(XXH3_state_t *hash, const struct cpu *cpu)
{
    for (unsigned i = 0; i < 16; i++) {
        put(hash, cpu->xmm[i].lo);
        put(hash, cpu->xmm[i].hi);
    }
    for (unsigned i = 0; i < 8; i++) {
        put(hash, cpu->fpu.st[i].mantissa);
        put(hash, cpu->fpu.st[i].sign_exponent);
    }
    const uint64_t words[] = {cpu->fpu.control, cpu->fpu.status, cpu->fpu.tag, cpu->fpu.opcode,
                              cpu->fpu.cs,      cpu->fpu.ds,     cpu->fpu.ip,  cpu->fpu.dp};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        put(hash, words[i]);
}

static void hash_translations(XXH3_state_t *hash, const struct mmu *mmu)
{
    put(hash, mmu->linear_context);
    put(hash, mmu->global_context);
    put(hash, mmu->physical_context);
    put(hash, mmu->code.page);
    for (unsigned i = 0; i < 4; i++)
        put(hash, mmu->pdpte[i]);
    for (unsigned i = 0; i < TLB_BANKS * TLB_ENTRIES; i++) {
        const struct tlb_entry *entry = &mmu->tlb[i / TLB_ENTRIES][i % TLB_ENTRIES];
        if (entry->context == 0)
            continue;
        put(hash, i);
        put(hash, entry->page);
        put(hash, entry->frame);
        put(hash, (uint64_t)entry->context << 16 | entry->flags);
        put(hash, entry->gpa);
    }
}

static void hash_vmx(XXH3_state_t *hash, const struct processor *processor)
{
    const struct vmx *vmx = &processor->vmx;
    put(hash, processor->cpu.vmx_operation);
    put(hash, processor->cpu.non_root);
    put(hash, vmx->vmxon_pointer);
    put(hash, vmx->current_pointer);
    put(hash, vmx->mtf_pending);
    put(hash, vmx->virtual_nmi_blocking);
    put(hash, vmx->preemption_deadline);
    put(hash, vmx->entries);
    put(hash, vmx->abort);
    for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
        put(hash, vmx->exits[i]);
}

static void hash_local_apic(XXH3_state_t *hash, const struct lapic *apic)
{
    put(hash, apic->apic_base);
    put(hash, (uint64_t)apic->tpr << 32 | apic->svr);
    put(hash, (uint64_t)apic->ldr << 32 | apic->dfr);
    put(hash, apic->icr);
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
        put(hash, apic->lvt[i]);
    for (unsigned i = 0; i < 8; i++) {
        put(hash, (uint64_t)apic->irr[i] << 32 | apic->isr[i]);
        put(hash, apic->tmr[i]);
    }
    put(hash, apic->timer_running);
    put(hash, (uint64_t)apic->timer_initial << 32 | apic->timer_count);
    put(hash, apic->timer_start);
    put(hash, apic->tsc_deadline);
}

static void hash_board(XXH3_state_t *hash, const struct machine *machine)
{
    for (unsigned chip = 0; chip < 2; chip++) {
        const struct pic_chip *pic = &machine->pic.chip[chip];
        put(hash, (uint64_t)pic->irr << 24 | (uint64_t)pic->imr << 16 | (uint64_t)pic->isr << 8 | pic->vector_base);
    }
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        const struct pit_channel *channel = &machine->pit.channel[i];
        put(hash, (uint64_t)channel->mode << 32 | channel->count_register);
        put(hash, (uint64_t)channel->start);
    }
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        put(hash, machine->ioapic.redirection[i]);
    put(hash, machine->rtc.reg_a);
    put(hash, machine->rtc.reg_b);
    put(hash, machine->com1.ier);
    put(hash, machine->com1.lcr);
    put(hash, machine->com1.mcr);
}

void vmxon_state_hash(const struct vmxon *vmxon, char text[33])
{
    const struct machine *machine = (const struct machine *)vmxon;
    XXH3_state_t *hash = XXH3_createState();
    XXH3_128bits_reset(hash);
    hash_memory(hash, &machine->memory);
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct processor *processor = machine->processor[i];
        hash_registers(hash, &processor->cpu);
        hash_floating_point(hash, &processor->cpu);
        hash_translations(hash, &processor->cpu.mmu);
        hash_vmx(hash, processor);
        hash_local_apic(hash, &processor->lapic);
    }
    hash_board(hash, machine);
    XXH128_hash_t digest = XXH3_128bits_digest(hash);
    XXH3_freeState(hash);
    snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest.high64, (uint64_t)digest.low64);
}
