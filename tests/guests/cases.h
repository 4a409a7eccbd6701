/* Guests with several tests in them: the command line says which are run. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include <paravirt.h>

struct test_case {
    const char *name;
    void (*run)(void);
};

/* Run the cases that the arguments name. Returns what main returns. */
static inline int run_cases(const struct test_case *cases, unsigned count, int argc, char **argv)
{
    int ran = 0;

    for (unsigned i = 0; i < count; i++)
        for (int j = 1; j < argc; j++)
            if (!strcmp(argv[j], cases[i].name)) {
                cases[i].run();
                ran++;
            }
    pv_check(ran > 0, "there is such a case");
    return pv_failures();
}

#endif
