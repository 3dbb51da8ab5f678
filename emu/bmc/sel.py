"""The system event log.

IPMI v2.0, "System Event Log (SEL)" and "SEL Record Formats": 16-byte records, oldest first.
"""

from typing import Any, NamedTuple

__all__ = ["Record", "Sel"]

CAPACITY = 512
SYSTEM_EVENT = 0x02
OEM_UNTIMED = 0xE0  # record types from here on have no timestamp


class Record(NamedTuple):
    """An entry, as its 16 bytes."""

    data: bytes

    @property
    def id(self) -> int:
        return int.from_bytes(self.data[:2], "little")

    @property
    def type(self) -> int:
        return self.data[2]

    @property
    def timestamp(self) -> int:
        """Seconds since 1970."""
        return int.from_bytes(self.data[3:7], "little")

    @property
    def sensor_type(self) -> int:
        return self.data[10]

    @property
    def sensor(self) -> int:
        return self.data[11]

    @property
    def asserted(self) -> bool:
        return not self.data[12] & 0x80

    @property
    def event_type(self) -> int:
        return self.data[12] & 0x7F

    @property
    def event_data(self) -> bytes:
        return self.data[13:]


class Sel:
    """The log. When it is full, further events are dropped and `overflow` is set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.next_id = 1
        self.reservation = 0
        self.last_addition = 0xFFFFFFFF  # seconds since 1970
        self.last_erase = 0xFFFFFFFF
        self.overflow = False

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Any:
        return iter(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    @property
    def free(self) -> int:
        """Records that there is room for."""
        return CAPACITY - len(self.records)

    def add(self, record: bytes, now: int) -> int | None:
        """Adds 16 bytes, whose first two become the record's number; None where the log is full.

        Types below E0h get the time `now`.
        """
        if not self.free:
            self.overflow = True
            return None
        number = self.next_id
        self.next_id = self.next_id % 0xFFFE + 1
        stamp = now.to_bytes(4, "little") if record[2] < OEM_UNTIMED else record[3:7]
        self.records.append(Record(number.to_bytes(2, "little") + record[2:3] + stamp + record[7:16]))
        self.last_addition = now
        return number

    def find(self, number: int) -> int | None:
        """The place of a record: by its number, 0 the oldest, FFFFh the newest."""
        if not self.records:
            return None
        if number in (0, 0xFFFF):
            return 0 if number == 0 else len(self.records) - 1
        return next((at for at, record in enumerate(self.records) if record.id == number), None)

    def reserve(self) -> int:
        """A new reservation, which ends the one before."""
        self.reservation = self.reservation % 0xFFFF + 1
        return self.reservation

    def delete(self, at: int, now: int) -> int:
        """Deletes the record at a place; returns its number."""
        number = self.records.pop(at).id
        self.last_erase = now
        self.reserve()
        return number

    def clear(self, now: int) -> None:
        """Deletes everything."""
        self.records.clear()
        self.overflow = False
        self.last_erase = now
        self.reserve()
