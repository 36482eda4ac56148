/* Resolves names as programs with c-ares do, Node among them. Usage and output are those of libc.c; ARES_TCP in the environment asks by TCP. */
#include <ares.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/select.h>
#include <time.h>

#include "http.h"

static long milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int done;
static char address[128]; /* the last one that was found */

static void answer(void *name, int status, int timeouts, struct ares_addrinfo *found)
{
	(void)name;
	(void)timeouts;
	done = 1;
	if (status == ARES_ENOTFOUND || status == ARES_ENODATA)
		printf(" not-found");
	else if (status != ARES_SUCCESS)
		printf(" error:%s", ares_strerror(status));
	for (struct ares_addrinfo_node *a = found ? found->nodes : NULL; a != NULL; a = a->ai_next) {
		getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
		printf(" %s", address);
	}
	if (found)
		ares_freeaddrinfo(found);
}

int main(int argc, char **argv)
{
	struct ares_options options = { .flags = getenv("ARES_TCP") ? ARES_FLAG_USEVC : 0 };
	ares_channel channel;

	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
	    ares_init_options(&channel, &options, ARES_OPT_FLAGS) != ARES_SUCCESS)
		return 1;
	for (int i = 1; i < argc; i++) {
		struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
		long start = milliseconds();

		printf("%s", argv[i]);
		done = 0;
		address[0] = 0;
		ares_getaddrinfo(channel, argv[i], "443", &hints, answer, NULL);
		while (!done) {
			fd_set readers, writers;
			struct timeval wait;
			int n;

			FD_ZERO(&readers);
			FD_ZERO(&writers);
			n = ares_fds(channel, &readers, &writers);
			if (n == 0)
				break;
			select(n, &readers, &writers, NULL, ares_timeout(channel, NULL, &wait));
			ares_process(channel, &readers, &writers);
		}
		printf(" %ldms", milliseconds() - start);
		if (address[0] && getenv("ASK"))
			ask(argv[i], address);
		printf("\n");
	}
	ares_destroy(channel);
	return 0;
}
