/* What Mosquitto 2.0 cannot say in its configuration, and loses sessions or messages without:

   - A client id belongs to the account that it is named after, and any other one to the account that is connected with
     it or has left a session under it: nobody else gets a session by it.
   - A reload puts out whose account is gone or has another password, and leaves alone everybody else, above all those who
     are away. (The broker by itself asks these for a password, too, which it does not know; then it keeps nothing more for
     them, and its list of sessions that end some day breaks.)
   - An account that collects is not sent again what was retained, whenever it subscribes, and subscribes to nothing but its
     topics. (The broker's own figures below $SYS are retained, and always true.)
   - The store is saved when it has changed, and not whenever an interval has passed: every save is written to the card.

   The file that plugin_opt_accounts names has a line for each fact: "account NAME FINGERPRINT", with a fingerprint of the
   password; "id NAME PREFIX" for ids that are PREFIX or begin with PREFIX and '-'; "collect NAME TOPIC". plugin_opt_store
   names the broker's store, which has the account of each session that outlived a restart. plugin_opt_save is the number of
   seconds between two saves.

   Compiled where it runs, without any headers: what is declared below is what is used of C's library and of plugin
   interface 5, which all of Mosquitto 2 has. */

typedef __SIZE_TYPE__ size_t;
typedef struct file FILE;
#define NULL ((void *)0)

FILE *fopen(const char *path, const char *mode);
char *fgets(char *line, int size, FILE *file);
size_t fread(void *to, size_t size, size_t count, FILE *file);
int fclose(FILE *file);
void *malloc(size_t size);
void free(void *memory);
int memcmp(const void *one, const void *other, size_t length);
void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
char *strchr(const char *text, int character);
int strcmp(const char *one, const char *other);
int strncmp(const char *one, const char *other, size_t length);
size_t strlen(const char *text);
char *strdup(const char *text);
long time(long *where);
int raise(int signal);

enum { RELOAD = 1, ACL_CHECK = 2, BASIC_AUTH = 3, TICK = 9, DISCONNECT = 10 };
enum { READ = 1, WRITE = 2, SUBSCRIBE = 4, UNSUBSCRIBE = 8 };
enum { SUCCESS = 0, NO_MEMORY = 1, INVALID = 3, AUTH = 11, ACL_DENIED = 12, UNKNOWN = 13, DEFER = 17 };
enum { WARNING = 4, ERROR = 8 };
enum { MOST_SESSIONS = 1000 };
enum { SAVE = 10 }; /* SIGUSR1: the broker saves its store */
/* A retained topic is repeated if it was published so many times in a row, at most so many seconds apart. */
enum { REPEATED = 5, APART = 150, MOST_TOPICS = 256 };

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
struct disconnect {
    void *future, *client;
    int reason;
    void *future2[4];
};

int mosquitto_callback_register(void *plugin, int event, int (*callback)(int, void *, void *), const void *, void *);
unsigned char mosquitto_client_clean_session(const void *client);
const char *mosquitto_client_id(const void *client);
int mosquitto_client_protocol_version(const void *client);
const char *mosquitto_client_username(const void *client);
int mosquitto_kick_client_by_username(const char *username, int with_will);
int mosquitto_topic_matches_sub(const char *filter, const char *topic, unsigned char *result);
void mosquitto_log_printf(int level, const char *format, ...);

struct fact {
    struct fact *next;
    char kind, *name, *value; /* both behind it, in the same piece of memory */
};

/* Who is connected with an id, or has left a session under it (client is NULL then). The newest is the first. */
struct session {
    struct session *next;
    const void *client;
    int subscribes;
    char *id, *account; /* both behind it, in the same piece of memory */
};

static char *path, *store;
static struct session *sessions;
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

/* The session of an id, but for the connection of that client. */
static struct session *session_of(const char *id, const void *client)
{
    struct session *session = sessions;

    while (session && (strcmp(session->id, id) || (client && session->client == client)))
        session = session->next;
    return session;
}

static int remember(const char *id, const char *account, const void *client)
{
    size_t id_length = strlen(id) + 1, account_length = strlen(account) + 1;
    struct session *session = malloc(sizeof *session + id_length + account_length);

    if (!session)
        return NO_MEMORY;
    session->client = client;
    session->subscribes = !client;
    session->id = (char *)(session + 1);
    session->account = session->id + id_length;
    memcpy(session->id, id, id_length);
    memcpy(session->account, account, account_length);
    session->next = sessions;
    sessions = session;
    return SUCCESS;
}

static void drop(struct session *session)
{
    struct session **place = &sessions;

    while (*place != session)
        place = &(*place)->next;
    *place = session->next;
    free(session);
}

/* Sessions that an account has left under ids of its own choice are limited, since nobody tells when one of MQTT 5 ends. */
static void limit_sessions(const char *account)
{
    struct session *session, *oldest = NULL;
    int left = 0;

    for (session = sessions; session; session = session->next)
        if (!session->client && !strcmp(session->account, account)) {
            oldest = session;
            left++;
        }
    if (left > MOST_SESSIONS)
        drop(oldest);
}

static size_t number(const unsigned char *bytes, int count)
{
    size_t value = 0;

    while (count--)
        value = value << 8 | *bytes++;
    return value;
}

/* What the store says of sessions: chunks of kind, length and body behind a header; in it numbers are big-endian. */
static int load_sessions(void)
{
    static const char magic[] = "\0\265\0mosquitto db";
    static unsigned char body[24 + 2 * 65536];
    unsigned char head[23], *id, *account;
    FILE *file = store ? fopen(store, "r") : NULL;
    int result = SUCCESS;

    if (!file)
        return SUCCESS;
    if (fread(head, sizeof head, 1, file) == 1 && !memcmp(head, magic, 15) && number(head + 19, 4) == 6)
        while (!result && fread(head, 8, 1, file) == 1) {
            size_t length = number(head + 4, 4), part, id_length, account_length;
            int client = number(head, 4) == 6 && length >= 24 && length < sizeof body;

            for (; length; length -= part) {
                part = length < sizeof body ? length : sizeof body - 1;
                if (fread(body, part, 1, file) != 1)
                    break;
            }
            if (length)
                break;
            id_length = number(body + 14, 2);
            account_length = number(body + 18, 2);
            if (!client || !id_length || !account_length || 24 + id_length + account_length > number(head + 4, 4))
                continue;
            id = body + 24;
            account = id + id_length;
            account[account_length] = 0;
            memmove(id - 1, id, id_length); /* to make room for its end */
            id[id_length - 1] = 0;
            result = remember((char *)id - 1, (char *)account, NULL);
        }
    fclose(file);
    return result;
}

/* Saving. What a power cut must not cost is in the store at most save_interval seconds after it was acknowledged:

   - Messages that wait: for a client that is offline, or that is connected and has not acknowledged them yet. The plugin
     learns of them from the broker's own figures, which pass on_acl_check on their way to whoever has subscribed to $SYS: more
     messages are in memory than are retained. At rest a message waits for a second, so only what has waited for a quarter of
     the interval counts. If nobody has subscribed to these figures, the store is saved each time.
   - Subscriptions and retained messages, when they change. A retained message that is repeated all the time, such as the status
     of a device, is saved with the others, or when autosave_interval has passed: ten times as long. */
static long save_interval, saved_at, figures_at, waiting_since, in_memory = -1, retained = -1;
static int changed;
static struct { unsigned topic; long at; int times; } repeated[MOST_TOPICS];

static long figure(const struct acl_check *asked)
{
    const char *text = asked->payload;
    long value = 0;
    unsigned i;

    for (i = 0; i < asked->payload_length; i++) {
        if (text[i] < '0' || text[i] > '9' || i > 8)
            return -1;
        value = value * 10 + text[i] - '0';
    }
    return i ? value : -1;
}

static void learn(const struct acl_check *asked)
{
    if (!strcmp(asked->topic, "$SYS/broker/uptime"))
        figures_at = time(NULL);
    else if (!strcmp(asked->topic, "$SYS/broker/store/messages/count"))
        in_memory = figure(asked);
    else if (!strcmp(asked->topic, "$SYS/broker/retained messages/count"))
        retained = figure(asked);
    else
        return;
    if (in_memory < 0 || retained < 0 || in_memory <= retained)
        waiting_since = 0;
    else if (!waiting_since)
        waiting_since = time(NULL);
}

/* Whether a retained message of this topic is one of many. */
static int is_repeated(const char *topic)
{
    unsigned hash = 2166136261u;
    long now = time(NULL);
    int i, oldest = 0;

    while (*topic)
        hash = (hash ^ (unsigned char)*topic++) * 16777619u;
    for (i = 0; i < MOST_TOPICS; i++) {
        if (repeated[i].topic == hash && repeated[i].at) {
            repeated[i].times = now - repeated[i].at <= APART ? repeated[i].times + 1 : 1;
            repeated[i].at = now;
            return repeated[i].times > REPEATED;
        }
        if (repeated[i].at < repeated[oldest].at)
            oldest = i;
    }
    repeated[oldest].topic = hash;
    repeated[oldest].at = now;
    repeated[oldest].times = 1;
    return 0;
}

static void save(void)
{
    long now;

    if (!save_interval)
        return;
    now = time(NULL);
    if (now < saved_at) /* the clock was put back */
        saved_at = now;
    if (now - saved_at < save_interval)
        return;
    if (changed || in_memory < 0 || retained < 0 || now - figures_at > save_interval / 2
        || (waiting_since && now - waiting_since >= save_interval / 4)) {
        saved_at = now;
        changed = 0;
        raise(SAVE);
    }
}

static int on_basic_auth(int event, void *data, void *nothing)
{
    struct basic_auth *asked = data;
    const char *id = mosquitto_client_id(asked->client), *owner;
    struct session *session;

    if (!asked->username || !id)
        return DEFER;
    if (reloading) /* all who are here or away are asked; on_tick puts out who has to go */
        return SUCCESS;
    owner = other_owner(id, asked->username);
    if (!owner && (session = session_of(id, NULL)) && strcmp(session->account, asked->username))
        owner = session->account;
    if (!owner) /* if the password is wrong, on_disconnect follows at once */
        return remember(id, asked->username, asked->client) ? NO_MEMORY : DEFER;
    mosquitto_log_printf(WARNING, "Client id %s belongs to account %s; refused to %s.", id, owner, asked->username);
    return AUTH;
}

/* An account is known to have a session once it subscribes: nothing is kept for it before, and its password was right. */
static void subscribes(const void *client)
{
    struct session *session;

    for (session = sessions; session; session = session->next)
        if (session->client == client)
            session->subscribes = 1;
}

static int on_disconnect(int event, void *data, void *nothing)
{
    const void *client = ((struct disconnect *)data)->client;
    struct session *session = sessions, *other;
    /* Of MQTT 5 it is not known whether the session ends now; it is taken to stay. */
    int stays = !mosquitto_client_clean_session(client) || mosquitto_client_protocol_version(client) == 5;

    while (session && session->client != client)
        session = session->next;
    if (!session)
        return SUCCESS;
    changed = 1;
    other = session_of(session->id, client);
    if (!session->subscribes || (other && other->client)) {
        /* A wrong password; one that kept nothing; or one that another connection of the same account has put out. */
        if (other && session->subscribes)
            other->subscribes = 1;
        drop(session);
    } else if (stays) {
        session->client = NULL;
        if (other)
            drop(other);
        limit_sessions(session->account);
    } else {
        if (other)
            drop(other);
        drop(session);
    }
    return SUCCESS;
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

    if (asked->access == WRITE) {
        subscribing = NULL;
        if (asked->retain && (!is_repeated(asked->topic) || !asked->payload_length))
            changed = 1;
    } else if (asked->access == READ) {
        if (asked->topic[0] == '$')
            learn(asked);
        return asked->retain && asked->client == subscribing && asked->topic[0] != '$' ? ACL_DENIED : DEFER;
    } else if (asked->access == UNSUBSCRIBE)
        changed = 1;
    else if (asked->access == SUBSCRIBE) {
        changed = 1;
        subscribes(asked->client);
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
    save();
    return SUCCESS;
}

static long seconds(const char *text)
{
    long value = 0;

    while (*text >= '0' && *text <= '9' && value < 100000000)
        value = value * 10 + *text++ - '0';
    return value;
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
        else if (!strcmp(options[count].key, "store"))
            store = strdup(options[count].value);
        else if (!strcmp(options[count].key, "save"))
            save_interval = seconds(options[count].value);
    saved_at = time(NULL);
    if (!path) {
        mosquitto_log_printf(ERROR, "plugin_opt_accounts is not set.");
        return INVALID;
    }
    if ((result = load(&facts))) {
        mosquitto_log_printf(ERROR, "%s cannot be read.", path);
        return result;
    }
    if ((result = load_sessions())
        || (result = mosquitto_callback_register(plugin, DISCONNECT, on_disconnect, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, BASIC_AUTH, on_basic_auth, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, ACL_CHECK, on_acl_check, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, RELOAD, on_reload, NULL, NULL))
        || (result = mosquitto_callback_register(plugin, TICK, on_tick, NULL, NULL)))
        return result;
    return SUCCESS;
}

int mosquitto_plugin_cleanup(void *user_data, struct option *options, int count)
{
    forget(facts);
    while (sessions)
        drop(sessions);
    free(path);
    free(store);
    return SUCCESS;
}
