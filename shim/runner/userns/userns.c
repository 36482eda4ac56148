#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userns.h"

int userns_fd = -1;
int userns_errno = 0;
const char *userns_step = "";

static int fail(const char *step)
{
	userns_step = step;
	userns_errno = errno;
	return -1;
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return fail(path);
	n = write(fd, text, strlen(text));
	if (n < 0)
		fail(path); /* before close changes errno */
	close(fd);
	return n < 0 ? -1 : 0;
}

/* The order is that of user_namespaces(7): who has no rights outside must give up setgroups(2) before it may map a group. */
__attribute__((constructor)) static void enter(void)
{
	const char *value = getenv("_COFFERDAM_USERNS");
	char map[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (value == NULL)
		return;
	userns_fd = atoi(value);
	if (unsetenv("_COFFERDAM_USERNS") != 0 || fcntl(userns_fd, F_SETFD, FD_CLOEXEC) != 0) {
		fail("inherited descriptor");
		return;
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
		fail("unshare");
		return;
	}
	if (put("/proc/self/setgroups", "deny") != 0)
		return;
	snprintf(map, sizeof(map), "0 %u 1\n", uid);
	if (put("/proc/self/uid_map", map) != 0)
		return;
	snprintf(map, sizeof(map), "0 %u 1\n", gid);
	put("/proc/self/gid_map", map);
}
