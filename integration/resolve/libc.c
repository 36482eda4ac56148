/* Resolves names as a program of this C library does: built with glibc and with musl.
 * Usage: libc NAME...; prints for each one line: NAME ADDRESS... or NAME not-found, and the milliseconds that it took. With ASK in the
 * environment it goes on to ask for the root of the last address by HTTP, and prints the status. */
#define _GNU_SOURCE
#include <netdb.h>
#include <stdlib.h>
#include <time.h>

#include "http.h"

static long milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found = NULL;
		char text[128] = "";
		long start = milliseconds();
		int err = getaddrinfo(argv[i], "443", &hints, &found);

		printf("%s", argv[i]);
		if (err == EAI_NONAME)
			printf(" not-found");
		else if (err != 0)
			printf(" error:%d", err);
		for (struct addrinfo *a = found; a != NULL; a = a->ai_next) {
			getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
			printf(" %s", text);
		}
		printf(" %ldms", milliseconds() - start);
		if (found != NULL && getenv("ASK"))
			ask(argv[i], text);
		printf("\n");
		if (found != NULL)
			freeaddrinfo(found);
	}
	return 0;
}
