/* The VMX instructions as C functions. SDM 3C "VMX Instruction Reference". */
#include "vmx.h"

#include <stdbool.h>

#include "end.h"
#include "serial.h"

static enum vmx_result result_of_flags(bool carry, bool zero)
{
    if (carry) {
        return VMX_FAIL_INVALID;
    }
    return zero ? VMX_FAIL_VALID : VMX_SUCCEED;
}

enum vmx_result vmxon(uint64_t region)
{
    bool carry, zero;
    __asm__ volatile("vmxon %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(region) : "memory");
    return result_of_flags(carry, zero);
}

enum vmx_result vmclear(uint64_t region)
{
    bool carry, zero;
    __asm__ volatile("vmclear %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(region) : "memory");
    return result_of_flags(carry, zero);
}

enum vmx_result vmptrld(uint64_t region)
{
    bool carry, zero;
    __asm__ volatile("vmptrld %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(region) : "memory");
    return result_of_flags(carry, zero);
}

uint64_t vmptrst(void)
{
    uint64_t region;
    __asm__ volatile("vmptrst %0" : "=m"(region) : : "cc");
    return region;
}

enum vmx_result vmxoff(void)
{
    bool carry, zero;
    __asm__ volatile("vmxoff" : "=@ccc"(carry), "=@ccz"(zero) : : "memory");
    return result_of_flags(carry, zero);
}

enum vmx_result vmread(enum vmcs_field field, uint64_t *value)
{
    bool carry, zero;
    uint64_t read = 0; /* VMREAD leaves its destination alone when it fails */
    __asm__ volatile("vmread %3, %2" : "=@ccc"(carry), "=@ccz"(zero), "+r"(read) : "r"((uint64_t)field));
    *value = read;
    return result_of_flags(carry, zero);
}

enum vmx_result vmwrite(enum vmcs_field field, uint64_t value)
{
    bool carry, zero;
    __asm__ volatile("vmwrite %3, %2" : "=@ccc"(carry), "=@ccz"(zero) : "r"((uint64_t)field), "r"(value));
    return result_of_flags(carry, zero);
}

enum vmx_result invept(enum invept_type type, uint64_t eptp)
{
    bool carry, zero;
    const struct {
        uint64_t eptp;
        uint64_t reserved;
    } descriptor = {.eptp = eptp};
    __asm__ volatile("invept %2, %3" : "=@ccc"(carry), "=@ccz"(zero) : "m"(descriptor), "r"((uint64_t)type) : "memory");
    return result_of_flags(carry, zero);
}

enum vmx_result invvpid(enum invvpid_type type, uint16_t vpid, uint64_t linear_address)
{
    bool carry, zero;
    const struct {
        uint64_t vpid; /* bits 63:16 are reserved */
        uint64_t linear_address;
    } descriptor = {.vpid = vpid, .linear_address = linear_address};
    __asm__ volatile("invvpid %2, %3"
                     : "=@ccc"(carry), "=@ccz"(zero)
                     : "m"(descriptor), "r"((uint64_t)type)
                     : "memory");
    return result_of_flags(carry, zero);
}

static void require_success(enum vmx_result result, const char *instruction, enum vmcs_field field)
{
    if (result != VMX_SUCCEED) {
        serial_printf("%s of VMCS field 0x%x failed\n", instruction, (unsigned)field);
        finish(1);
    }
}

uint64_t vmcs_read(enum vmcs_field field)
{
    uint64_t value;
    require_success(vmread(field, &value), "VMREAD", field);
    return value;
}

void vmcs_write(enum vmcs_field field, uint64_t value) { require_success(vmwrite(field, value), "VMWRITE", field); }
