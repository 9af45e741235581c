// vmxon run: loads an image, runs it to its end, reports how it ended.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "vmxon/vmxon.h"

enum { MODULES_MAX = 64 };

enum stats_format { STATS_NONE, STATS_TEXT, STATS_JSON };

struct run_options {
    struct vmxon_config config;
    struct vmxon_limits limits;
    const char *image_path;
    const char *append;
    const char *initrd[MODULES_MAX];
    unsigned initrd_count;
    const char *serial; // "stdio", "null" or "file:PATH"
    const char *flat;
    enum stats_format stats;
};

enum option_code {
    OPTION_MEMORY = 256,
    OPTION_CPUS,
    OPTION_CPU,
    OPTION_APPEND,
    OPTION_INITRD,
    OPTION_SERIAL,
    OPTION_MAX_INSTRUCTIONS,
    OPTION_MAX_CYCLES,
    OPTION_STATS,
    OPTION_CHECK,
    OPTION_SEED,
    OPTION_TIMING,
    OPTION_FLAT,
    OPTION_SINGLE_STEP,
    OPTION_HELP,
    OPTION_RECORD,
    OPTION_TRACE,
};

static const struct option options[] = {
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"cpus", required_argument, NULL, OPTION_CPUS},
    {"cpu", required_argument, NULL, OPTION_CPU},
    {"append", required_argument, NULL, OPTION_APPEND},
    {"initrd", required_argument, NULL, OPTION_INITRD},
    {"serial", required_argument, NULL, OPTION_SERIAL},
    {"max-instructions", required_argument, NULL, OPTION_MAX_INSTRUCTIONS},
    {"max-cycles", required_argument, NULL, OPTION_MAX_CYCLES},
    {"stats", optional_argument, NULL, OPTION_STATS},
    {"check", required_argument, NULL, OPTION_CHECK},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"timing", required_argument, NULL, OPTION_TIMING},
    {"flat", required_argument, NULL, OPTION_FLAT},
    {"single-step", no_argument, NULL, OPTION_SINGLE_STEP},
    {"record", required_argument, NULL, OPTION_RECORD},
    {"trace", required_argument, NULL, OPTION_TRACE},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

static void print_help(void)
{
    printf("usage: vmxon run IMAGE [options]\n\n"
           "IMAGE: Multiboot 1 (ELF32, ELF64 or a.out-kludge header), plain ELF64, or any file with --flat.\n\n"
           "  --memory SIZE            RAM, with suffix K, M or G (default 128M)\n"
           "  --cpus N                 processors (default 1)\n"
           "  --cpu PROFILE            processor profile (default skylake; `vmxon cpus` lists them)\n"
           "  --append \"CMDLINE\"       command line for the image\n"
           "  --initrd \"FILE [ARGS]\"   a Multiboot module; may be given several times\n"
           "  --flat ADDR[:ENTRY[:real|prot|long]]  load IMAGE as it is at ADDR\n"
           "  --serial stdio|null|file:PATH         where COM1 goes (default stdio)\n"
           "  --max-instructions N     stop after N instructions, exit status 8\n"
           "  --max-cycles N           stop after N cycles, exit status 8\n"
           "  --seed N                 seed of RDRAND and RDSEED (default 0)\n"
           "  --timing PROFILE         cost model (default: skylake)\n"
           "  --single-step            drive the machine one instruction at a time: same result, slower\n"
           "  --check lockstep         compare every ordinary instruction with the reference executor, exit status 10\n"
           "  --stats[=json]           statistics on stderr at the end\n\n"
           "Exit status: the guest's (V << 1) | 1 if it wrote V to port 0xf4; 0 powered off or halted for ever;\n"
           "2 wrong usage; 4 input refused; 6 the guest died; 8 limit reached; 10 check failed; 70 defect of vmxon.\n");
}

static bool bad_value(const char *option, const char *value, const char *wanted)
{
    complain("run: %s: '%s' is not %s", option, value, wanted);
    return false;
}

static bool not_here(const char *option)
{
    complain("run: %s is not available in this version", option);
    return false;
}

// One option; false after a complaint.
static bool take_option(struct run_options *run, int option, const char *value)
{
    uint64_t number;
    switch (option) {
    case OPTION_MEMORY:
        return parse_size(value, &run->config.memory_size) || bad_value("--memory", value, "a size such as 64M or 2G");
    case OPTION_CPUS:
        if (!parse_number(value, &number) || number < 1 || number > VMXON_MAX_CPUS)
            return bad_value("--cpus", value, "a number from 1 to 8");
        run->config.cpus = (unsigned)number;
        return true;
    case OPTION_CPU: run->config.cpu_profile = value; return true;
    case OPTION_APPEND: run->append = value; return true;
    case OPTION_INITRD:
        if (run->initrd_count == MODULES_MAX) {
            complain("run: --initrd: more than %d modules", MODULES_MAX);
            return false;
        }
        run->initrd[run->initrd_count++] = value;
        return true;
    case OPTION_SERIAL:
        run->serial = value;
        return strcmp(value, "stdio") == 0 || strcmp(value, "null") == 0 ||
               (strncmp(value, "file:", 5) == 0 && value[5]) ||
               bad_value("--serial", value, "stdio, null or file:PATH");
    case OPTION_MAX_INSTRUCTIONS:
        return (parse_number(value, &run->limits.instructions) && run->limits.instructions > 0) ||
               bad_value("--max-instructions", value, "a number above 0");
    case OPTION_MAX_CYCLES:
        return (parse_number(value, &run->limits.cycles) && run->limits.cycles > 0) ||
               bad_value("--max-cycles", value, "a number above 0");
    case OPTION_SEED: return parse_number(value, &run->config.seed) || bad_value("--seed", value, "a number");
    case OPTION_TIMING:
        return strcmp(value, "skylake") == 0 || bad_value("--timing", value, "a timing profile (skylake)");
    case OPTION_FLAT: run->flat = value; return true;
    case OPTION_SINGLE_STEP: run->limits.single_step = true; return true;
    case OPTION_STATS:
        run->stats = value ? STATS_JSON : STATS_TEXT;
        return !value || strcmp(value, "json") == 0 || bad_value("--stats", value, "json");
    case OPTION_CHECK:
        if (strcmp(value, "lockstep") != 0)
            return bad_value("--check", value, "lockstep");
        run->config.lockstep = true;
        return true;
    case OPTION_RECORD: return not_here("--record");
    case OPTION_TRACE: return not_here("--trace");
    default: return false;
    }
}

// --- serial port

struct serial_sink {
    FILE *stream; // NULL: bytes are dropped
    struct output_file file;
};

static void serial_write(void *user, const uint8_t *bytes, size_t n)
{
    struct serial_sink *sink = user;
    if (sink->stream) {
        fwrite(bytes, 1, n, sink->stream);
        if (sink->stream == stdout && memchr(bytes, '\n', n))
            fflush(stdout);
    }
}

static bool serial_open(struct serial_sink *sink, const char *where)
{
    if (strcmp(where, "stdio") == 0)
        sink->stream = stdout;
    else if (strncmp(where, "file:", 5) == 0) {
        if (!output_file_open(&sink->file, where + 5))
            return false;
        sink->stream = sink->file.stream;
    }
    return true;
}

// --- loading

// A module's argument is "FILE" or "FILE ARGUMENTS"; the guest gets the whole text as its string.
static bool open_module(struct input_file *file, const char *argument)
{
    const char *space = strchr(argument, ' ');
    if (!space)
        return input_file_open(file, argument);
    char *path = strndup(argument, (size_t)(space - argument));
    if (!path) {
        complain("run: out of memory");
        return false;
    }
    bool ok = input_file_open(file, path);
    free(path);
    file->path = argument;
    return ok;
}

static enum vmxon_status load_image(struct vmxon *machine, const struct run_options *run)
{
    struct input_file image, module_files[MODULES_MAX];
    struct vmxon_module modules[MODULES_MAX];
    enum vmxon_status status = VMXON_BAD_IMAGE;
    unsigned opened = 0;
    if (!input_file_open(&image, run->image_path))
        return status;
    for (; opened < run->initrd_count; opened++) {
        if (!open_module(&module_files[opened], run->initrd[opened]))
            break;
        modules[opened] = (struct vmxon_module){
            .string = run->initrd[opened], .bytes = module_files[opened].bytes, .size = module_files[opened].size};
    }
    if (opened == run->initrd_count) {
        struct vmxon_error error;
        const struct vmxon_image request = {.name = run->image_path,
                                            .bytes = image.bytes,
                                            .size = image.size,
                                            .command_line = run->append,
                                            .modules = modules,
                                            .module_count = opened,
                                            .flat = run->flat};
        status = vmxon_load(machine, &request, &error);
        if (status != VMXON_OK)
            complain("%s", error.text);
    }
    while (opened > 0)
        input_file_close(&module_files[--opened]);
    input_file_close(&image);
    return status;
}

// --- the end of a run

// The exit status of the contract, after a line on stderr where the end is not the guest's own wish.
static int settle_outcome(const struct vmxon_outcome *outcome, const struct run_options *run)
{
    switch (outcome->end) {
    case VMXON_END_GUEST_EXIT: return (int)(outcome->status & 0xFF);
    case VMXON_END_POWER_OFF:
    case VMXON_END_HALTED: return STATUS_OK;
    case VMXON_END_LIMIT:
        complain("%s: limit reached: %s, at RIP 0x%" PRIx64 " of processor %u", run->image_path, outcome->text,
                 outcome->rip, outcome->cpu);
        return STATUS_LIMIT;
    case VMXON_END_CHECK: complain("%s: %s", run->image_path, outcome->text); return STATUS_CHECK;
    case VMXON_END_RESET:
    case VMXON_END_TRIPLE_FAULT:
    case VMXON_END_VMX_ABORT: complain("%s: %s", run->image_path, outcome->text); return STATUS_DIED;
    }
    return STATUS_DEFECT;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start->tv_sec) + (double)(end.tv_nsec - start->tv_nsec) / 1e9;
}

static json_t *exits_to_json(const struct vmxon_stats *stats)
{
    json_t *exits = json_object();
    for (unsigned reason = 0; reason < VMXON_EXIT_REASONS; reason++) {
        if (stats->vm_exits[reason])
            json_object_set_new(exits, vmxon_exit_reason_name(reason),
                                json_integer((json_int_t)stats->vm_exits[reason]));
    }
    return exits;
}

static json_t *exceptions_to_json(const struct vmxon_stats *stats)
{
    json_t *exceptions = json_object();
    for (unsigned vector = 0; vector < 32; vector++) {
        char name[8];
        snprintf(name, sizeof name, "%u", vector);
        if (stats->exceptions[vector])
            json_object_set_new(exceptions, name, json_integer((json_int_t)stats->exceptions[vector]));
    }
    return exceptions;
}

static void print_stats_json(const struct vmxon *machine, int status, double seconds)
{
    struct vmxon_stats stats;
    char hash[33];
    vmxon_get_stats(machine, &stats);
    vmxon_state_hash(machine, hash);
    json_t *object = json_object();
    json_object_set_new(object, "instructions", json_integer((json_int_t)stats.instructions));
    json_object_set_new(object, "cycles", json_integer((json_int_t)stats.cycles));
    json_object_set_new(object, "vm_entries", json_integer((json_int_t)stats.vm_entries));
    json_object_set_new(object, "vm_entry_failures", json_integer((json_int_t)stats.vm_entry_failures));
    json_object_set_new(object, "vm_exits", exits_to_json(&stats));
    json_object_set_new(object, "tlb_misses", json_integer((json_int_t)stats.tlb_misses));
    json_object_set_new(object, "ept_walks", json_integer((json_int_t)stats.ept_walks));
    json_object_set_new(object, "interrupts", json_integer((json_int_t)stats.interrupts));
    json_object_set_new(object, "exceptions", exceptions_to_json(&stats));
    json_object_set_new(object, "reference_instructions", json_integer((json_int_t)stats.reference_instructions));
    json_object_set_new(object, "host_seconds", json_real(seconds));
    json_object_set_new(object, "exit_status", json_integer(status));
    json_object_set_new(object, "state_hash", json_string(hash));
    json_dumpf(object, stderr, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    fputc('\n', stderr);
    json_decref(object);
}

static void print_stats_text(const struct vmxon *machine, int status, double seconds)
{
    struct vmxon_stats stats;
    char hash[33];
    vmxon_get_stats(machine, &stats);
    vmxon_state_hash(machine, hash);
    fprintf(stderr,
            "instructions  %" PRIu64 "\ncycles        %" PRIu64 "\nTLB misses    %" PRIu64 "\nEPT walks     %" PRIu64
            "\ninterrupts    %" PRIu64 "\nVM entries    %" PRIu64 " (%" PRIu64 " failed)\n",
            stats.instructions, stats.cycles, stats.tlb_misses, stats.ept_walks, stats.interrupts, stats.vm_entries,
            stats.vm_entry_failures);
    for (unsigned reason = 0; reason < VMXON_EXIT_REASONS; reason++) {
        if (stats.vm_exits[reason])
            fprintf(stderr, "VM exit %-26s %" PRIu64 "\n", vmxon_exit_reason_name(reason), stats.vm_exits[reason]);
    }
    fprintf(stderr, "host seconds  %.3f\nexit status   %d\nstate hash    %s\n", seconds, status, hash);
}

static int run_machine(const struct run_options *run, struct vmxon *machine)
{
    enum vmxon_status loaded = load_image(machine, run);
    if (loaded != VMXON_OK)
        return loaded == VMXON_BAD_CONFIG ? STATUS_USAGE : STATUS_REFUSED;
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    struct vmxon_outcome outcome;
    if (vmxon_run(machine, &run->limits, &outcome) != VMXON_OK)
        return STATUS_DEFECT;
    double seconds = seconds_since(&start);
    fflush(stdout);
    int status = settle_outcome(&outcome, run);
    if (run->stats == STATS_JSON)
        print_stats_json(machine, status, seconds);
    else if (run->stats == STATS_TEXT)
        print_stats_text(machine, status, seconds);
    return status;
}

int command_run(int argc, char **argv)
{
    struct run_options run = {.serial = "stdio"};
    vmxon_config_init(&run.config);
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == OPTION_HELP) {
            print_help();
            return STATUS_OK;
        }
        if (option == '?' || option == ':')
            return bad_option("run", option, argv);
        if (!take_option(&run, option, optarg))
            return STATUS_USAGE;
    }
    if (optind == argc) {
        complain("run: no image given");
        return STATUS_USAGE;
    }
    run.image_path = argv[optind];
    if (optind + 1 < argc) {
        complain("run: unexpected argument '%s' after the image", argv[optind + 1]);
        return STATUS_USAGE;
    }

    struct serial_sink sink = {0};
    run.config.serial_output = serial_write;
    run.config.user = &sink;
    struct vmxon *machine;
    struct vmxon_error error;
    if (vmxon_create(&run.config, &machine, &error) != VMXON_OK) {
        complain("run: %s", error.text);
        return STATUS_USAGE;
    }
    int status = serial_open(&sink, run.serial) ? run_machine(&run, machine) : STATUS_REFUSED;
    if (sink.file.stream && !output_file_commit(&sink.file))
        status = STATUS_REFUSED;
    output_file_discard(&sink.file);
    vmxon_destroy(machine);
    return status;
}
