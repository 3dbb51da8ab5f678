"""Threshold sensors and the records that describe them.

IPMI v2.0, "Sensor and Event Code Tables", "Sensor Data Record Formats": full sensor record (type 01h), FRU device
locator (11h), management controller device locator (12h). A reading y is (M x) 10^R of the raw byte x.
"""

from collections.abc import Callable, Mapping

__all__ = ["THRESHOLDS", "Sensor", "controller_record", "default_sensors", "fru_record"]

BMC_ADDRESS = 0x20
TEMPERATURE, VOLTAGE, FAN = 1, 2, 4  # sensor types
DEGREES_C, VOLTS, RPM = 1, 4, 18  # units
THRESHOLDS = ("lnc", "lc", "lnr", "unc", "uc", "unr")  # lower and upper non-critical, critical, non-recoverable
LOWER = 3  # the first three are lower ones
OFFSETS = (0, 2, 4, 7, 9, 11)  # the events: lower ones going low, upper ones going high
EVENTS = sum(1 << offset for offset in OFFSETS)


class Sensor:
    """One sensor. Assign `value` what it measures: a threshold that is crossed is an event.

    Args:
        name: at most 16 characters.
        number: unique.
        type, unit: of IPMI's tables.
        entity: what it belongs to, by IPMI's table of entity IDs.
        m, exponent: a raw reading x means m x 10^exponent units.
        reading: in units, at first.
        limits: thresholds in units by name: lnc, lc, lnr, unc, uc, unr; what is left out does not exist.
        signed: raw readings are two's complement.
        hysteresis: raw; how far a reading must come back before an event is over.
    """

    def __init__(
        self, name: str, number: int, type: int, unit: int, entity: int, m: int, exponent: int, reading: float,
        limits: Mapping[str, float], signed: bool = False, hysteresis: int = 1,
    ) -> None:  # fmt: skip
        self.name, self.number, self.type, self.unit, self.entity = name, number, type, unit, entity
        self.m, self.exponent, self.signed, self.hysteresis = m, exponent, signed, hysteresis
        self.supported = sum(1 << at for at, limit in enumerate(THRESHOLDS) if limit in limits)
        self.thresholds = [self.to_raw(limits.get(limit, 0)) for limit in THRESHOLDS]
        self.active = 0  # bit n: threshold n is crossed
        self.events_on = self.scanning = True
        self.events = sum(1 << OFFSETS[at] for at in range(6) if self.supported >> at & 1)
        self.assertion_mask = self.deassertion_mask = self.events
        self.raw = self.nominal = self.to_raw(reading)
        self.changed: Callable[[Sensor], None] | None = None

    @property
    def value(self) -> float:
        """What it measures, in its unit, as exactly as a raw byte can tell."""
        return self.number_of(self.raw) * self.m * 10.0**self.exponent

    @value.setter
    def value(self, value: float) -> None:
        self.raw = self.to_raw(value)
        if self.changed is not None:
            self.changed(self)

    def to_raw(self, value: float) -> int:
        """The raw byte nearest to a value; what lies outside its range becomes the nearest end."""
        low, high = (-128, 127) if self.signed else (0, 255)
        exact = value / (self.m * 10.0**self.exponent)
        if exact != exact:
            raise ValueError("a reading that is no number")
        return round(min(max(exact, low), high)) & 0xFF

    def number_of(self, raw: int) -> int:
        """A raw byte as a number."""
        return raw - 256 if self.signed and raw > 127 else raw

    def crossed(self, at: int) -> bool:
        """Whether threshold `at` is crossed now; one that was stays so until the reading is back by the hysteresis."""
        reading, threshold = self.number_of(self.raw), self.number_of(self.thresholds[at])
        back = self.hysteresis if self.active >> at & 1 else 0
        return reading <= threshold + back if at < LOWER else reading >= threshold - back

    @property
    def status(self) -> int:
        """Which thresholds the reading lies at or beyond, without hysteresis."""
        now = 0
        for at in range(6):
            reading, threshold = self.number_of(self.raw), self.number_of(self.thresholds[at])
            if self.supported >> at & 1 and (reading <= threshold if at < LOWER else reading >= threshold):
                now |= 1 << at
        return now

    def update(self) -> list[tuple[int, bool]]:
        """Works out what has been crossed since the last call: (threshold, whether asserted)."""
        found = []
        for at in range(6):
            if self.supported >> at & 1 and self.scanning:
                crossed = self.crossed(at)
                if crossed != bool(self.active >> at & 1):
                    self.active ^= 1 << at
                    found.append((at, crossed))
        return found

    def record(self, number: int) -> bytes:
        """The full sensor record."""
        lower, upper = self.supported & 7, self.supported >> 3
        name = self.name.encode("ascii")
        body = bytes((BMC_ADDRESS, 0, self.number, self.entity, 1, 0x7F, 0x68, self.type, 0x01))
        body += (self.events | lower << 12).to_bytes(2, "little")
        body += (self.events | upper << 12).to_bytes(2, "little")
        body += bytes((self.supported, self.supported, 0x80 if self.signed else 0, self.unit, 0, 0))
        body += bytes((self.m & 0xFF, self.m >> 8 << 6, 0, 0, 0, (self.exponent & 15) << 4))
        low, high = (0x80, 0x7F) if self.signed else (0x00, 0xFF)
        body += bytes((0x01, self.nominal, 0, 0, high, low))
        body += bytes(self.thresholds[at] for at in (5, 4, 3, 2, 1, 0))
        body += bytes((self.hysteresis, self.hysteresis, 0, 0, 0, 0xC0 | len(name)))
        return header(number, 0x01, body + name)


def header(number: int, kind: int, body: bytes) -> bytes:
    """A record with its header: SDR version 1.5."""
    return number.to_bytes(2, "little") + bytes((0x51, kind, len(body))) + body


def controller_record(number: int) -> bytes:
    """The record that says where the controller is and what it does: all but events from and bridges to elsewhere."""
    name = b"BMC"
    return header(number, 0x12, bytes((BMC_ADDRESS, 0, 0, 0x8F, 0, 0, 0, 0x2E, 1, 0, 0xC0 | len(name))) + name)


def fru_record(number: int) -> bytes:
    """The record of the board's FRU inventory, device 0 of the controller."""
    name = b"System board"
    return header(
        number, 0x11, bytes((BMC_ADDRESS, 0, 0x80, 0, 0, 0x10, 0, 7, 1, 0, 0xC0 | len(name))) + name
    )  # fmt: skip


def default_sensors() -> list[Sensor]:
    """What a small server's board has."""

    def volts(name: str, number: int, nominal: float, m: int) -> Sensor:
        limits = {"lnr": 0.85, "lc": 0.90, "lnc": 0.95, "unc": 1.05, "uc": 1.10, "unr": 1.15}
        scaled = {key: factor * nominal for key, factor in limits.items()}
        return Sensor(name, number, VOLTAGE, VOLTS, 7, m, -3, nominal, scaled)

    hot = {"lnc": 5, "lc": 0, "unc": 65, "uc": 75, "unr": 85}
    slow = {"lnc": 1000, "lc": 500}
    return [
        Sensor(
            "CPU temperature", 1, TEMPERATURE, DEGREES_C, 3, 1, 0, 40, {**hot, "unc": 80, "uc": 90, "unr": 100}, True
        ),
        Sensor("Board temp", 2, TEMPERATURE, DEGREES_C, 7, 1, 0, 30, hot, True),
        volts("12 V", 3, 12.0, 63),
        volts("5 V", 4, 5.0, 26),
        volts("3.3 V", 5, 3.3, 17),
        volts("CPU core", 6, 1.65, 10),
        Sensor("Battery", 7, VOLTAGE, VOLTS, 40, 16, -3, 3.0, {"lnc": 2.7, "lc": 2.5}),
        Sensor("CPU fan", 8, FAN, RPM, 29, 50, 0, 4000, slow),
        Sensor("System fan", 9, FAN, RPM, 29, 50, 0, 3000, slow),
    ]
