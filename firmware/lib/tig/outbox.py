"""What is sent next: the status, a report of the last crash, an answer, a reading, and last one that is sent again.

One message is under way at a time.

Each source of messages has

    BRANCH                  below the device's topic
    RETAINED                whether the broker keeps its last message
    REPEATABLE              whether its message is still the same when it is sent again
    welcome()               the broker has accepted the device
    due()                   whether there is something to send
    message()               bytes; None if there is nothing to send after all
    acknowledged()          the broker has its message
"""


class Outbox:
    def __init__(self, connection, topic, status, crash, commands, readings, replay):
        self._connection = connection
        self._topic = topic
        self._status = status
        self._readings = readings
        self._others = (crash, commands)
        self._replay = replay
        self._again = False
        self._status_was_last = False
        self.sending = None  # the source whose message is under way

    def welcome(self):
        """A new connection: what was under way goes first, then the status."""
        self._again = self.sending is not None
        self._status_was_last = False
        for source in (self._status, self._readings, self._replay) + self._others:
            source.welcome()

    def acknowledged(self):
        source = self.sending
        self.sending = None
        source.acknowledged()

    def send_next(self):
        """Start to send the next message; False if there is none."""
        source = self.sending
        again = self._again and source.REPEATABLE
        self._again = False
        message = source and source.message()
        while message is None:
            again = False
            source = self._next()
            if source is None:
                self.sending = None
                return False
            message = source.message()
        self.sending = source
        if source not in self._others:
            self._status_was_last = source is self._status
        self._connection.publish(self._topic + source.BRANCH, message, source.RETAINED, again)
        return True

    def _next(self):
        # A broker that takes a minute for each message would otherwise get nothing but the status.
        reading = self._readings.due()
        if self._status.due(reading) and not (self._status_was_last and reading):
            return self._status
        for source in self._others + (self._readings, self._replay):
            if source.due():
                return source
        return None
