// Lists the contents of a VMCS region, grouped as SDM 3C 25.3 "Organization of VMCS Data" groups them.
#include "vmcs/dump.h"

#include <stdio.h>

static const enum vmcs_group group_order[] = {VMCS_GROUP_GUEST, VMCS_GROUP_HOST, VMCS_GROUP_CONTROL,
                                              VMCS_GROUP_EXIT_INFO};

unsigned vmcs_width_bits(enum vmcs_width width)
{
    switch (width) {
    case VMCS_WIDTH_16: return 16;
    case VMCS_WIDTH_32: return 32;
    default: return 64;
    }
}

const char *vmcs_group_name(enum vmcs_group group)
{
    static const char *const names[] = {"control", "exit information", "guest", "host"};
    return names[group];
}

static bool set_contains(const struct vmcs_field_set *set, unsigned field)
{
    return !set || (set->present[field / 64] >> field % 64 & 1);
}

static void dump_field(const struct vmcs_region *vmcs, enum vmcs_field field, vmcs_decoder decode,
                       void (*each)(void *, const struct vmcs_dump_item *), void *owner)
{
    const struct vmcs_field_info *info = &vmcs_fields[field];
    char meaning[VMCS_DUMP_MEANING_SIZE] = "";
    uint64_t value = vmcs_get(vmcs, field);
    if (!decode || !decode(field, value, meaning, sizeof meaning))
        meaning[0] = '\0';
    each(owner, &(struct vmcs_dump_item){.field = field,
                                         .name = info->name,
                                         .title = info->title,
                                         .group = vmcs_group_name(info->group),
                                         .bits = vmcs_width_bits(info->width),
                                         .encoding = info->encoding,
                                         .value = value,
                                         .meaning = meaning});
}

void vmcs_dump_each(const struct vmcs_region *vmcs, const struct vmcs_field_set *set, vmcs_decoder decode,
                    void (*each)(void *owner, const struct vmcs_dump_item *item), void *owner)
{
    for (unsigned g = 0; g < sizeof group_order / sizeof *group_order; g++)
        for (unsigned i = 0; i < VMCS_FIELD_COUNT; i++)
            if (vmcs_fields[i].group == group_order[g] && set_contains(set, i))
                dump_field(vmcs, (enum vmcs_field)i, decode, each, owner);
}

struct text_dump {
    void (*write)(void *owner, const char *text);
    void *owner;
    const char *group; // of the last item
};

static void write_item(void *owner, const struct vmcs_dump_item *item)
{
    struct text_dump *dump = owner;
    char line[VMCS_DUMP_MEANING_SIZE + 128];
    if (dump->group != item->group) {
        snprintf(line, sizeof line, "%s:\n", item->group);
        dump->write(dump->owner, line);
        dump->group = item->group;
    }
    snprintf(line, sizeof line, "  %04X %-36s %0*llX%s%s\n", item->encoding, item->name, (int)item->bits / 4,
             (unsigned long long)item->value, *item->meaning ? "  " : "", item->meaning);
    dump->write(dump->owner, line);
}

void vmcs_dump_text(const struct vmcs_region *vmcs, const struct vmcs_field_set *set, vmcs_decoder decode,
                    void (*write)(void *owner, const char *text), void *owner)
{
    static const char *const launch_states[] = {"clear", "launched"};
    char line[128];
    snprintf(
        line, sizeof line, "VMCS revision %08X%s, launch state %s, abort indicator %u\n",
        vmcs->revision & ~(uint32_t)VMCS_SHADOW_INDICATOR, vmcs->revision & VMCS_SHADOW_INDICATOR ? " (shadow)" : "",
        vmcs->launch_state <= LAUNCH_STATE_LAUNCHED ? launch_states[vmcs->launch_state] : "undefined", vmcs->abort);
    write(owner, line);
    struct text_dump dump = {write, owner, NULL};
    vmcs_dump_each(vmcs, set, decode, write_item, &dump);
}
