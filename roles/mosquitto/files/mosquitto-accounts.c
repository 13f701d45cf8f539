/* What Mosquitto 2.0 cannot say in its configuration, and loses sessions or messages without:

   - A client id belongs to the account that it is named after: nobody else gets a session by it.
   - A reload puts out whose account is gone or has another password, and leaves alone everybody else, above all those who
     are away. (The broker by itself asks these for a password, too, which it does not know; then it keeps nothing more for
     them, and its list of sessions that end some day breaks.)
   - An account that collects is not sent again what was retained, whenever it subscribes, and subscribes to nothing but its
     topics. (The broker's own figures below $SYS are retained, and always true.)

   The file that plugin_opt_accounts names has a line for each fact: "account NAME FINGERPRINT", with a fingerprint of the
   password; "id NAME PREFIX" for ids that are PREFIX or begin with PREFIX and '-'; "collect NAME TOPIC".

   Compiled where it runs, without any headers: what is declared below is what is used of C's library and of plugin
   interface 5, which all of Mosquitto 2 has. */

typedef __SIZE_TYPE__ size_t;
typedef struct file FILE;
#define NULL ((void *)0)

FILE *fopen(const char *path, const char *mode);
char *fgets(char *line, int size, FILE *file);
int fclose(FILE *file);
void *malloc(size_t size);
void free(void *memory);
void *memcpy(void *to, const void *from, size_t length);
char *strchr(const char *text, int character);
int strcmp(const char *one, const char *other);
int strncmp(const char *one, const char *other, size_t length);
size_t strlen(const char *text);
char *strdup(const char *text);

enum { RELOAD = 1, ACL_CHECK = 2, BASIC_AUTH = 3, TICK = 9 };
enum { READ = 1, WRITE = 2, SUBSCRIBE = 4 };
enum { SUCCESS = 0, NO_MEMORY = 1, INVALID = 3, AUTH = 11, ACL_DENIED = 12, UNKNOWN = 13, DEFER = 17 };
enum { WARNING = 4, ERROR = 8 };

struct option { char *key, *value; };
struct acl_check {
    void *future, *client;
    const char *topic;
    const void *payload;
    void *properties;
    int access;
    unsigned payload_length;
    unsigned char qos, retain;
    void *future2[4];
};
struct basic_auth {
    void *future, *client;
    char *username, *password;
    void *future2[4];
};

int mosquitto_callback_register(void *plugin, int event, int (*callback)(int, void *, void *), const void *, void *);
const char *mosquitto_client_id(const void *client);
const char *mosquitto_client_username(const void *client);
int mosquitto_kick_client_by_username(const char *username, int with_will);
int mosquitto_topic_matches_sub(const char *filter, const char *topic, unsigned char *result);
void mosquitto_log_printf(int level, const char *format, ...);

struct fact {
    struct fact *next;
    char kind, *name, *value; /* both behind it, in the same piece of memory */
};

static char *path;
static struct fact *facts, *before; /* before the reload that is under way */
static int reloading;
static const void *subscribing; /* the collecting client that the broker is sending what was retained */

static void forget(struct fact *list)
{
    while (list) {
        struct fact *next = list->next;
        free(list);
        list = next;
    }
}

static int load(struct fact **list)
{
    char line[70000]; /* a topic has 65535 bytes at the most */
    FILE *file = fopen(path, "r");

    *list = NULL;
    if (!file)
        return UNKNOWN;
    while (fgets(line, sizeof line, file)) {
        char *name = strchr(line, ' '), *value = name ? strchr(name + 1, ' ') : NULL, *end = strchr(line, '\n');
        struct fact *fact;

        if (!value || !end)
            continue;
        *name++ = *value++ = *end = 0;
        if (!(fact = malloc(sizeof *fact + (end - name) + 1))) {
            fclose(file);
            return NO_MEMORY;
        }
        fact->kind = line[0];
        fact->name = (char *)(fact + 1);
        memcpy(fact->name, name, end - name + 1);
        fact->value = fact->name + (value - name);
        fact->next = *list;
        *list = fact;
    }
    fclose(file);
    return SUCCESS;
}

static struct fact *find(struct fact *fact, char kind, const char *name)
{
    while (fact && (fact->kind != kind || strcmp(fact->name, name)))
        fact = fact->next;
    return fact;
}

/* The account that an id belongs to, if it is another one: the one with the longest name that the id begins with. */
static const char *other_owner(const char *id, const char *name)
{
    const char *owner = NULL;
    size_t longest = 0;
    struct fact *fact;

    for (fact = facts; fact; fact = fact->next) {
        size_t length = strlen(fact->value);

        if (fact->kind != 'i' || length < longest || strncmp(id, fact->value, length) || (id[length] && id[length] != '-'))
            continue;
        if (length > longest || !owner || !strcmp(fact->name, name))
            owner = fact->name;
        longest = length;
    }
    return owner && strcmp(owner, name) ? owner : NULL;
}

static int on_basic_auth(int event, void *data, void *nothing)
{
    struct basic_auth *asked = data;
    const char *id = mosquitto_client_id(asked->client), *owner;

    if (!asked->username || !id)
        return DEFER;
    if (reloading) /* all who are here or away are asked; on_tick puts out who has to go */
        return SUCCESS;
    if (!(owner = other_owner(id, asked->username)))
        return DEFER;
    mosquitto_log_printf(WARNING, "Client id %s belongs to account %s; refused to %s.", id, owner, asked->username);
    return AUTH;
}

static int collects(const char *name, const char *topic)
{
    struct fact *fact;

    for (fact = facts; (fact = find(fact, 'c', name)); fact = fact->next) {
        unsigned char matches = 0;

        if (!strcmp(fact->value, topic) || (!mosquitto_topic_matches_sub(fact->value, topic, &matches) && matches))
            return 1;
    }
    return 0;
}

static int on_acl_check(int event, void *data, void *nothing)
{
    struct acl_check *asked = data;
    const char *name;

    if (asked->access == WRITE)
        subscribing = NULL;
    else if (asked->access == READ)
        return asked->retain && asked->client == subscribing && asked->topic[0] != '$' ? ACL_DENIED : DEFER;
    else if (asked->access == SUBSCRIBE) {
        name = mosquitto_client_username(asked->client);
        subscribing = name && find(facts, 'c', name) ? asked->client : NULL;
        if (subscribing && !collects(name, asked->topic))
            return ACL_DENIED;
    }
    return DEFER;
}

static int on_reload(int event, void *data, void *nothing)
{
    struct fact *loaded;

    reloading = 1;
    if (load(&loaded)) {
        mosquitto_log_printf(ERROR, "%s cannot be read; the accounts stay as they were.", path);
        forget(loaded);
        return SUCCESS;
    }
    before = facts;
    facts = loaded;
    return SUCCESS;
}

static int on_tick(int event, void *data, void *nothing)
{
    subscribing = NULL;
    if (reloading) {
        struct fact *fact, *now;

        reloading = 0;
        for (fact = before; fact; fact = fact->next)
            if (fact->kind == 'a' && (!(now = find(facts, 'a', fact->name)) || strcmp(now->value, fact->value)))
                mosquitto_kick_client_by_username(fact->name, 1);
        forget(before);
        before = NULL;
    }
    return SUCCESS;
}

int mosquitto_plugin_version(int count, const int *versions)
{
    while (count--)
        if (versions[count] == 5)
            return 5;
    return -1;
}

int mosquitto_plugin_init(void *plugin, void **user_data, struct option *options, int count)
{
    int result;

    while (count--)
        if (!strcmp(options[count].key, "accounts"))
            path = strdup(options[count].value);
    if (!path) {
        mosquitto_log_printf(ERROR, "plugin_opt_accounts is not set.");
        return INVALID;
    }
    if ((result = load(&facts))) {
        mosquitto_log_printf(ERROR, "%s cannot be read.", path);
        return result;
    }
    if ((result = mosquitto_callback_register(plugin, BASIC_AUTH, on_basic_auth, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, ACL_CHECK, on_acl_check, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, RELOAD, on_reload, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, TICK, on_tick, NULL, NULL)))
        return result;
    return SUCCESS;
}

int mosquitto_plugin_cleanup(void *user_data, struct option *options, int count)
{
    forget(facts);
    free(path);
    return SUCCESS;
}
