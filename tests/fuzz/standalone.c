// A fuzz target without libFuzzer: runs it on the files named, or on a number of generated inputs. For the test suite.
//
// usage: PROGRAM COUNT SEED [FILE...]. The inputs are a sequence fixed by the seed: random bytes, and instructions that random bytes seldom
// make. Prints how many passed; a finding ends the program and leaves its input in the file fuzz-finding.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1024 };

static uint64_t random_state = 0x9E3779B97F4A7C15;

static unsigned next_random(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 33) % below;
}

// Pieces of programs: the length, then the bytes.
static const char *const pieces[] = {
    "\x01\xF4",
    "\x02\xFB\xF4",
    "\x02\x0F\xA2",
    "\x02\xF3\xA4",
    "\x02\xF3\x6C",
    "\x02\xF3\xAB",
    "\x03\x0F\x01\xC1",
    "\x03\x0F\x01\xD4",
    "\x02\xE6\xF4",
    "\x02\xE4\x40",
    "\x02\x0F\x30",
    "\x02\x0F\x32",
    "\x02\xCD\x80",
    "\x01\xCC",
    "\x01\xF1",
    "\x02\xF3\x90",
    "\x03\x0F\x20\xC0",
    "\x03\x0F\x22\xC0",
    "\x03\x0F\x22\xD8",
    "\x03\x0F\x22\xE0",
    "\x01\xCF",
    "\x02\x48\xCF",
    "\x03\x8E\xD0\x90",
    "\x02\x0F\x05",
    "\x02\x0F\x34",
    "\x02\x0F\x35",
    "\x03\x0F\x01\xF8",
    "\x03\x0F\xC7\xF0",
    "\x03\x0F\x00\xD8",
    "\x03\x0F\x01\xC2",
    "\x03\x0F\x01\xC3",
    "\x03\x0F\x01\xC4",
    "\x03\x0F\x78\xC0",
    "\x03\x0F\x79\xC0",
    "\x04\x66\x0F\x38\x80",
    "\x04\x66\x0F\x38\x81",
    "\x04\xF0\x48\x0F\xC7",
    "\x02\xD9\xC0",
    "\x03\x0F\xAE\x06",
    "\x04\x66\x0F\x58\xC1",
    "\x02\xEB\xFC",
    "\x02\x75\xF8",
    "\x05\xE8\xF0\xFF\xFF\xFF",
    "\x01\x9C",
    "\x01\x9D",
    "\x03\x0F\x23\xF8",
    "\x03\x0F\x01\x38",
    "\x03\x0F\x01\xC8",
    "\x03\x0F\x01\xC9",
    "\x04\xC8\x10\x00\x03",
};

static size_t generate(uint8_t *bytes)
{
    size_t size = 32 + next_random(INPUT_MAX - 32);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)next_random(256);
    for (unsigned i = 4; i < 8; i++) // few changes of tables, so that most programs get somewhere
        bytes[i] = (uint8_t)next_random(next_random(3) ? 1 : 8);
    for (unsigned i = 0; i < size / 12; i++) {
        const char *piece = pieces[next_random(sizeof pieces / sizeof pieces[0])];
        size_t at = 16 + next_random((unsigned)size - 16), length = (size_t)piece[0];
        if (at + length <= size)
            memcpy(bytes + at, piece + 1, length);
    }
    return size;
}

static void run_file(const char *path)
{
    static uint8_t bytes[1 << 16];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
}

static uint8_t input[INPUT_MAX];
static size_t input_size;

static void keep_input(int signal_number)
{
    FILE *file = fopen("fuzz-finding", "wb");
    if (file && input_size) {
        fwrite(input, 1, input_size, file);
        fclose(file);
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0, files = argc > 3 ? argc - 3 : 0;
    random_state += argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
    const int signals[] = {SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGILL};
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], keep_input);
    for (int i = 0; i < count; i++) {
        input_size = generate(input);
        LLVMFuzzerTestOneInput(input, input_size);
    }
    input_size = 0;
    for (int i = 0; i < files; i++)
        run_file(argv[3 + i]);
    printf("%d passed, 0 failed\n", count + files);
    return 0;
}
