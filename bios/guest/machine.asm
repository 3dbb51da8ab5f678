; The guest that waits for a machine check, which comes from outside (a memory module fails, a test injects it).

%include "begin.inc"

guest_main:
        call    cpuid_there
        jne     no_check
        mov     eax, machine_check
        mov     ecx, VECTOR_MC
        call    idt_set
        mov     eax, cr4
        or      eax, CR4_MCE                    ; without it a machine check is a shutdown
        mov     cr4, eax
        mov     esi, text_waits
        call    say
        call    timer_start
        sti
wait_here:
        cmp     dword [under_vmm], 0            ; under a VMM awake: it comes while the guest runs, and not the VMM
        jne     .awake
        hlt
.awake:
        cmp     dword [ticks], WAIT_TICKS
        jb      wait_here
        mov     esi, text_nothing
        call    say
        jmp     acpi_power_off
no_check:
        mov     esi, text_none
        call    say
        jmp     acpi_power_off

machine_check:
        mov     esi, text_taken
        call    say
        jmp     guest_end

VECTOR_MC       equ 18
WAIT_TICKS      equ 100                 ; a second

text_name:
        db      "machine   ", 0
text_waits:
        db      "waits for a machine check", 13, 10, 0
text_taken:
        db      "took the machine check", 13, 10, 0
text_nothing:
        db      "no machine check came", 13, 10, 0
text_none:
        db      "the processor has no machine check", 13, 10, 0
