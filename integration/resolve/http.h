/* Asks a host by HTTP at the address that its name has, as it was written. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* Prints the status of the answer, 0 if there is none. */
static void ask(const char *host, const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct timeval patience = { .tv_sec = 5 };
	char text[512];
	int status = 0, n, s = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (inet_pton(AF_INET, address, &to.sin_addr) == 1 && connect(s, (struct sockaddr *)&to, sizeof(to)) == 0) {
		n = snprintf(text, sizeof(text), "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
		if (write(s, text, n) == n && (n = read(s, text, sizeof(text) - 1)) > 0) {
			text[n] = 0;
			sscanf(text, "HTTP/1.1 %d", &status);
		}
	}
	close(s);
	printf(" %d", status);
}
