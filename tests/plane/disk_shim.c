/* Preloaded into the agent: what the file named by DISK_FAULT says happens to calls on files below
 * DISK_FAULT_DIR. "fsync": syncs answer EIO. "write": writes answer EROFS, and syncs too. "hang": syncs do
 * not come back while it says so. Anything else, or no file: as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int says(const char *word) {
    char text[16] = {0};
    const char *path = getenv("DISK_FAULT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 && !strncmp(text, word, strlen(word));
}

/* A descriptor of the state directory, not of a log or a socket. */
static int ours(int file) {
    char link[64], path[4096] = {0};
    const char *dir = getenv("DISK_FAULT_DIR");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    return dir && readlink(link, path, sizeof path - 1) > 0 && !strncmp(path, dir, strlen(dir));
}

static int sync_with(const char *name, int file) {
    if (ours(file)) {
        while (says("hang")) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        if (says("fsync")) { errno = EIO; return -1; }
        if (says("write")) { errno = EROFS; return -1; }
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return sync_with("fsync", file); }
int fdatasync(int file) { return sync_with("fdatasync", file); }

static ssize_t write_with(const char *name, int file, const void *data, size_t count, off_t offset) {
    if (ours(file) && says("write")) { errno = EROFS; return -1; }
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, name);
    return real(file, data, count, offset);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t offset) {
    return write_with("pwrite", file, data, count, offset);
}
ssize_t pwrite64(int file, const void *data, size_t count, off_t offset) {
    return write_with("pwrite64", file, data, count, offset);
}
