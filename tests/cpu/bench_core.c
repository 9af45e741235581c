// Speed of the execution core on a bare processor: million instructions a second. Not part of the tests.
// Usage: bench_core [NAME [MILLION_CYCLES]]
#include <stdio.h>
#include <time.h>

#include "core_fixture.h"

struct bench {
    const char *name;
    bool small_pages;
    const char *code;       // hexadecimal
    double per_instruction; // what one instruction of the count stands for (elements of a string)
};

static const struct bench benches[] = {
    // add rax,rbx; xor rcx,rax; lea rdx,[rax+rcx*4+8]; sub rsi,rdx; and rdi,rsi; or r8,1; inc r9; shl r10,3; dec r15; jnz
    {"integer", false, "4801d8 4831c1 488d548808 4829d6 4821f7 4983c801 49ffc1 49c1e203 49ffcf 75df ebdd", 1},
    // add eax,1; adc ebx,2; cmp eax,ecx; jb; imul..
    {"mixed", false, "83c001 83d302 39c8 7203 ffc1 90 480fafd0 490fb6f0 4885d2 0f95c0 49ffcf 75e3 ebe1", 1},
    // the integer loop of bench/loops.S
    {"lcg", false, "490fafc1 4c01d0 4889c1 48c1e921 4831ca 48c1c207 4801d6 4983d000 48ffcf 75df ebdd", 1},
    // its call loop, and its walk
    {"call5", false, "e807000000 48ffcf 75f6 ebf4 48ffc0 c3", 1},
    {"walk4", true, "488b06 4883c608 4839d6 72f4 bf00004000 89fe ebeb", 1},
    // dec rcx; jnz -5
    {"tight", false, "48ffc9 75fb ebf9", 1},
    // call +2; jmp -7; ret
    {"call", false, "e802000000 ebf9 c3", 1},
    // walk: mov rax,[rsi]; add rbx,rax; add rsi,64; cmp rsi,rdi; jb ; mov rsi,DATA; jmp
    {"walk", true, "488b06 4801c3 4883c640 4839fe 72f1 48c7c600004000 ebe8", 1},
    // mov rax,[rsi+rcx*8]; add [rdi+rcx*8],rax; inc rcx; and ecx,0x3ff; jmp
    {"rmw", true, "488b04ce 480104cf 48ffc1 81e1ff030000 ebee", 1},
    // new page at each access: mov rax,[rsi]; add rsi,4096; cmp rsi,rdi; jb; mov rsi,DATA; jmp
    {"newpage", true, "488b06 4881c600100000 4839fe 72f1 48c7c600004000 ebe8", 1},
    // push rax; push rbx; pop rcx; pop rdx; jmp
    {"push", false, "50 53 59 5a ebfa", 1},
    // mov ecx,0x10000; mov rsi,DATA; mov rdi,DATA+8M+4K (another slot of the TLB); rep movsq; jmp
    {"movsq", true, "b900000100 48c7c600004000 48c7c70010c000 f348a5 ebe8", 65536.0 / 5},
    {"stosb", true, "b900000100 48c7c70010c000 f3aa ebf0", 65536.0 / 4},
};

static void put_code(struct core *core, const char *hex)
{
    uint8_t code[256];
    size_t n = 0;
    for (; *hex; hex++) {
        unsigned byte;
        if (*hex == ' ')
            continue;
        sscanf(hex, "%2x", &byte);
        code[n++] = (uint8_t)byte;
        hex++;
    }
    core_poke(core, CORE_CODE, code, n);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const struct bench *bench, uint64_t cycles)
{
    struct core *core = core_create();
    struct cpu *cpu = &core->cpu;
    core_long_mode(core, bench->small_pages);
    put_code(core, bench->code);
    cpu->regs[REG_RSI] = CORE_DATA;
    cpu->regs[REG_R9] = 0x5851F42D4C957F2D;
    cpu->regs[REG_R10] = 0x14057B7EF767814F;
    cpu->regs[REG_RDX] = CORE_DATA + (16 << 20);
    cpu->regs[REG_RAX] = CORE_DATA;
    cpu->regs[REG_RDI] = CORE_DATA + (16 << 20) + 0x2000;
    double best = 1e9;
    uint64_t instructions = 0;
    for (int run = 0; run < 3; run++) {
        uint64_t before = cpu->instructions;
        double start = now();
        enum exec_result result = cpu_run(cpu, cpu_now(cpu) + cycles, false);
        double seconds = now() - start;
        if (result != EXEC_DONE)
            printf("stopped: %d, vector %u\n", result, cpu->event.vector);
        instructions = cpu->instructions - before;
        best = seconds < best ? seconds : best;
    }
    printf("%-10s %8.1f million a second (%llu instructions)\n", bench->name,
           (double)instructions * bench->per_instruction / best / 1e6, (unsigned long long)instructions);
    core_destroy(core);
}

int main(int argc, char **argv)
{
    uint64_t cycles = (argc > 2 ? (uint64_t)atoll(argv[2]) : 300) * 1000000;
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
        if (argc < 2 || strcmp(argv[1], benches[i].name) == 0)
            measure(&benches[i], cycles);
    }
    return 0;
}
