/* Key files: what is written can be read; what is wrong is named by file and line. */
#include "bus/bus.h"
#include "bus/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/troupe-test-keys-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"pair", "pair.pub", "text"};
    char                     path[256];
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int  next;
    char       *path = paths[next++ % 4];
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

static const char *write_text(const char *text, mode_t mode)
{
    const char *path = in_folder("text");
    FILE       *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    chmod(path, mode);
    return path;
}

static void a_new_pair_is_private_and_can_be_read(void **state)
{
    (void)state;
    bus_keys    keys;
    error       err;
    struct stat status;
    assert_true(bus_write_keypair(in_folder("pair"), &err));
    assert_int_equal(stat(in_folder("pair"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_true(bus_keys_read(&keys, in_folder("pair"), in_folder("pair.pub"), NULL, &err));
    assert_int_equal(strlen(keys.secret_key), 40);
    assert_string_equal(keys.public_key, keys.server_key);
    bus_keys_clear(&keys);
    assert_false(bus_write_keypair(in_folder("pair"), &err)); /* it may be the only copy */
    assert_non_null(strstr(err.text, "exists"));
}

static void a_secret_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    bus_keys keys;
    error    err;
    chmod(in_folder("pair"), 0644);
    assert_false(bus_keys_read(&keys, in_folder("pair"), NULL, NULL, &err));
    assert_non_null(strstr(err.text, "chmod 600"));
    chmod(in_folder("pair"), 0600);
}

#define KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

static void peers_have_roles(void **state)
{
    (void)state;
    bus_keys keys;
    error    err;
    assert_true(bus_keys_read(&keys, NULL, NULL,
                              write_text("# who may come\n\n" KEY_A " executor\n  " KEY_B "\tclient \n", 0644), &err));
    assert_int_equal(bus_keys_role(&keys, SPAN(KEY_A)), ROLE_EXECUTOR);
    assert_int_equal(bus_keys_role(&keys, SPAN(KEY_B)), ROLE_CLIENT);
    assert_int_equal(bus_keys_role(&keys, SPAN("somebody")), ROLE_UNKNOWN);
    bus_keys_clear(&keys);
}

typedef struct {
    const char *text;
    const char *complaint;
} bad_file;

static void a_malformed_peers_file_names_the_line(void **state)
{
    (void)state;
    static const bad_file table[] = {
        {KEY_A "\n", "text:1: a public key"},
        {"\nshort executor\n", "text:2: a public key"},
        {KEY_A " king\n", "text:1: \"king\" is no role"},
        {KEY_A " unknown\n", "\"unknown\" is no role"},
        {KEY_A " executor and more\n", "text:1: a public key"},
        {KEY_A " executor\n" KEY_A " client\n", "text:2: this key was given a role before"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        bus_keys keys;
        error    err;
        assert_false(bus_keys_read(&keys, NULL, NULL, write_text(table[i].text, 0644), &err));
        if (!strstr(err.text, table[i].complaint))
            fail_msg("%s: %s", table[i].text, err.text);
    }
}

static void a_long_line_is_refused_and_its_tail_is_no_line(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        size_t      n_before; /* bytes of the comment before KEY_B */
        bool        fits;
    } table[] = {{"the longest line", 510 - sizeof KEY_B " client" + 1, true},
                 {"cut before the key", 511, false},
                 {"one byte over", 511 - sizeof KEY_B " client" + 1, false}};
    for (size_t i = 0; i < COUNT(table); i++) {
        bus_keys keys;
        error    err;
        char     text[2048];
        snprintf(text, sizeof text, "%s executor\n#%*s%s client\n", KEY_A, (int)table[i].n_before - 1, "", KEY_B);
        bool ok = bus_keys_read(&keys, NULL, NULL, write_text(text, 0644), &err);
        if (ok != table[i].fits || (!ok && !strstr(err.text, "text:2: a line of text of at most 510 bytes")))
            fail_msg("%s: %s", table[i].what, ok ? "taken" : err.text);
        if (ok)
            assert_int_equal(bus_keys_role(&keys, SPAN(KEY_B)), ROLE_UNKNOWN);
        bus_keys_clear(&keys);
    }
}

static void a_malformed_key_file_is_an_error(void **state)
{
    (void)state;
    static const bad_file table[] = {
        {"", "no line `public-key"},
        {"public-key = \"" KEY_A "\"\n", "no line `secret-key"},
        {"public-key = " KEY_A "\n", "text:1: a key of 40"},
        {"public-key = \"tooshort\"\n", "text:1: a key of 40"},
    };
    bus_keys keys;
    error    err;
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_false(bus_keys_read(&keys, write_text(table[i].text, 0600), NULL, NULL, &err));
        if (!strstr(err.text, table[i].complaint))
            fail_msg("%s: %s", table[i].text, err.text);
    }
    assert_false(bus_keys_read(&keys, "/nowhere/key", NULL, NULL, &err));
    assert_non_null(strstr(err.text, "/nowhere/key"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_pair_is_private_and_can_be_read),
        cmocka_unit_test(a_secret_key_that_others_may_read_is_refused),
        cmocka_unit_test(peers_have_roles),
        cmocka_unit_test(a_malformed_peers_file_names_the_line),
        cmocka_unit_test(a_long_line_is_refused_and_its_tail_is_no_line),
        cmocka_unit_test(a_malformed_key_file_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
