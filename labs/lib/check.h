/* Statements that a guest checks and reports, one line each, and the verdict at the end. */
#ifndef LABS_LIB_CHECK_H
#define LABS_LIB_CHECK_H

#include <stdbool.h>

/* Says who speaks, once, before everything else: prints "NAME: TITLE". */
void check_begin(const char *name, const char *title);

/* Prints "  ok    " or "  FAIL  " and the statement, and counts. Returns `holds`. */
__attribute__((format(printf, 2, 3))) bool check(bool holds, const char *statement, ...);

/* The same, but prints only what fails. */
__attribute__((format(printf, 2, 3))) bool check_quietly(bool holds, const char *statement, ...);

/* For what the rest depends on: as the two above, and if the statement does not hold, prints the verdict and ends. */
__attribute__((format(printf, 2, 3))) void require(bool holds, const char *statement, ...);
__attribute__((format(printf, 2, 3))) void require_quietly(bool holds, const char *statement, ...);

/* Prints "  note  " and the text: something that is left out, and why. */
__attribute__((format(printf, 1, 2))) void note(const char *text, ...);

/* How many statements were printed so far, and how many of all failed. */
unsigned check_count(void);
unsigned check_failures(void);

/* Prints "NAME: PASS (DETAIL)" or "NAME: FAIL (n failures)". Returns what main() returns: 0 or 1. */
__attribute__((format(printf, 1, 2))) int check_verdict(const char *detail, ...);

#endif
