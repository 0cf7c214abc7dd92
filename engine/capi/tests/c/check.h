/* What the test programs have in common. */
#ifndef CHECK_H
#define CHECK_H

#include <kvrail.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

/* Fails unless the call has this status. */
static void expect_status(int32_t expected, int32_t status, const char *call, int line) {
    if (status == expected) return;
    char text[512];
    kvrail_last_error(text, sizeof text);
    fprintf(stderr, "line %d: %s gave %d (%s: %s), not %d\n", line, call, status,
            kvrail_status_name(status), text, expected);
    failures++;
}

/* Fails unless the condition holds. */
static void expect_true(int condition, const char *text, int line) {
    if (condition) return;
    fprintf(stderr, "line %d: not so: %s\n", line, text);
    failures++;
}

#define EXPECT(status, call) expect_status(status, call, #call, __LINE__)
#define OK(call) EXPECT(KVRAIL_OK, call)
#define CHECK(condition) expect_true(condition, #condition, __LINE__)
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The last thing a program does. */
static int verdict(const char *name) {
    printf("%s: %d failures\n", name, failures);
    return failures != 0;
}

#endif
