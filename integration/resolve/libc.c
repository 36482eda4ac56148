/* Resolves names as a program of this C library does: built with glibc and with musl.
 * Usage: libc NAME...; prints for each one line: NAME ADDRESS... or NAME not-found, and the milliseconds that it took. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

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
		long start = milliseconds();
		int err = getaddrinfo(argv[i], "443", &hints, &found);

		printf("%s", argv[i]);
		if (err == EAI_NONAME)
			printf(" not-found");
		else if (err != 0)
			printf(" error:%d", err);
		for (struct addrinfo *a = found; a != NULL; a = a->ai_next) {
			char text[128] = "?";

			getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
			printf(" %s", text);
		}
		printf(" %ldms\n", milliseconds() - start);
		if (found != NULL)
			freeaddrinfo(found);
	}
	return 0;
}
