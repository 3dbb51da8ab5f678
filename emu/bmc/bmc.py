"""The management controller: IPMI messages in, responses out.

IPMI v2.0, "IPM Device Global Commands", "IPMI Messaging Support Commands", "BMC Watchdog Timer Commands", "Chassis
Commands", "SEL Commands", "SDR Repository Commands", "FRU Inventory Device Commands", "Sensor Device Commands".
"""

from collections.abc import Callable
from typing import Any

from emu._core import Clock, Device
from emu.bmc.fru import inventory
from emu.bmc.sel import CAPACITY, Record, Sel
from emu.bmc.sensors import BMC_ADDRESS, OFFSETS, Sensor, controller_record, default_sensors, fru_record
from emu.errors import BadInput

__all__ = ["Bmc"]

CHASSIS, SENSOR_EVENT, APP, STORAGE = 0x00, 0x04, 0x06, 0x0A  # network functions of requests
# Completion codes.
OK = 0x00
ERASING = 0x81  # of the SEL commands
NOT_INITIALIZED = 0x80  # of Reset Watchdog Timer
NO_DATA = 0x80  # of Get Message and Read Event Message Buffer
INVALID_COMMAND = 0xC1
INVALID_FOR_LUN = 0xC2
OUT_OF_SPACE = 0xC4
RESERVATION_LOST = 0xC5
BAD_LENGTH = 0xC7
OUT_OF_RANGE = 0xC9
TOO_MUCH = 0xCA
NOT_PRESENT = 0xCB
INVALID_FIELD = 0xCC

EPOCH = 946_684_800  # its clock begins at 2000-01-01, as the machine's does
ERASE_SECONDS = 0.050
ACTION_SECONDS = 0.010  # from a chassis command's response to what it does
SOFTWARE_ID = 0x41  # generator of events that system software added
EVENT_ACTION, EVENT_WATCHDOG, EVENT_PRETIMEOUT = 0, 1, 2
POWER_DOWN, POWER_UP, POWER_CYCLE, HARD_RESET, SOFT_OFF = 0, 1, 2, 3, 5  # Chassis Control
RESTARTS = {HARD_RESET: 1, POWER_CYCLE: 1}
WATCHDOG_SENSOR = 0xFE
FLAG_EVENT_BUFFER, FLAG_PRETIMEOUT = 0x02, 0x08
ENABLE_EVENT_BUFFER, ENABLE_LOG = 0x04, 0x08
DONT_LOG, DONT_STOP, RUNNING = 0x80, 0x40, 0x40
THIS_CHANNEL, SYSTEM_INTERFACE = 0x0E, 0x0F  # channel numbers
READ_MOST = 0x20  # bytes of an SDR or FRU that one response carries

Handler = Callable[["Bmc", bytes], bytes]
COMMANDS: dict[tuple[int, int], tuple[Handler, int, int]] = {}


class Refused(Exception):
    """A completion code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#x}")
        self.code = code


def command(netfn: int, number: int, least: int = 0, most: int | None = None) -> Callable[[Handler], Handler]:
    """Enters a handler for a command that takes so many bytes of data."""

    def enter(handler: Handler) -> Handler:
        COMMANDS[netfn, number] = handler, least, least if most is None else most
        return handler

    return enter


def word(data: bytes, at: int = 0) -> int:
    """A 16-bit field."""
    return int.from_bytes(data[at : at + 2], "little")


class Bmc(Device):
    """A management controller. Reset of the system leaves it alone but for its watchdog.

    Wires: RESET and PWRBTN (pulses), POWER_OFF.

    Args:
        clock: the machine's clock.
        name: unique on the board.

    Attributes:
        sensors: by name; assign a sensor's `value` what it measures.
        sel: the system event log.
    """

    outputs = ("RESET", "POWER_OFF", "PWRBTN")

    def __init__(self, clock: Clock, name: str = "bmc") -> None:
        self.sensors: dict[str, Sensor] = {sensor.name: sensor for sensor in default_sensors()}
        self.by_number = {sensor.number: sensor for sensor in self.sensors.values()}
        for sensor in self.sensors.values():
            sensor.changed = self.sensor_changed
        self.sel = Sel()
        self.fru = inventory()
        self.sdr_reservation = 0
        self.time_offset = EPOCH  # what its clock shows at cycle 0
        self.erased_at = 0  # the cycle at which the log is erased
        self.enables = ENABLE_LOG
        self.flags = 0
        self.event_buffer = b""
        self.action = HARD_RESET
        self.restart_cause = 0
        self.restore_policy = 0
        self.boot_options: dict[int, bytes] = {}
        self.attend: Callable[[bool], None] = lambda _: None  # SMS_ATN
        self.watchdog_use = self.watchdog_actions = self.watchdog_pretimeout = self.watchdog_flags = 0
        self.watchdog_count = 0
        self.watchdog_set = False
        self.watchdog_end: int | None = None  # the cycle at which it expires

    # What the host and the board call.

    def handle(self, request: bytes) -> bytes:
        """Answers a message (network function and LUN, command, data); a completion code comes before the data."""
        netfn, lun, number, data = request[0] >> 2, request[0] & 3, request[1], request[2:]
        start = bytes(((netfn | 1) << 2 | lun, number))
        handler, least, most = COMMANDS.get((netfn, number), (None, 0, 0))
        if handler is None:
            return start + bytes((INVALID_COMMAND,))
        if lun != 0:
            return start + bytes((INVALID_FOR_LUN,))
        if not least <= len(data) <= most:
            return start + bytes((BAD_LENGTH,))
        try:
            return start + bytes((OK,)) + handler(self, data)
        except Refused as refused:
            return start + bytes((refused.code,))

    def reset(self) -> None:
        """The system was reset: the watchdog stops, all else stays."""
        self.stop_watchdog()

    @property
    def now(self) -> int:
        """Its clock: seconds since 1970."""
        return (self.time_offset + self.clock.cycle // self.clock.hz) & 0xFFFFFFFF

    def after(self, seconds: float) -> int:
        """The cycle at which so many seconds have passed."""
        return self.clock.cycle + round(seconds * self.clock.hz)

    def event(self, id: int) -> None:
        if id == EVENT_ACTION:
            self.act(self.action)
        elif id == EVENT_WATCHDOG:
            self.watchdog_expired()
        elif id == EVENT_PRETIMEOUT:
            self.raise_flag(FLAG_PRETIMEOUT)

    def act(self, action: int) -> None:
        """Does to the machine what a command or the watchdog asked for."""
        wire = {POWER_DOWN: "POWER_OFF", SOFT_OFF: "PWRBTN"}.get(action, "RESET")
        self.raise_irq(wire)
        self.lower_irq(wire)

    def raise_flag(self, flag: int) -> None:
        """Sets a message flag, or with 0 only SMS_ATN by the flags."""
        self.flags |= flag
        self.attend(self.flags != 0)

    # Events.

    def sensor_changed(self, sensor: Sensor) -> None:
        """Logs what the new reading crosses."""
        for at, asserted in sensor.update():
            mask = sensor.assertion_mask if asserted else sensor.deassertion_mask
            if sensor.events_on and mask >> OFFSETS[at] & 1:
                data = bytes((0x50 | OFFSETS[at], sensor.raw, sensor.thresholds[at]))
                self.log(sensor.type, sensor.number, 0x01, asserted, data)

    def log(self, sensor_type: int, sensor: int, event_type: int, asserted: bool, data: bytes) -> None:
        """An event of the controller's own."""
        direction = event_type | (0 if asserted else 0x80)
        self.store(bytes((BMC_ADDRESS, 0, 0x04, sensor_type, sensor, direction)) + data)

    def store(self, event: bytes) -> None:
        """Puts an event, from generator ID to event data, into the log and the event message buffer, as enabled."""
        record = bytes((0, 0, 0x02)) + self.now.to_bytes(4, "little") + event
        if self.enables & ENABLE_LOG:
            self.sel.add(record, self.now)
        if self.enables & ENABLE_EVENT_BUFFER and not self.flags & FLAG_EVENT_BUFFER:
            self.event_buffer = record
            self.raise_flag(FLAG_EVENT_BUFFER)

    # IPM device global commands, messaging.

    @command(APP, 0x01)
    def get_device_id(self, _: bytes) -> bytes:
        return bytes((0x20, 0x01, 0x01, 0x00, 0x02, 0x8F, 0, 0, 0, 0, 0, 0, 0, 0, 0))

    @command(APP, 0x04)
    def get_self_test_results(self, _: bytes) -> bytes:
        return b"\x55\x00"

    @command(APP, 0x08)
    def get_device_guid(self, _: bytes) -> bytes:
        return bytes.fromhex("0102030405060708090a0b0c0d0e0f10")

    @command(APP, 0x37)
    def get_system_guid(self, _: bytes) -> bytes:
        return bytes.fromhex("1112131415161718191a1b1c1d1e1f20")

    @command(APP, 0x2E, 1)
    def set_global_enables(self, data: bytes) -> bytes:
        if data[0] & 0x12:  # bit 4 is reserved; there is no event message interrupt
            raise Refused(INVALID_FIELD)
        self.enables = data[0]
        return b""

    @command(APP, 0x2F)
    def get_global_enables(self, _: bytes) -> bytes:
        return bytes((self.enables,))

    @command(APP, 0x30, 1)
    def clear_message_flags(self, data: bytes) -> bytes:
        self.flags &= ~data[0]
        self.raise_flag(0)
        return b""

    @command(APP, 0x31)
    def get_message_flags(self, _: bytes) -> bytes:
        return bytes((self.flags,))

    @command(APP, 0x33)
    def get_message(self, _: bytes) -> bytes:
        raise Refused(NO_DATA)  # nobody sends it any

    @command(APP, 0x35)
    def read_event_message_buffer(self, _: bytes) -> bytes:
        if not self.flags & FLAG_EVENT_BUFFER:
            raise Refused(NO_DATA)
        self.flags &= ~FLAG_EVENT_BUFFER
        self.raise_flag(0)
        return self.event_buffer

    @command(APP, 0x42, 1)
    def get_channel_info(self, data: bytes) -> bytes:
        if data[0] & 15 not in (THIS_CHANNEL, SYSTEM_INTERFACE):
            raise Refused(INVALID_FIELD)
        # Medium: system interface; protocol: KCS; no sessions; IPMI's own vendor number; no interrupts.
        return bytes((SYSTEM_INTERFACE, 0x0C, 0x05, 0x00, 0xF2, 0x1B, 0x00, 0xFF, 0xFF))

    # Watchdog.

    @command(APP, 0x24, 6)
    def set_watchdog(self, data: bytes) -> bytes:
        if not 1 <= data[0] & 7 <= 5 or data[1] & 7 > 3 or data[1] >> 4 & 7 not in (0, 3):
            raise Refused(INVALID_FIELD)
        if data[1] >> 4 and data[2] * 10 > word(data, 4):
            raise Refused(INVALID_FIELD)  # the pre-timeout would come before the timer starts
        keep_running = data[0] & DONT_STOP and self.watchdog_end is not None
        self.watchdog_use, self.watchdog_actions, self.watchdog_pretimeout = data[0] & 0x87, data[1] & 0x77, data[2]
        self.watchdog_flags &= ~data[3]
        self.watchdog_count = word(data, 4)
        self.watchdog_set = True
        self.flags &= ~FLAG_PRETIMEOUT
        self.raise_flag(0)
        if keep_running:
            self.start_watchdog()
        else:
            self.stop_watchdog()
        return b""

    @command(APP, 0x25)
    def get_watchdog(self, _: bytes) -> bytes:
        left = self.watchdog_count
        if self.watchdog_end is not None:
            left = max(0, self.watchdog_end - self.clock.cycle) * 10 // self.clock.hz
        use = self.watchdog_use | (RUNNING if self.watchdog_end is not None else 0)
        return (
            bytes((use, self.watchdog_actions, self.watchdog_pretimeout, self.watchdog_flags))
            + self.watchdog_count.to_bytes(2, "little") + left.to_bytes(2, "little")
        )  # fmt: skip

    @command(APP, 0x22)
    def reset_watchdog(self, _: bytes) -> bytes:
        if not self.watchdog_set:
            raise Refused(NOT_INITIALIZED)
        self.start_watchdog()
        return b""

    def start_watchdog(self) -> None:
        """From its whole count."""
        self.watchdog_end = self.after(self.watchdog_count / 10)
        self.schedule(EVENT_WATCHDOG, self.watchdog_end)
        self.cancel(EVENT_PRETIMEOUT)
        if self.watchdog_actions >> 4:
            self.schedule(EVENT_PRETIMEOUT, self.watchdog_end - self.watchdog_pretimeout * self.clock.hz)

    def stop_watchdog(self) -> None:
        self.watchdog_end = None
        self.cancel(EVENT_WATCHDOG)
        self.cancel(EVENT_PRETIMEOUT)

    def watchdog_expired(self) -> None:
        use, action = self.watchdog_use, self.watchdog_actions & 7
        self.stop_watchdog()
        self.watchdog_flags |= 1 << (use & 7)
        if not use & DONT_LOG:
            self.log(0x23, WATCHDOG_SENSOR, 0x6F, True, bytes((0xC0 | action, use & 7, 0xFF)))
        if action:
            self.restart_cause = 4
            self.act({1: HARD_RESET, 2: POWER_DOWN, 3: POWER_CYCLE}[action])

    # Chassis.

    @command(CHASSIS, 0x00)
    def get_chassis_capabilities(self, _: bytes) -> bytes:
        return bytes((0, *[BMC_ADDRESS] * 5))

    @command(CHASSIS, 0x01)
    def get_chassis_status(self, _: bytes) -> bytes:
        return bytes((0x01 | self.restore_policy << 5, 0, 0))

    @command(CHASSIS, 0x02, 1)
    def chassis_control(self, data: bytes) -> bytes:
        action = data[0] & 15
        if action not in (POWER_DOWN, POWER_UP, POWER_CYCLE, HARD_RESET, SOFT_OFF):
            raise Refused(INVALID_FIELD)
        if action != POWER_UP:  # it is up, or nobody could ask
            self.action = action
            self.restart_cause = RESTARTS.get(action, self.restart_cause)
            self.schedule(EVENT_ACTION, self.after(ACTION_SECONDS))
        return b""

    @command(CHASSIS, 0x04, 0, 2)
    def chassis_identify(self, _: bytes) -> bytes:
        return b""

    @command(CHASSIS, 0x06, 1)
    def set_power_restore_policy(self, data: bytes) -> bytes:
        if data[0] & 7 < 3:
            self.restore_policy = data[0] & 7
        elif data[0] & 7 > 3:
            raise Refused(INVALID_FIELD)
        return bytes((0x07,))

    @command(CHASSIS, 0x07)
    def get_system_restart_cause(self, _: bytes) -> bytes:
        return bytes((self.restart_cause, 0))

    @command(CHASSIS, 0x08, 1, 20)
    def set_boot_options(self, data: bytes) -> bytes:
        if data[0] & 0x7F > 5:
            raise Refused(0x80)  # parameter not supported
        if len(data) > 1:
            self.boot_options[data[0] & 0x7F] = data[1:]
        return b""

    @command(CHASSIS, 0x09, 3)
    def get_boot_options(self, data: bytes) -> bytes:
        number = data[0] & 0x7F
        if number > 5:
            raise Refused(0x80)
        default = bytes({3: 1, 4: 2, 5: 5}.get(number, 1))
        return bytes((0x01, number)) + self.boot_options.get(number, default)

    @command(CHASSIS, 0x0F)
    def get_poh_counter(self, _: bytes) -> bytes:
        return bytes((60,)) + (self.clock.cycle // self.clock.hz // 3600).to_bytes(4, "little")

    # The event log.

    def sel_idle(self) -> None:
        if self.clock.cycle < self.erased_at:
            raise Refused(ERASING)

    def check_sel_reservation(self, data: bytes) -> None:
        if not word(data) or word(data) != self.sel.reservation:
            raise Refused(RESERVATION_LOST)

    @command(STORAGE, 0x40)
    def get_sel_info(self, _: bytes) -> bytes:
        sel = self.sel
        return (
            b"\x51" + len(sel).to_bytes(2, "little") + (16 * sel.free).to_bytes(2, "little")
            + sel.last_addition.to_bytes(4, "little") + sel.last_erase.to_bytes(4, "little")
            + bytes((0x0B | (0x80 if sel.overflow else 0),))
        )  # fmt: skip

    @command(STORAGE, 0x41)
    def get_sel_allocation(self, _: bytes) -> bytes:
        free = self.sel.free.to_bytes(2, "little")
        return CAPACITY.to_bytes(2, "little") + b"\x10\0" + free + free + b"\x01"

    @command(STORAGE, 0x42)
    def reserve_sel(self, _: bytes) -> bytes:
        self.sel_idle()
        return self.sel.reserve().to_bytes(2, "little")

    @command(STORAGE, 0x43, 6)
    def get_sel_entry(self, data: bytes) -> bytes:
        self.sel_idle()
        offset, count = data[4], data[5]
        if offset:
            self.check_sel_reservation(data)
        at = self.sel.find(word(data, 2))
        if at is None:
            raise Refused(NOT_PRESENT)
        if offset > 16 or (count != 0xFF and offset + count > 16):
            raise Refused(OUT_OF_RANGE)
        following = self.sel[at + 1].id if at + 1 < len(self.sel) else 0xFFFF
        part = self.sel[at].data[offset:]
        return following.to_bytes(2, "little") + (part if count == 0xFF else part[:count])

    @command(STORAGE, 0x44, 16)
    def add_sel_entry(self, data: bytes) -> bytes:
        self.sel_idle()
        number = self.sel.add(data, self.now)
        if number is None:
            raise Refused(OUT_OF_SPACE)
        return number.to_bytes(2, "little")

    @command(STORAGE, 0x46, 4)
    def delete_sel_entry(self, data: bytes) -> bytes:
        self.sel_idle()
        self.check_sel_reservation(data)
        at = self.sel.find(word(data, 2))
        if at is None:
            raise Refused(NOT_PRESENT)
        return self.sel.delete(at, self.now).to_bytes(2, "little")

    @command(STORAGE, 0x47, 6)
    def clear_sel(self, data: bytes) -> bytes:
        if data[2:5] != b"CLR" or data[5] not in (0x00, 0xAA):
            raise Refused(INVALID_FIELD)
        if data[5] == 0xAA:
            self.sel_idle()
            self.check_sel_reservation(data)
            self.sel.clear(self.now)
            self.erased_at = self.after(ERASE_SECONDS)
        return bytes((0 if self.clock.cycle < self.erased_at else 1,))

    @command(STORAGE, 0x48)
    def get_sel_time(self, _: bytes) -> bytes:
        return self.now.to_bytes(4, "little")

    @command(STORAGE, 0x49, 4)
    def set_sel_time(self, data: bytes) -> bytes:
        self.time_offset = int.from_bytes(data, "little") - self.clock.cycle // self.clock.hz
        return b""

    # The sensor data records.

    def records(self) -> list[bytes]:
        """All of them; a record's number is its place, from 1."""
        made = [controller_record(1), fru_record(2)]
        return made + [sensor.record(3 + at) for at, sensor in enumerate(self.sensors.values())]

    @command(STORAGE, 0x20)
    def get_sdr_info(self, _: bytes) -> bytes:
        stamp = EPOCH.to_bytes(4, "little")
        return b"\x51" + len(self.records()).to_bytes(2, "little") + b"\0\0" + stamp + stamp + b"\x02"

    @command(STORAGE, 0x22)
    def reserve_sdr(self, _: bytes) -> bytes:
        self.sdr_reservation = self.sdr_reservation % 0xFFFF + 1
        return self.sdr_reservation.to_bytes(2, "little")

    @command(STORAGE, 0x23, 6)
    def get_sdr(self, data: bytes) -> bytes:
        records = self.records()
        number, offset, count = word(data, 2), data[4], data[5]
        if (offset or word(data)) and (not word(data) or word(data) != self.sdr_reservation):
            raise Refused(RESERVATION_LOST)
        number = {0: 1, 0xFFFF: len(records)}.get(number, number)
        if not 1 <= number <= len(records):
            raise Refused(NOT_PRESENT)
        record = records[number - 1]
        if offset > len(record):
            raise Refused(OUT_OF_RANGE)
        left = len(record) - offset
        if min(left, count) > READ_MOST:
            raise Refused(TOO_MUCH)
        following = number + 1 if number < len(records) else 0xFFFF
        return following.to_bytes(2, "little") + record[offset : offset + count]

    # The FRU inventory.

    @command(STORAGE, 0x10, 1)
    def get_fru_area(self, data: bytes) -> bytes:
        if data[0]:
            raise Refused(NOT_PRESENT)
        return len(self.fru).to_bytes(2, "little") + b"\0"

    @command(STORAGE, 0x11, 4)
    def read_fru(self, data: bytes) -> bytes:
        offset, count = word(data, 1), data[3]
        if data[0]:
            raise Refused(NOT_PRESENT)
        if offset >= len(self.fru):
            raise Refused(OUT_OF_RANGE)
        if count > READ_MOST:
            raise Refused(TOO_MUCH)
        part = self.fru[offset : offset + count]
        return bytes((len(part),)) + part

    # Sensors.

    def sensor(self, data: bytes) -> Sensor:
        """The sensor whose number is the first byte."""
        if data[0] not in self.by_number:
            raise Refused(NOT_PRESENT)
        return self.by_number[data[0]]

    @command(SENSOR_EVENT, 0x02, 8)
    def platform_event(self, data: bytes) -> bytes:
        """From system software: generator, EvM revision, sensor type and number, direction and type, event data."""
        self.store(bytes((data[0] or SOFTWARE_ID, 0)) + data[1:])
        return b""

    @command(SENSOR_EVENT, 0x24, 4)
    def set_hysteresis(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        if data[1] != 0xFF or data[2] != data[3]:
            raise Refused(INVALID_FIELD)  # one hysteresis serves both ways
        sensor.hysteresis = data[2]
        self.sensor_changed(sensor)
        return b""

    @command(SENSOR_EVENT, 0x25, 2)
    def get_hysteresis(self, data: bytes) -> bytes:
        return bytes((self.sensor(data).hysteresis,) * 2)

    @command(SENSOR_EVENT, 0x26, 8)
    def set_thresholds(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        if data[1] & ~sensor.supported:
            raise Refused(INVALID_FIELD)
        for at in range(6):
            if data[1] >> at & 1:
                sensor.thresholds[at] = data[2 + at]
        self.sensor_changed(sensor)
        return b""

    @command(SENSOR_EVENT, 0x27, 1)
    def get_thresholds(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        values = (value if sensor.supported >> at & 1 else 0 for at, value in enumerate(sensor.thresholds))
        return bytes((sensor.supported, *values))

    @command(SENSOR_EVENT, 0x28, 2, 6)
    def set_event_enable(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        sensor.events_on, sensor.scanning = bool(data[1] & 0x80), bool(data[1] & 0x40)
        masks = data[2:].ljust(4, b"\0")
        up, down = word(masks) & sensor.events, word(masks, 2) & sensor.events
        if data[1] >> 4 & 3 == 1:
            sensor.assertion_mask, sensor.deassertion_mask = sensor.assertion_mask | up, sensor.deassertion_mask | down
        elif data[1] >> 4 & 3 == 2:
            sensor.assertion_mask, sensor.deassertion_mask = (
                sensor.assertion_mask & ~up,
                sensor.deassertion_mask & ~down,
            )
        elif data[1] >> 4 & 3 == 3:
            raise Refused(INVALID_FIELD)
        self.sensor_changed(sensor)
        return b""

    @command(SENSOR_EVENT, 0x29, 1)
    def get_event_enable(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        masks = sensor.assertion_mask.to_bytes(2, "little") + sensor.deassertion_mask.to_bytes(2, "little")
        return bytes((sensor.events_on << 7 | sensor.scanning << 6,)) + masks

    @command(SENSOR_EVENT, 0x2B, 1)
    def get_event_status(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        now = sum(1 << OFFSETS[at] for at in range(6) if sensor.active >> at & 1)
        return bytes((sensor.events_on << 7 | sensor.scanning << 6,)) + now.to_bytes(2, "little") + bytes(2)

    @command(SENSOR_EVENT, 0x2D, 1)
    def get_reading(self, data: bytes) -> bytes:
        sensor = self.sensor(data)
        return bytes((sensor.raw, sensor.events_on << 7 | sensor.scanning << 6, 0xC0 | sensor.status))

    @command(SENSOR_EVENT, 0x2F, 1)
    def get_sensor_type(self, data: bytes) -> bytes:
        return bytes((self.sensor(data).type, 0x01))

    # State.

    PLAIN = (
        "sdr_reservation", "time_offset", "erased_at", "enables", "flags", "event_buffer", "action", "restart_cause",
        "restore_policy", "boot_options", "watchdog_use", "watchdog_actions", "watchdog_pretimeout", "watchdog_flags",
        "watchdog_count", "watchdog_set", "watchdog_end",
    )  # fmt: skip
    SENSOR_STATE = (
        "hysteresis", "raw", "thresholds", "active", "events_on", "scanning", "assertion_mask", "deassertion_mask",
    )  # fmt: skip
    SEL_STATE = ("next_id", "reservation", "last_addition", "last_erase", "overflow")

    def save(self) -> dict[str, Any]:
        return {
            "version": 1,
            **{name: getattr(self, name) for name in self.PLAIN},
            "sel": [record.data for record in self.sel],
            "sel_state": {name: getattr(self.sel, name) for name in self.SEL_STATE},
            "sensors": {
                sensor.name: {name: getattr(sensor, name) for name in self.SENSOR_STATE}
                for sensor in self.sensors.values()
            },
        }

    def load(self, state: dict[str, Any]) -> None:
        if state.get("version") != 1:
            raise BadInput(f"{self.name}: state of version {state.get('version')}, expected 1")
        for name in self.PLAIN:
            setattr(self, name, state[name])
        self.boot_options = dict(state["boot_options"])
        if len(state["sel"]) > CAPACITY or any(len(data) != 16 for data in state["sel"]):
            raise BadInput(f"{self.name}: the event log is malformed")
        self.sel.records = [Record(data) for data in state["sel"]]
        for name in self.SEL_STATE:
            setattr(self.sel, name, state["sel_state"][name])
        for sensor in self.sensors.values():
            for name in self.SENSOR_STATE:
                value = state["sensors"][sensor.name][name]
                setattr(sensor, name, list(value) if name == "thresholds" else value)
        self.raise_flag(0)
