/* Statements that a guest checks and reports, one line each, and the verdict at the end. */
#ifndef LABS_LIB_CHECK_H
#define LABS_LIB_CHECK_H

#include <stdbool.h>

/* Prints "  ok    " or "  FAIL  " and the statement, and counts. Returns `holds`. */
__attribute__((format(printf, 2, 3))) bool check(bool holds, const char *statement, ...);

/* The same, but prints only what fails. */
__attribute__((format(printf, 2, 3))) bool check_quietly(bool holds, const char *statement, ...);

/* For what the rest depends on: as check(), and ends the run as failed if the statement does not hold. */
__attribute__((format(printf, 2, 3))) void require(bool holds, const char *statement, ...);

/* Prints "  note  " and the text: something that is left out, and why. */
__attribute__((format(printf, 1, 2))) void note(const char *text, ...);

/* How many statements were printed so far, and how many of all failed. */
unsigned check_count(void);
unsigned check_failures(void);

/* Prints "NAME: PASS (DETAIL)" or "NAME: FAIL (n failures)". Returns what main() returns: 0 or 1. */
int check_verdict(const char *name, const char *detail, ...) __attribute__((format(printf, 2, 3)));

#endif
