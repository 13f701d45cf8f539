"""The connection to the broker, and when to try again after it failed."""

from tig import log
from tig.address import Address
from tig.backoff import Backoff
from tig.commands import Commands
from tig.errors import words
from tig.mqtt import Client
from tig.status import OFFLINE, Status


class Connection:
    def __init__(self, settings, uid, take):
        """take(payload, retained): a message on the topic of commands arrived; payload None: it was too large."""
        broker = settings["broker"]
        self._address = Address(broker["host"], broker["port"])
        self._client = Client(
            settings["name"] + "-" + uid[-6:],
            broker["user"],
            broker["password"],
            broker["keepalive"],
            settings["topic"] + Status.BRANCH,
            OFFLINE,
            settings["topic"] + Commands.TOPIC,
            take,
        )
        self._pause = Backoff(1000, 60000)
        self.name = "%s:%d" % (broker["host"], broker["port"])
        self.open = False  # begun, and not closed since

    @property
    def ready(self):
        """Whether the broker has accepted the device."""
        return self._client.ready

    def begin(self, room_ms):
        """Connect if it is time to, and there is room for it; whether it did. Raises OSError or MqttError."""
        if not self._address.fits(room_ms) or not self._pause.due():
            return False
        self.open = True
        self._client.connect(self._address.get())
        return True

    def step(self):
        """Whether the message under way was acknowledged. Raises OSError or MqttError."""
        return self._client.step()

    def publish(self, topic, message, retain, again):
        self._client.publish(topic, message, retain, again)

    def works(self):
        """A message was acknowledged: the next failure is the first one."""
        self._pause.reset()

    def close(self):
        """Wi-Fi is gone, and the connection with it."""
        if self.open:
            self.open = False
            self._client.close()
            log.say("broker: disconnected")

    def fail(self, error):
        """The connection failed; returns how many times in a row."""
        if not self._client.ready:
            self._address.doubt()
        self.open = False
        self._client.close()
        pause = self._pause.fail()
        log.say("broker: %s, next attempt in %d s" % (words(error), (pause + 999) // 1000))
        return self._pause.failures
