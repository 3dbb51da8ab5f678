; The DSDT of a virtual machine: what the VMM gives to it, and nothing of the machine behind.

        bits 32

%include "aml.inc"
%include "header.inc"
%include "isa.inc"

dsdt:
        AcpiHeader "DSDT", dsdt_end - dsdt, 1

        SoftOff
        InterruptModel

        Scope   long_body, "_SB_"
        DeviceRtc
        DeviceTimer
        DevicePic
        DeviceKeyboard
        DeviceSerial "COM1", 1, 3F8h, 4
        DeviceSerial "COM2", 2, 2F8h, 3
        AmlEnd
dsdt_end:
