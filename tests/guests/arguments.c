/* Prints its arguments, one to a line, and returns how many there are. */
#include <paravirt.h>

int main(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        pv_printf("%s\n", argv[i]);
    return argc;
}
