/* open, fstat, mmap, close. */
#include "model/mapped_file.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool mapped_file_of(mapped_file *file, int fd, const char *path, error *err)
{
    struct stat about;
    *file = (mapped_file){0};
    if (fstat(fd, &about) != 0)
        return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return error_set(err, ERR_INVALID, "%s: a regular file was expected here", path);
    if (about.st_size == 0)
        return error_set(err, ERR_INVALID, "%s: the file is empty", path);
    void *memory = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED)
        return error_set(err, ERR_IO, "%s: mapping %lld bytes: %s", path, (long long)about.st_size, strerror(errno));
    int64_t modified_ns = (int64_t)about.st_mtim.tv_sec * NS_PER_S + about.st_mtim.tv_nsec;
    *file               = (mapped_file){memory, (size_t)about.st_size, modified_ns};
    return true;
}

bool mapped_file_open(mapped_file *file, const char *path, error *err)
{
    *file = (mapped_file){0};
    /* O_NONBLOCK: a named pipe in the file's place must not hang the program. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    bool ok = mapped_file_of(file, fd, path, err);
    close(fd);
    return ok;
}

void mapped_file_close(mapped_file *file)
{
    if (file->data)
        munmap((void *)file->data, file->size);
    *file = (mapped_file){0};
}
