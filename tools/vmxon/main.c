// The vmxon command: finds the subcommand and runs it.
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", command_run, "run an image to its end; the serial port is the terminal"},
    {"caps", command_caps, "print the VMX capability MSRs of a processor profile, decoded"},
    {"cpus", command_cpus, "list the processor profiles"},
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *stream)
{
    fprintf(stream, "usage: vmxon COMMAND [options]\n\n");
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        fprintf(stream, "  %-6s %s\n", commands[i].name, commands[i].summary);
    fprintf(stream, "\n`vmxon COMMAND --help` tells the options of a command.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        complain("no command given; `vmxon --help` lists them");
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return STATUS_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("vmxon %s\n", VMXON_VERSION);
        return STATUS_OK;
    }
    for (unsigned i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    complain("unknown command '%s'; `vmxon --help` lists them", argv[1]);
    return STATUS_USAGE;
}
