// The MSR areas of VM entries and exits: SDM 3C 25.7.2, 25.8.2 (formats), 27.4 "Loading MSRs", 28.4 "Saving MSRs", 28.6 "Loading MSRs".
//
// An entry has 16 bytes: 31:0 MSR index, 63:32 reserved, 127:64 data. A list longer than IA32_VMX_MISC recommends fails at the
// first entry beyond: the SDM leaves the behaviour undefined, this makes it deterministic and bounded (docs/sdm.md).
#include "vmx/transition.h"

#define MSR_BIOS_UPDT_TRIG  0x79
#define MSR_SMM_MONITOR_CTL 0x9B
#define MSR_SMBASE          0x9E
#define MSR_X2APIC_FIRST    0x800
#define MSR_FS_BASE         0xC0000100
#define MSR_GS_BASE         0xC0000101
#define MSR_ENTRY_BYTES     16
// VM entry has checked the alignment, but the VMCS is in memory and can have been overwritten since.
#define MSR_LIST_ALIGNED ~(hpa_t)(MSR_ENTRY_BYTES - 1)

static uint32_t longest_list(const struct vmx *vmx)
{
    return 512 * ((uint32_t)vmx_capability_field(vmx->caps->misc, VMX_MISC_MSR_LIST_MAXIMUM) + 1);
}

static bool may_load(uint32_t index)
{
    return index != MSR_FS_BASE && index != MSR_GS_BASE && (index & ~0xFFu) != MSR_X2APIC_FIRST &&
           index != MSR_SMM_MONITOR_CTL && index != MSR_BIOS_UPDT_TRIG;
}

static bool may_store(uint32_t index) { return (index & ~0xFFu) != MSR_X2APIC_FIRST && index != MSR_SMBASE; }

uint32_t msr_list_load(struct cpu *cpu, hpa_t address, uint32_t count)
{
    uint32_t longest = longest_list(cpu->vmx);
    address &= MSR_LIST_ALIGNED;
    for (uint32_t i = 0; i < count; i++, address += MSR_ENTRY_BYTES) {
        if (i == longest)
            return i + 1;
        cpu_charge(cpu, TIMING_MSR_LIST_ENTRY);
        uint64_t index = bus_read(cpu->bus, address, 8);
        uint64_t data = bus_read(cpu->bus, address + 8, 8);
        if (index > UINT32_MAX || !may_load((uint32_t)index) || !cpu_wrmsr(cpu, (uint32_t)index, data))
            return i + 1;
    }
    return 0;
}

uint32_t msr_list_store(struct cpu *cpu, hpa_t address, uint32_t count)
{
    uint32_t longest = longest_list(cpu->vmx);
    address &= MSR_LIST_ALIGNED;
    for (uint32_t i = 0; i < count; i++, address += MSR_ENTRY_BYTES) {
        if (i == longest)
            return i + 1;
        cpu_charge(cpu, TIMING_MSR_LIST_ENTRY);
        uint64_t index = bus_read(cpu->bus, address, 8);
        uint64_t value;
        if (index > UINT32_MAX || !may_store((uint32_t)index) || !cpu_rdmsr(cpu, (uint32_t)index, &value))
            return i + 1;
        bus_write(cpu->bus, address + 8, 8, value);
    }
    return 0;
}
