// A second, slow translation, written from the tables of the SDM and independent of src/mmu and src/ept.
//
// It keeps no cache, works on a flat copy of RAM and spells every rule out. Used to check mmu_translate on random tables.
#ifndef VMXON_TESTS_REFERENCE_WALK_H
#define VMXON_TESTS_REFERENCE_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { REF_OK, REF_PAGE_FAULT, REF_VIOLATION, REF_MISCONFIGURATION };

struct reference {
    uint8_t *ram;
    uint64_t ram_size;
    int maxphyaddr;
    bool paging, pae, long_mode, pse, pge, wp, smep, smap, nxe;
    bool user, alignment_check; // CPL 3; RFLAGS.AC in an explicit supervisor access
    bool page_1g;
    bool ept, ept_ad, execute_only, ept_2m, ept_1g, advanced;
    uint64_t cr3, ept_root, pdpte[4];
    // Result.
    uint64_t address, error_code, qualification, gpa;
};

static uint64_t ref_read(const struct reference *r, uint64_t address, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)(address + i < r->ram_size ? r->ram[address + i] : 0xFF) << (8 * i);
    return value;
}

static void ref_set(struct reference *r, uint64_t address, int bit)
{
    if (address + (unsigned)bit / 8 < r->ram_size)
        r->ram[address + (unsigned)bit / 8] |= (uint8_t)(1 << (bit % 8));
}

static bool ref_any(uint64_t value, int high, int low)
{
    for (int bit = low; bit <= high; bit++)
        if (value >> bit & 1)
            return true;
    return false;
}

static uint64_t ref_field(uint64_t value, int high, int low) // in place
{
    uint64_t field = 0;
    for (int bit = low; bit <= high; bit++)
        field |= value & (uint64_t)1 << bit;
    return field;
}

static int ref_ept(struct reference *r, uint64_t gpa, bool rd, bool wr, bool ex, uint64_t *out)
{
    uint64_t used[4];
    uint64_t base = r->ept_root, access = (rd ? 1u : 0u) | (wr ? 2u : 0u) | (ex ? 4u : 0u);
    int level = 4, count = 0, size_bits;
    bool r_all = true, w_all = true, x_all = true;
    r->gpa = gpa;
    if (ref_any(gpa, 63, 48)) {
        r->qualification = access;
        return REF_VIOLATION;
    }
    for (;; level--) {
        size_bits = 12 + 9 * (level - 1);
        uint64_t at = base + ref_field(gpa, size_bits + 8, size_bits) / ((uint64_t)1 << size_bits) * 8;
        uint64_t e = ref_read(r, at, 8);
        used[count++] = at;
        if ((e & 7) == 0) {
            r->qualification = access;
            return REF_VIOLATION;
        }
        bool leaf = level == 1 || (e >> 7 & 1);
        bool bad = (e & 3) == 2 || ((e & 7) == 4 && !r->execute_only) || ref_any(e, 51, r->maxphyaddr);
        if (leaf) {
            unsigned type = e >> 3 & 7;
            bad |= type == 2 || type == 3 || type == 7 || level == 4;
            bad |= level == 3 && (!r->ept_1g || ref_any(e, 29, 12));
            bad |= level == 2 && (!r->ept_2m || ref_any(e, 20, 12));
        } else {
            bad |= ref_any(e, 6, 3);
        }
        if (bad)
            return REF_MISCONFIGURATION;
        r_all &= e & 1;
        w_all &= e >> 1 & 1;
        x_all &= e >> 2 & 1;
        base = ref_field(e, 51, leaf ? size_bits : 12);
        if (leaf)
            break;
    }
    if ((rd && !r_all) || (wr && !w_all) || (ex && !x_all)) {
        r->qualification = access | (r_all ? 8u : 0u) | (w_all ? 16u : 0u) | (x_all ? 32u : 0u);
        return REF_VIOLATION;
    }
    for (int i = 0; r->ept_ad && i < count; i++)
        ref_set(r, used[i], 8);
    if (r->ept_ad && wr)
        ref_set(r, used[count - 1], 9);
    *out = base + ref_field(gpa, size_bits - 1, 0);
    return REF_OK;
}

// A guest paging-structure entry's address.
static int ref_structure(struct reference *r, uint64_t gpa, bool write, uint64_t *out)
{
    *out = gpa;
    if (!r->ept)
        return REF_OK;
    int status = ref_ept(r, gpa, true, write || r->ept_ad, false, out);
    if (status == REF_VIOLATION)
        r->qualification |= 1 << 7;
    return status;
}

static int ref_fault(struct reference *r, char access, bool present, bool reserved)
{
    bool fetch_bit = access == 'x' && (r->smep || (r->pae && r->nxe));
    r->error_code = (present ? 1u : 0u) | (access == 'w' ? 2u : 0u) | (r->user ? 4u : 0u) | (reserved ? 8u : 0u) |
                    (fetch_bit ? 16u : 0u);
    return REF_PAGE_FAULT;
}

static bool ref_entry_reserved(const struct reference *r, uint64_t e, int level, bool leaf)
{
    if (!r->pae)
        return leaf && level == 2 && (ref_any(e, 21, 21) || (r->maxphyaddr < 40 && ref_any(e, 20, r->maxphyaddr - 19)));
    bool bad = ref_any(e, r->long_mode ? 51 : 62, r->maxphyaddr) || (!r->nxe && (e >> 63 & 1));
    if (leaf && level == 2)
        bad |= ref_any(e, 20, 13);
    if (leaf && level == 3)
        bad |= !r->page_1g || ref_any(e, 29, 13);
    return bad || (leaf && level >= 4);
}

// access: 'r', 'w' or 'x'.
static int ref_translate(struct reference *r, uint64_t gva, char access)
{
    uint64_t entry_gpa[5], entry[5], base, size = r->pae ? 8 : 4, gpa = gva;
    int count = 0, level = r->long_mode ? 4 : 2, index_bits = r->pae ? 9 : 10, size_bits = 0, status;
    bool us = true, rw = true, xd = false;
    if (r->paging) {
        base = r->cr3;
        if (r->pae && !r->long_mode) {
            base = r->pdpte[gva >> 30 & 3];
            if (!(base & 1))
                return ref_fault(r, access, false, false);
            base = ref_field(base, 51, 12);
        }
        for (bool leaf = false; !leaf; level--) {
            size_bits = 12 + index_bits * (level - 1);
            uint64_t at;
            entry_gpa[count] = base + (gva >> size_bits) % ((uint64_t)1 << index_bits) * size;
            status = ref_structure(r, entry_gpa[count], false, &at);
            if (status != REF_OK)
                return status;
            uint64_t e = entry[count++] = ref_read(r, at, (unsigned)size);
            leaf = level == 1 || ((e >> 7 & 1) && (r->pae || r->pse));
            if (!(e & 1))
                return ref_fault(r, access, false, false);
            if (ref_entry_reserved(r, e, level, leaf))
                return ref_fault(r, access, true, true);
            rw &= e >> 1 & 1;
            us &= e >> 2 & 1;
            xd |= r->pae && (e >> 63 & 1);
            base = ref_field(e, 51, leaf ? size_bits : 12);
            if (!r->pae && leaf && level == 2)
                base = ref_field(e, 31, 22) + (ref_field(e, 20, 13) << 19);
        }
        bool allowed = true;
        if (access == 'r' || access == 'w') {
            if (r->user && !us)
                allowed = false;
            if (!r->user && us && r->smap && !r->alignment_check)
                allowed = false;
        }
        if (access == 'w' && !rw && (r->user || r->wp))
            allowed = false;
        if (access == 'x' && ((r->user && !us) || (!r->user && us && r->smep) || (xd && r->nxe)))
            allowed = false;
        if (!allowed)
            return ref_fault(r, access, true, false);
        for (int i = 0; i < count; i++) {
            bool need_d = i == count - 1 && access == 'w' && !(entry[i] >> 6 & 1), need_a = !(entry[i] >> 5 & 1);
            uint64_t at;
            if (!need_a && !need_d)
                continue;
            status = ref_structure(r, entry_gpa[i], true, &at);
            if (status != REF_OK)
                return status;
            if (need_a)
                ref_set(r, at, 5);
            if (need_d)
                ref_set(r, at, 6);
        }
        gpa = base + ref_field(gva, size_bits - 1, 0);
    }
    r->address = gpa;
    if (!r->ept)
        return REF_OK;
    status = ref_ept(r, gpa, access == 'r', access == 'w', access == 'x', &r->address);
    if (status == REF_VIOLATION) {
        r->qualification |= 3 << 7;
        if (r->advanced)
            r->qualification |= (us ? 1u << 9 : 0u) | (rw ? 1u << 10 : 0u) | (xd ? 1u << 11 : 0u);
    }
    return status;
}

#endif
