// Messages, numbers and files of the vmxon command.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("vmxon: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

int bad_option(const char *command, int result, char **argv)
{
    // getopt_long leaves optind past a long option and optopt 0 for an unknown one.
    const char *seen = argv[optind > 1 ? optind - 1 : 1];
    if (result == ':')
        complain("%s: option '%s' needs a value", command, seen);
    else if (optopt)
        complain("%s: option '%s' is not used correctly", command, seen);
    else
        complain("%s: unknown option '%s'", command, seen);
    return STATUS_USAGE;
}

bool parse_number(const char *text, uint64_t *value)
{
    if (text[0] < '0' || text[0] > '9')
        return false;
    bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    errno = 0;
    *value = strtoull(text, &end, hexadecimal ? 16 : 10);
    return errno == 0 && *end == '\0' && (!hexadecimal || end > text + 2);
}

bool parse_size(const char *text, uint64_t *value)
{
    size_t length = strlen(text);
    char digits[32];
    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, text, length + 1);
    unsigned shift = 0;
    switch (digits[length - 1]) {
    case 'K':
    case 'k': shift = 10; break;
    case 'M':
    case 'm': shift = 20; break;
    case 'G':
    case 'g': shift = 30; break;
    default: break;
    }
    if (shift)
        digits[length - 1] = '\0';
    if (!parse_number(digits, value) || *value > UINT64_MAX >> shift)
        return false;
    *value <<= shift;
    return true;
}

bool input_file_open(struct input_file *file, const char *path)
{
    *file = (struct input_file){.path = path};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        complain("%s: %s", path, strerror(errno));
        return false;
    }
    struct stat status;
    bool ok = false;
    if (fstat(descriptor, &status) != 0) {
        complain("%s: %s", path, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        complain("%s: %s", path, S_ISDIR(status.st_mode) ? "is a directory" : "is not a regular file");
    } else if (status.st_size == 0) {
        ok = true;
    } else {
        void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED) {
            complain("%s: %s", path, strerror(errno));
        } else {
            file->bytes = bytes;
            file->size = (uint64_t)status.st_size;
            ok = true;
        }
    }
    close(descriptor);
    return ok;
}

void input_file_close(struct input_file *file)
{
    if (file->bytes)
        munmap(file->bytes, file->size);
    file->bytes = NULL;
}

bool output_file_open(struct output_file *file, const char *path)
{
    *file = (struct output_file){0};
    file->path = strdup(path);
    size_t size = strlen(path) + sizeof ".part";
    file->temporary = malloc(size);
    if (!file->path || !file->temporary) {
        complain("%s: out of memory", path);
        return false;
    }
    snprintf(file->temporary, size, "%s.part", path);
    file->stream = fopen(file->temporary, "wbe");
    if (!file->stream)
        complain("%s: %s", path, strerror(errno));
    return file->stream != NULL;
}

bool output_file_commit(struct output_file *file)
{
    if (!file->stream)
        return true;
    bool written = !ferror(file->stream) && fflush(file->stream) == 0;
    if (fclose(file->stream) != 0)
        written = false;
    file->stream = NULL;
    if (written && rename(file->temporary, file->path) == 0)
        return true;
    complain("%s: %s", file->path, strerror(errno));
    unlink(file->temporary);
    return false;
}

void output_file_discard(struct output_file *file)
{
    if (file->stream) {
        fclose(file->stream);
        unlink(file->temporary);
    }
    free(file->path);
    free(file->temporary);
    *file = (struct output_file){0};
}
