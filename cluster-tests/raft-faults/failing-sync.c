/*
 * Fails fsync and fdatasync of a Raft log's files with EIO while a control file is there; loaded with LD_PRELOAD.
 *
 * RAFT_FAULTS_CONTROL names the control file. "always": every sync fails while it is there. "once": the first sync takes the
 * file away and fails, later ones work again, as those of Linux do after it reported a failed write-back. Every failure adds
 * the file's path as a line to CONTROL.hits, so that the test knows which daemons must stop.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*sync_call)(int);

/* Whether the file behind `fd` is a Raft log's; its path goes to `path`. */
static int is_raft_file(int fd, char *path, size_t size)
{
	char link[64];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, size - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	return strstr(path, "/swarm/raft-") != NULL;
}

/* Whether this sync fails. It is written down before the caller hears of it. */
static int fails(int fd)
{
	const char *control = getenv("RAFT_FAULTS_CONTROL");
	if (control == NULL || access(control, F_OK) != 0)
		return 0;
	char path[1024];
	if (!is_raft_file(fd, path, sizeof(path)))
		return 0;
	char mode[8] = "";
	int file = open(control, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return 0;
	ssize_t length = read(file, mode, sizeof(mode) - 1);
	close(file);
	/* Of several threads that meet it at the same time, one takes it away. */
	if (length > 0 && mode[0] == 'o' && unlink(control) != 0)
		return 0;
	char hits[1024];
	snprintf(hits, sizeof(hits), "%s.hits", control);
	file = open(hits, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (file >= 0) {
		dprintf(file, "%s\n", path);
		close(file);
	}
	return 1;
}

static int synced(int fd, const char *name)
{
	if (fails(fd)) {
		errno = EIO;
		return -1;
	}
	sync_call real = (sync_call)dlsym(RTLD_NEXT, name);
	return real(fd);
}

int fsync(int fd)
{
	return synced(fd, "fsync");
}

int fdatasync(int fd)
{
	return synced(fd, "fdatasync");
}
