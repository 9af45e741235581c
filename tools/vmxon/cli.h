// The vmxon command: what its subcommands share. One file a subcommand.
#ifndef VMXON_TOOLS_CLI_H
#define VMXON_TOOLS_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// Exit statuses of the command-line contract. A guest's own status (written to the debug-exit port) is odd.
enum exit_status {
    STATUS_OK = 0,      // powered off, or halted for ever with interrupts off
    STATUS_USAGE = 2,   // wrong usage
    STATUS_REFUSED = 4, // an input was refused
    STATUS_DIED = 6,    // the guest died: triple fault, VMX abort
    STATUS_LIMIT = 8,   // a limit was reached
    STATUS_CHECK = 10,  // a check failed
    STATUS_DEFECT = 70, // a defect of vmxon itself
};

// Subcommands: argv[0] is the subcommand's name. Each returns an exit status.
int command_run(int argc, char **argv);
int command_caps(int argc, char **argv);
int command_cpus(int argc, char **argv);

// Prints "vmxon: " and one line to stderr.
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

// The message for what getopt_long rejected: `result` is '?' or ':'. Returns STATUS_USAGE.
int bad_option(const char *command, int result, char **argv);

// Numbers on the command line. parse_number: decimal or 0x-hexadecimal. parse_size: the same with an optional suffix K, M or G (powers of 1024).
bool parse_number(const char *text, uint64_t *value);
bool parse_size(const char *text, uint64_t *value);

// A file mapped for reading. False after a one-line complaint. `bytes` may be NULL for an empty file.
struct input_file {
    const char *path;
    uint8_t *bytes;
    uint64_t size; // bytes
};
bool input_file_open(struct input_file *file, const char *path);
void input_file_close(struct input_file *file);

// A file that appears under its name only when complete: written beside it and renamed by output_file_commit.
struct output_file {
    char *path, *temporary;
    FILE *stream;
};
bool output_file_open(struct output_file *file, const char *path);
bool output_file_commit(struct output_file *file);
void output_file_discard(struct output_file *file);

#endif
