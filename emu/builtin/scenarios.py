"""The scenarios of `emu scenarios`: every event, every guest, every place of the Service OS, by name."""

from collections.abc import Mapping

from emu.builtin.scenario import Scenario, Step
from emu.stop import StopReason

__all__ = ["SCENARIOS", "STORY"]

STORY = "story"
"""The scenario that tells the whole story; `make run` shows it."""

OFF = "service   no guest left: power off through ACPI"
BACK = "Service VM > Guest VM: VMCALL"

SCENARIOS: Mapping[str, Scenario] = {
    "story": Scenario(
        "the whole story: the query, a crash that is dumped and stops its guest alone, a trap that disturbs nothing",
        {"guests": ["triple", "writer"], "exceptions": [], "flags": ["dump"],
         "regions": [(2, "w", 0x200000, 0x200FFF)]},
        ["Service OS?", "decision  Service OS, as the user says", "service   VM 1 triple fault", "service   dump: ",
         "service   VM 2 wrote to protected memory", "undisturbed: registers, flags, FPU, memory", OFF],
        never=["DISTURBED", "UNEXPECTED", "TIME WENT ON"],
        switches=["Guest VM > Service VM: TRIPLE_FAULT", "Guest VM 2 > Service VM: EPT_VIOLATION"],
        steps=[Step("then yes", keys="y", wait=0.5)],
        disk="hpa",
    ),
    "trap-memory": Scenario(
        "a write to protected memory brings the Service OS, which looks and lets it through: nothing was disturbed",
        {"boot": "service", "guests": ["writer"]},
        ["guest     started under the VMM", "service   VM 1 wrote to protected memory", "service   SEL record 1",
         "guest     undisturbed: registers, flags, FPU, memory", "guest     ends well", OFF],
        switches=["Guest VM > Service VM: EPT_VIOLATION", BACK],
    ),
    "trap-exception": Scenario(
        "a double fault is trapped before the guest takes it, then delivered",
        {"boot": "service", "guests": ["double"]},
        ["double    causes a double fault", "service   VM 1 an exception that the policy traps",
         "qualification 00000008", "double    took the double fault", "double    ends well", OFF],
        switches=["Guest VM > Service VM: EXCEPTION_OR_NMI", BACK],
    ),
    "trap-interrupt": Scenario(
        "the guest's first timer interrupt is trapped by its vector",
        {"boot": "service", "guests": ["healthy"], "vectors": [0x20], "after": "resume"},
        ["service   VM 1 an interrupt that the policy traps", "qualification 00000020",
         "healthy   5 timer interrupts at 100 Hz", "healthy   ends well", OFF],
    ),
    "trap-port": Scenario(
        "the guest's access to a port is trapped",
        {"boot": "service", "guests": ["healthy"], "ports": [(0x43, 0x43)], "after": "resume"},
        ["service   VM 1 reached an I/O port that the policy traps", "healthy   ends well", OFF],
        switches=["Guest VM > Service VM: IO_INSTRUCTION", BACK],
    ),
    "trap-triple-fault": Scenario(
        "a triple fault stops the guest, and only it",
        {"boot": "service", "guests": ["triple"], "exceptions": [], "after": "resume"},
        ["triple    causes a triple fault", "service   VM 1 triple fault", OFF],
        switches=["Guest VM > Service VM: TRIPLE_FAULT"],
    ),
    "poll-1us": Scenario(
        "a period of a microsecond, which the VMM stretches: even waiting for COM1 is no progress then",
        {"boot": "service", "guests": ["hung"], "poll_us": 1, "polls": 255, "flags": [], "after": "resume"},
        ["service   VM 1 makes no progress"],
        end=StopReason.LIMIT, seconds=1,
    ),
    "poll-1ms": Scenario(
        "a hang is found by polling each millisecond",
        {"boot": "service", "guests": ["hung"], "poll_us": 1000, "polls": 20, "flags": [], "after": "stop"},
        ["hung      hangs, with interrupts off", "service   VM 1 makes no progress", OFF],
        seconds=5,
    ),
    "poll-10s": Scenario(
        "a hang is found by the default period of ten seconds",
        {"boot": "service", "guests": ["hung"], "flags": [], "after": "stop"},
        ["hung      hangs, with interrupts off", "service   VM 1 makes no progress", OFF],
        seconds=25,
    ),
    "poll-1min": Scenario(
        "a hang is found by polling each minute; the minutes are skipped",
        {"boot": "service", "guests": ["hung"], "poll_us": 60_000_000, "flags": [], "after": "stop"},
        ["hung      hangs, with interrupts off", "service   VM 1 makes no progress", OFF],
        seconds=130,
    ),
    "poll-healthy": Scenario(
        "a guest that works and sleeps is never taken for a hung one",
        {"boot": "service", "guests": ["healthy"], "poll_us": 20_000, "flags": []},
        ["healthy   ends well", OFF],
        never=["makes no progress"],
    ),
    "hotkey": Scenario(
        "Ctrl-] on COM1 brings the Service OS's shell while a guest hangs",
        {"boot": "service", "guests": ["hung"], "poll_us": 0, "flags": []},
        ["hung      hangs, with interrupts off", "> regs 1", "> off"],
        steps=[
            Step("hangs, with interrupts off", keys="\x1d", wait=0.1),
            Step("> ", keys="regs 1\r"),
            Step("> ", keys="off\r", wait=0.1),
        ],
    ),
    "remote": Scenario(
        "the line `service` on the modem line brings the Service OS's shell",
        {"boot": "service", "guests": ["hung"], "poll_us": 0, "flags": ["remote"]},
        ["hung      hangs, with interrupts off", "> vms", "> off"],
        steps=[
            Step("hangs, with interrupts off", modem="service\r", wait=0.1),
            Step("> ", keys="vms\r"),
            Step("> ", keys="off\r", wait=0.1),
        ],
    ),
    "machine-check": Scenario(
        "a machine check that is injected is trapped, then the guest takes it",
        {"boot": "service", "guests": ["machine"]},
        ["machine   waits for a machine check", "service   VM 1 an exception that the policy traps",
         "qualification 00000012", "machine   took the machine check", OFF],
        steps=[Step("waits for a machine check", machine_check=True, wait=0.1)],
    ),
    "aware-alone": Scenario(
        "a guest that knows of the VMM, on the bare machine: there is nobody to talk to",
        {"boot": "native", "guests": ["aware"]},
        ["VMM       unloaded, VMX off", "aware     started on the bare machine", "aware     there is nobody to talk to",
         "aware     ends well"],
    ),
    "messages": Scenario(
        "two guests that know of the VMM, and the user in the Service OS's shell, send messages to each other",
        {"boot": "service", "guests": ["aware", "aware"], "after": "resume", "flags": ["shell"]},
        ["> send 1 hello there", "aware     is VM 1", "service   message from VM 1: hello from VM 1",
         "aware     message from VM 0: hello there", "service   message from VM 1: hello there",
         "aware     sent a message to VM 2", "aware     message from VM 1: ping",
         "aware     message from VM 2: pong", "aware     ends well", OFF],
        steps=[Step("> ", keys="send 1 hello there\r"), Step("> ", keys="leave\r")],
    ),
    "partition": Scenario(
        "the Service OS comes from the FAT system partition of the disk, which the guest uses then",
        {"boot": "service", "guests": ["healthy"], "source": "partition"},
        ["Service OS from \\SERVICE.BIN of the system partition", "service   2048 KiB",
         "healthy   disk: 8 sectors read, written and read again", "healthy   ends well", OFF],
        disk="partition",
    ),
    "hpa": Scenario(
        "the Service OS comes from the Host Protected Area, which no guest sees",
        {"boot": "service", "guests": ["healthy"], "source": "hpa"},
        ["Service OS from the Host Protected Area", "service   2048 KiB",
         "healthy   disk: 8 sectors read, written and read again", "healthy   ends well", OFF],
        disk="hpa",
    ),
    "failed-write": Scenario(
        "a guest's disk write fails: the Service OS takes the disk over, dumps the guest to it and gives it back",
        {"boot": "service", "guests": ["diskfail"]},
        ["service   VM 1 a disk command failed", "written to the disk, sector", "diskfail  write of LBA 3000 failed",
         "diskfail  reads on as before", OFF],
        disk="hpa", bad_sectors=[3000],
    ),
    "no-partition": Scenario(
        "the policy wants a partition that the disk has not: the flash chip's Service OS is taken",
        {"boot": "service", "guests": ["healthy"], "source": "partition"},
        ["flash", "service   2048 KiB", "healthy   ends well", OFF],
        disk="plain",
    ),
    "damaged-image": Scenario(
        "the Service OS on the partition is damaged: the console says so, and the flash chip's is taken",
        {"boot": "service", "guests": ["healthy"], "source": "partition"},
        ["Service OS from \\SERVICE.BIN of the system partition: its checksum is wrong", "flash",
         "service   2048 KiB", "healthy   ends well", OFF],
        disk="damaged",
    ),
    "oversized-image": Scenario(
        "the Service OS on the partition is longer than its memory: likewise",
        {"boot": "service", "guests": ["healthy"], "source": "partition"},
        ["Service OS from \\SERVICE.BIN of the system partition: the image is too long", "flash",
         "service   2048 KiB", "healthy   ends well", OFF],
        disk="oversized",
    ),
    "fat-loop": Scenario(
        "the Service OS's file has a chain of clusters that does not end: likewise",
        {"boot": "service", "guests": ["healthy"], "source": "partition"},
        ["Service OS from \\SERVICE.BIN of the system partition: a chain of clusters is damaged", "flash",
         "service   2048 KiB", "healthy   ends well", OFF],
        disk="loop",
    ),
    "no-hpa": Scenario(
        "the policy wants a Host Protected Area that the disk has not: likewise",
        {"boot": "service", "guests": ["healthy"], "source": "hpa"},
        ["Service OS from the Host Protected Area: no Host Protected Area", "flash", "service   2048 KiB",
         "healthy   ends well", OFF],
        disk="plain",
    ),
    "modem": Scenario(
        "the report of a fault goes out over the modem line by YMODEM",
        {"boot": "service", "guests": ["writer"], "flags": ["report"]},
        ["service   VM 1 wrote to protected memory", "service   modem: report.txt sent", "guest     ends well", OFF],
        received={"report.txt": "service   VM 1 wrote to protected memory"},
    ),
    "hostile": Scenario(
        "a guest that knows the VMM's source tries to get out, and gets nothing",
        {"boot": "service", "guests": ["hostile"], "after": "resume"},
        ["VMX instructions refused: 11 of 11", "VMCALLs that succeeded: 0", "hostile   5 timer interrupts at 100 Hz",
         "hostile   reads the VMM's memory", "service   VM 1 reached outside its memory", OFF],
        never=["GOT", "UNEXPECTED"],
    ),
    "two-guests": Scenario(
        "two guests share the time; a triple fault of one does not disturb the other",
        {"boot": "service", "guests": ["triple", "writer"], "exceptions": [], "after": "resume"},
        ["service   VM 1 triple fault", "undisturbed: registers, flags, FPU, memory", "ends well", OFF],
        switches=["Guest VM > Service VM: TRIPLE_FAULT"],
    ),
    "stop": Scenario(
        "the policy stops a guest at its first fault",
        {"boot": "service", "guests": ["double"], "after": "stop"},
        ["service   VM 1 an exception that the policy traps", OFF],
        never=["took the double fault"],
    ),
    "crash-stop": Scenario(
        "a guest that crashes is stopped, as the policy says",
        {"boot": "service", "guests": ["crashy"], "exceptions": [], "after": "stop"},
        ["crashy    5 timer interrupts", "crashy    causes a triple fault", "service   VM 1 triple fault", OFF],
    ),
    "crash-limit": Scenario(
        "a guest that crashes again after each restart is stopped at its third crash in the event log",
        {"boot": "service", "guests": ["crashy"], "exceptions": [], "after": "restart", "crash_limit": 3, "flags": []},
        ["crashy    started under the VMM", "service   VM 1 triple fault", "crashy    started under the VMM",
         "service   VM 1 triple fault", "crashy    started under the VMM", "service   VM 1 triple fault",
         "service   VM 1 has 3 crashes in the event log", OFF],
    ),
    "query-service": Scenario(
        "the user says yes to the query",
        {"guests": ["healthy"]},
        ["Service OS?", "decision  Service OS, as the user says", "healthy   started under the VMM", OFF],
        steps=[Step("then yes", keys="y", wait=0.5)],
    ),
    "query-time-out": Scenario(
        "nobody answers the query: the Service OS is booted",
        {"guests": ["healthy"], "query_seconds": 5},
        ["Service OS?", "decision  Service OS: no answer", "healthy   started under the VMM", OFF],
    ),
    "native": Scenario(
        "the user says no on the keyboard: the VMM is unloaded, and the guest has the bare machine",
        {"guests": ["writer"]},
        ["Service OS?", "VMM       unloaded, VMX off", "the guest runs on the bare machine: the user says so",
         "guest     started on the bare machine", "guest     ends well"],
        never=["service   "],
        steps=[Step("then yes", press="n", wait=0.5)],
    ),
    "native-stored": Scenario(
        "the stored policy says native boot",
        {"boot": "native", "guests": ["healthy"]},
        ["decision  native boot, as the policy says", "healthy   started on the bare machine", "healthy   ends well"],
        disk="plain",
    ),
    "no-vtx": Scenario(
        "a processor without VT-x boots the guest natively",
        {"guests": ["double"]},
        ["the guest runs on the bare machine: the processor has no VT-x", "double    took the double fault"],
        cpu="pentium3",
    ),
    "no-ept": Scenario(
        "a processor without EPT runs the guests on shadow page tables",
        {"boot": "service", "guests": ["writer"]},
        ["VMM       no EPT", "service   VM 1 wrote to protected memory", "guest     undisturbed", OFF],
        cpu="prescott",
    ),
    "set-up": Scenario(
        "the set-up screen changes the guest and the decision, refuses what is out of range, and stores it",
        {},
        ["set-up    the policy", "polls may be 1 to 255", "guests          healthy",
         "boot            native", "set-up    the policy is stored", "healthy   started on the bare machine"],
        steps=[
            Step("then yes", keys="s", wait=0.5),
            Step("set-up> ", keys="polls 0\r"),
            Step("set-up> ", keys="guests healthy\r"),
            Step("set-up> ", keys="boot native\r"),
            Step("set-up> ", keys="save\r"),
        ],
    ),
    "native-triple-fault": Scenario(
        "without a VMM a guest's triple fault is the machine's",
        {"boot": "native", "guests": ["triple"]},
        ["triple    causes a triple fault"],
        end=StopReason.TRIPLE_FAULT,
    ),
    "native-hang": Scenario(
        "without a VMM nobody notices that a guest hangs",
        {"boot": "native", "guests": ["hung"]},
        ["hung      5 timer interrupts", "hung      hangs, with interrupts off"],
        end=StopReason.LIMIT, seconds=5,
    ),
    "native-failed-write": Scenario(
        "without a VMM nobody but the guest knows of its failed write",
        {"boot": "native", "guests": ["diskfail"]},
        ["diskfail  write of LBA 3000 failed", "diskfail  reads on as before"],
        disk="plain", bad_sectors=[3000],
    ),
}  # fmt: skip
