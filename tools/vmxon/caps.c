// vmxon caps and vmxon cpus: what the processor profiles are and what their VMX offers.
#include <getopt.h>
#include <stdlib.h>

#include "cli.h"
#include "vmxon/vmxon.h"

static const struct option help_only[] = {
    {"help", no_argument, NULL, 'h'},
    {0},
};
static const struct option caps_options[] = {
    {"cpu", required_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_line(void *user, const char *text) { fprintf(user, "%s\n", text); }

int command_caps(int argc, char **argv)
{
    struct vmxon_config config;
    vmxon_config_init(&config);
    const char *profile = config.cpu_profile;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", caps_options, NULL)) != -1) {
        switch (option) {
        case 'c': profile = optarg; break;
        case 'h':
            printf("usage: vmxon caps [--cpu PROFILE]\n\nPrints the VMX capability MSRs of a profile, decoded.\n");
            return STATUS_OK;
        default: return bad_option("caps", option, argv);
        }
    }
    if (optind < argc) {
        complain("caps: unexpected argument '%s'", argv[optind]);
        return STATUS_USAGE;
    }
    if (!vmxon_describe_capabilities(profile, print_line, stdout)) {
        complain("caps: unknown processor profile '%s'; `vmxon cpus` lists them", profile);
        return STATUS_USAGE;
    }
    return STATUS_OK;
}

int command_cpus(int argc, char **argv)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", help_only, NULL)) != -1) {
        if (option != 'h')
            return bad_option("cpus", option, argv);
        printf("usage: vmxon cpus\n\nLists the processor profiles for --cpu.\n");
        return STATUS_OK;
    }
    if (optind < argc) {
        complain("cpus: unexpected argument '%s'", argv[optind]);
        return STATUS_USAGE;
    }
    const char *name;
    for (unsigned i = 0; (name = vmxon_profile_name(i)) != NULL; i++)
        printf("%-12s %s\n", name, vmxon_profile_description(i));
    return STATUS_OK;
}
