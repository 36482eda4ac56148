#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userns.h"

int userns_fd = -1;
int userns_ids = 0;
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

/* Words of the variable: a folder, "allow" or "deny", and three numbers for each range of ids. */
#define MAX_WORDS 64

static int split(char *text, char **words)
{
	int n = 0;
	char *word = strtok(text, " ");

	for (; word != NULL && n < MAX_WORDS; word = strtok(NULL, " "))
		words[n++] = word;
	return word == NULL && n >= 5 && n % 3 == 2 ? n : -1;
}

/* Runs newuidmap(1) or newgidmap(1) for a process, of which the own id becomes 0 and all others stay what they are. */
static int give(const char *program, pid_t pid, unsigned own, char **words, int n)
{
	char path[4096], target[16], id[16];
	char *args[MAX_WORDS + 5] = {path, target, "0", id, "1"};
	char *env[] = {NULL};
	int status;
	pid_t child;

	snprintf(path, sizeof(path), "%s/%s", words[0], program);
	snprintf(target, sizeof(target), "%d", pid);
	snprintf(id, sizeof(id), "%u", own);
	memcpy(args + 5, words + 2, (n - 2) * sizeof(args[0]));
	child = fork();
	if (child == 0) {
		execve(path, args, env);
		_exit(127);
	}
	return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

/* How the helper ended. */
enum { GIVEN, NOT_GIVEN, HALF_GIVEN };

/* The helper stays outside, where set-user-ID programs are what they say, and waits until the namespace is there. */
static pid_t start_helper(int go[2], char **words, int n)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	pid_t target = getpid(), helper;
	char c;

	if (pipe2(go, O_CLOEXEC) != 0)
		return -1;
	helper = fork();
	if (helper != 0)
		return helper;
	close(go[1]);
	if (read(go[0], &c, 1) != 1)
		_exit(NOT_GIVEN);
	if (give("newuidmap", target, uid, words, n) != 0)
		_exit(NOT_GIVEN);
	_exit(give("newgidmap", target, gid, words, n) == 0 ? GIVEN : HALF_GIVEN);
}

/* The order is that of user_namespaces(7): who has no rights outside must give up setgroups(2) before it may map a group. */
__attribute__((constructor)) static void enter(void)
{
	const char *value = getenv("_COFFERDAM_USERNS");
	char *ids = getenv("_COFFERDAM_USERNS_IDS");
	char text[4096], map[64];
	char *words[MAX_WORDS];
	int n = 0, go[2], status;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	pid_t helper = -1;

	if (value == NULL)
		return;
	userns_fd = atoi(value);
	if (ids != NULL) {
		if (snprintf(text, sizeof(text), "%s", ids) >= (int)sizeof(text) || (n = split(text, words)) < 0) {
			errno = EINVAL;
			fail("subordinate ids");
			return;
		}
	}
	if (unsetenv("_COFFERDAM_USERNS") != 0 || unsetenv("_COFFERDAM_USERNS_IDS") != 0 || fcntl(userns_fd, F_SETFD, FD_CLOEXEC) != 0) {
		fail("inherited descriptor");
		return;
	}
	if (n > 0 && (helper = start_helper(go, words, n)) < 0) {
		fail("fork");
		return;
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
		fail("unshare"); /* the helper ends with the pipe's other end */
		return;
	}
	if (n > 0) {
		if (strcmp(words[1], "deny") == 0 && put("/proc/self/setgroups", "deny") != 0)
			return;
		if (write(go[1], "", 1) != 1 || waitpid(helper, &status, 0) != helper) {
			fail("newuidmap");
			return;
		}
		close(go[0]);
		close(go[1]);
		if (status == 0) { /* who may change groups has none of the caller's, which have no number here */
			userns_ids = 1;
			if (strcmp(words[1], "allow") == 0 && setgroups(0, NULL) != 0)
				fail("setgroups");
			return;
		}
		if (!WIFEXITED(status) || WEXITSTATUS(status) != NOT_GIVEN) {
			errno = EPERM;
			fail("newgidmap");
			return;
		}
	}
	if (put("/proc/self/setgroups", "deny") != 0)
		return;
	snprintf(map, sizeof(map), "0 %u 1\n", uid);
	if (put("/proc/self/uid_map", map) != 0)
		return;
	snprintf(map, sizeof(map), "0 %u 1\n", gid);
	put("/proc/self/gid_map", map);
}
