; The machine's DSDT: host bridge, PCI interrupt routing, ISA devices, soft off.
;
; In ASL, in short:
;
;   \_S5, \_PIC
;   \_SB.PCI0           _HID, _CRS, _PRT
;   \_SB.PCI0.ISA_      PIRQ routing registers, RTC_ TMR_ PIC_ KBD_ COM1 COM2
;   \_SB.LNKA .. LNKD   PCI interrupt links: _STA, _PRS, _CRS, _SRS, _DIS

        bits 32

%include "aml.inc"
%include "header.inc"
%include "isa.inc"

PCI_MEMORY_FIRST    equ 0E0000000h
PCI_MEMORY_LAST     equ 0FEBFFFFFh
PIRQ_CHOICES        equ 1 << 5 | 1 << 10 | 1 << 11      ; requests that a link may be routed to
ROUTE_OFF           equ 80h                             ; PIRQRC: routing disabled

dsdt:
        AcpiHeader "DSDT", dsdt_end - dsdt, 1

        SoftOff
        InterruptModel

; Pin %2 (0 to 3) of device %1 ends at link %3.
%macro Route 3
        Package short_body, 4
        Integer (%1) << 16 | 0FFFFh
        Integer %2
        db      %3
        Integer 0
        AmlEnd
%endmacro

; The four pins of device %1, in the order of the links that they end at.
%macro Routes 5
        Route   %1, 0, %2
        Route   %1, 1, %3
        Route   %1, 2, %4
        Route   %1, 3, %5
%endmacro

        Scope   long_body, "_SB_"

        Device  long_body, "PCI0"
        Name    "_HID"
        EisaId  "PNP", 0A03h
        Name    "_CRS"
        ResourceTemplate long_body
        WordBusNumber 0, 0
        IO      0CF8h, 0CF8h, 1, 8
        WordIO  0, 0CF7h
        WordIO  0D00h, 0FFFFh
        DWordMemory 0A0000h, 0BFFFFh, CACHEABLE
        DWordMemory 0C0000h, 0DFFFFh, CACHEABLE
        DWordMemory PCI_MEMORY_FIRST, PCI_MEMORY_LAST, UNCACHEABLE
        EndTemplate

        Name    "_PRT"
        Package long_body, 7 * 4
        Routes  1, "LNKA", "LNKB", "LNKC", "LNKD"
        Routes  2, "LNKB", "LNKC", "LNKD", "LNKA"
        Routes  3, "LNKC", "LNKD", "LNKA", "LNKB"
        Routes  4, "LNKD", "LNKA", "LNKB", "LNKC"
        Routes  5, "LNKA", "LNKB", "LNKC", "LNKD"
        Routes  6, "LNKB", "LNKC", "LNKD", "LNKA"
        Routes  7, "LNKC", "LNKD", "LNKA", "LNKB"
        AmlEnd

        Device  long_body, "ISA_"
        Name    "_ADR"
        Integer 1 << 16                         ; device 1, function 0
        OperationRegion "PRQR", PCI_CONFIG, 60h, 4
        Field   short_body, "PRQR", 1
        FieldUnit "PRQA", 8
        FieldUnit "PRQB", 8
        FieldUnit "PRQC", 8
        FieldUnit "PRQD", 8
        AmlEnd
        DeviceRtc
        DeviceTimer
        DevicePic
        DeviceKeyboard
        DeviceSerial "COM1", 1, 3F8h, 4
        DeviceSerial "COM2", 2, 2F8h, 3
        AmlEnd

        AmlEnd                                  ; PCI0

; The path of a routing register, seen from a method of a link.
; In:       %1 = register
%macro Register 1
        db      "^^", 2Fh, 3, "PCI0", "ISA_", %1
%endmacro

; A PCI interrupt link.
; In:       %1 = name, %2 = unique number, %3 = its routing register
%macro Link 3
        Device  long_body, %1
        Name    "_HID"
        EisaId  "PNP", 0C0Fh
        Name    "_UID"
        Integer %2
        Name    "_PRS"
        ResourceTemplate short_body
        IRQLevelShared PIRQ_CHOICES
        EndTemplate

        Method  short_body, 0, "_STA"           ; present, and enabled where it is routed
        If      short_body
        And
        Register %3
        Integer ROUTE_OFF
        db      NO_TARGET
        Return
        Integer 9
        AmlEnd
        Return
        Integer 0Bh
        AmlEnd

        Method  short_body, 0, "_DIS"
        Or
        Register %3
        Integer ROUTE_OFF
        Register %3
        AmlEnd

        Method  long_body, SERIALIZED, "_CRS"   ; the request that it is routed to
        Name    "IRQT"
        ResourceTemplate short_body
        IRQLevelShared 0
        EndTemplate
        CreateWordField
        db      "IRQT"
        Integer 1
        db      "IRQW"
        Store
        Integer 0
        db      "IRQW"
        If      short_body
        db      92h                             ; LNot
        And
        Register %3
        Integer ROUTE_OFF
        db      NO_TARGET
        ShiftLeft
        Integer 1
        Register %3
        db      "IRQW"
        AmlEnd
        Return
        db      "IRQT"
        AmlEnd

        Method  short_body, 1, "_SRS"           ; routes it to the lowest request of the mask
        CreateWordField
        db      ARG0
        Integer 1
        db      "IRQW"
        FindSetRightBit
        db      "IRQW", LOCAL0
        Subtract
        db      LOCAL0
        Integer 1
        Register %3
        AmlEnd

        AmlEnd
%endmacro

        Link    "LNKA", 1, "PRQA"
        Link    "LNKB", 2, "PRQB"
        Link    "LNKC", 3, "PRQC"
        Link    "LNKD", 4, "PRQD"

        AmlEnd                                  ; \_SB
dsdt_end:
