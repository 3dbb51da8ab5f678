; The guest that tries to get out. It knows the VMM's source: where its memory is, which calls there are, which ports and
; registers of the machine would help. It says what it got; what it may not have must be refused, and the VMM and the other VMs
; must not notice. Its last attempt, at the VMM's memory, is the end of it.
;
; Memory that it uses besides the image: 100000h - 100FFFh a message.

%include "begin.inc"

VMM_REGION      equ 400000h             ; the VMM has the last 4 MiB of RAM
MESSAGE         equ 100000h

; Does something that an exception should stop, and counts it.
; In:       %1 = the instruction
%macro attempt 1+
        mov     dword [resume], %%next
        inc     dword [attempts]
        %1
%%next:
%endmacro

%include "msr_tricks.inc"
%include "call_tricks.inc"
%include "port_tricks.inc"

; Prints how many of the attempts were refused, and begins to count anew.
; In:       ESI = text
; Clobbers: EAX, EBX, ECX, EDX, ESI
attempts_say:
        call    say
        mov     eax, [refused]
        call    console_decimal
        mov     esi, text_of
        call    console_text
        mov     eax, [attempts]
        call    console_decimal
        mov     dword [refused], 0
        mov     dword [attempts], 0
        jmp     console_newline

guest_main:
        cmp     dword [under_vmm], 0
        mov     esi, text_native
        je      hostile_end
        mov     eax, caught_gp
        mov     ecx, VECTOR_GP
        call    idt_set
        mov     eax, caught_ud
        mov     ecx, VECTOR_UD
        call    idt_set
        call    vmx_tricks
        call    register_tricks
        call    msr_tricks
        call    call_tricks
        call    port_tricks
        call    timer_run                       ; its own devices still work
        mov     esi, text_memory
        call    say
        mov     eax, 4000000h - VMM_REGION      ; of a machine of 64 MiB
reach_now:
        mov     eax, [eax]
        mov     esi, text_got
        push    eax
        call    say
        pop     eax
        call    console_hex
        call    console_newline
        jmp     acpi_power_off
hostile_end:
        call    say
        jmp     acpi_power_off

; A refusal: the attempt's next instruction goes on.
caught_gp:
        add     esp, 4                          ; the error code
caught_ud:
        inc     dword [refused]
        push    eax
        mov     eax, [resume]
        mov     [esp + 4], eax
        pop     eax
        iret

; VMX of its own, on the VMM's structures.
vmx_tricks:
        mov     dword [pointer], 4000000h - VMM_REGION + 21000h
        attempt vmxon [pointer]
        attempt vmclear [pointer]
        attempt vmptrld [pointer]
        attempt vmptrst [pointer]
        attempt vmread eax, eax
        attempt vmwrite eax, eax
        attempt vmlaunch
        attempt vmresume
        attempt vmxoff
        attempt invept eax, [pointer]
        attempt invvpid eax, [pointer]
        mov     esi, text_vmx
        jmp     attempts_say

; Control and descriptor-table registers.
register_tricks:
        mov     eax, cr4
        or      eax, CR4_VMXE
        attempt mov cr4, eax
        mov     eax, cr4
        or      eax, 1 << 31                    ; reserved
        attempt mov cr4, eax
        mov     eax, cr0
        and     eax, ~CR0_CD
        or      eax, CR0_NW                     ; not without CD
        attempt mov cr0, eax
        mov     eax, SELECTOR_DATA32            ; no TSS
        attempt ltr ax
        mov     eax, SELECTOR_CODE32
        attempt lldt ax
        attempt mov ss, ax
        attempt jmp 0FFF8h:0                    ; beyond the table
        mov     esi, text_registers
        jmp     attempts_say

        align 4
pointer:        dd 0, 0, 0, 0
resume:         dd 0
attempts:       dd 0
refused:        dd 0

text_name:
        db      "hostile   ", 0
text_native:
        db      "has no VMM to get out of", 13, 10, 0
text_of:
        db      " of ", 0
text_vmx:
        db      "VMX instructions refused: ", 0
text_registers:
        db      "control registers and selectors refused: ", 0
text_memory:
        db      "reads the VMM's memory", 13, 10, 0
text_got:
        db      "GOT ", 0
