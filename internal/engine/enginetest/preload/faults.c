/*
 * Breaks a system call of the program that this library is preloaded into: the call fails, or the process dies in its
 * place. Which call, and when, is said by the file that FAULTS_CONTROL names; faults.go writes it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CALL_RENAME = 1, CALL_WRITE = 2 };

struct control {
	_Atomic int32_t left;   /* matching calls up to the broken one, that one included; 0: no fault is armed */
	_Atomic int32_t struck; /* faults that have happened */
	int32_t call;
	int32_t error; /* errno of the broken call; 0: SIGKILL */
	char path[1008]; /* what the call's path contains */
};

static struct control *control;
static int (*next_rename)(const char *, const char *);
static ssize_t (*next_write)(int, const void *, size_t);

static void die(const char *what)
{
	fprintf(stderr, "faults: %s: %s\n", what, strerror(errno));
	abort();
}

__attribute__((constructor)) static void load(void)
{
	next_rename = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
	next_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	if (next_rename == NULL || next_write == NULL)
		die("find the C library's own calls");
	const char *path = getenv("FAULTS_CONTROL");
	int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("open the file named by FAULTS_CONTROL");
	control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (control == MAP_FAILED)
		die("map the file named by FAULTS_CONTROL");
	close(fd);
}

/* The error that a call must end with; 0: let it happen. */
static int strike(int call, const char *path)
{
	if (control->call != call || strstr(path, control->path) == NULL)
		return 0;
	int32_t left = atomic_load(&control->left);
	do {
		if (left == 0)
			return 0;
	} while (!atomic_compare_exchange_weak(&control->left, &left, left - 1));
	if (left > 1)
		return 0;
	int error = control->error;
	atomic_fetch_add(&control->struck, 1);
	if (error == 0) {
		kill(getpid(), SIGKILL);
		for (;;)
			pause(); /* the signal is on its way; the call must not happen */
	}
	return error;
}

int rename(const char *from, const char *to)
{
	int error = atomic_load(&control->left) == 0 ? 0 : strike(CALL_RENAME, from);
	if (error != 0) {
		errno = error;
		return -1;
	}
	return next_rename(from, to);
}

ssize_t write(int fd, const void *data, size_t size)
{
	/* Most writes of most programs come by here while nothing is armed, or a rename is. */
	if (atomic_load(&control->left) != 0 && control->call == CALL_WRITE) {
		char link[32], path[PATH_MAX];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, path, sizeof path - 1);
		if (n >= 0) {
			path[n] = 0;
			int error = strike(CALL_WRITE, path);
			if (error != 0) {
				errno = error;
				return -1;
			}
		}
	}
	return next_write(fd, data, size);
}
