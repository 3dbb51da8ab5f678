; The guest: a small program that uses a machine as an operating system does (memory map, paging, interrupts, FPU, ACPI),
; writes to memory that a policy may protect, and checks that nothing around it changed meanwhile.
;
; Entry: flash.inc says in which state; it runs the same on the bare machine.
;
; Memory that it uses:
;
;   01000h - 01FFFh   page directory
;   0E000h - 0EFFFh   stack
;   10000h - ...      the image
;   100000h - 13FFFFh work area, whose checksum is compared
;   200000h           the doubleword that it writes to

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "handoff.inc"
%include "vm_abi.inc"
%include "image.inc"

PAGE_DIRECTORY  equ 1000h
WORK            equ 100000h
WORK_BYTES      equ 40000h
PROTECTED       equ 200010h
MARK            equ 0C0FFEE01h
TIME_LIMIT      equ 2000000             ; time-stamp counts that the write may take where time stands still

%include "console.inc"
%include "acpi_off.inc"
%include "idt.inc"
%include "timer.inc"
%include "paging.inc"
%include "work.inc"

; In:       32-bit protected mode
; Out:      does not return
main:
        mov     esi, text_name
        call    console_text
        call    processor_suffices
        mov     esi, text_old
        jne     write_protected.say
        call    vmm_present
        mov     esi, text_under_vmm
        je      .where
        mov     esi, text_native
.where:
        call    console_text
        call    paging_on
        call    timer_run
        call    work_fill
        call    work_sum
        mov     [sum_before], eax
        fxrstor [fpu_known]
        fxsave  [fpu_before]

        rdtsc
        mov     [time_before], eax
        mov     [time_before + 4], edx
        mov     eax, 11111111h                  ; known values all around the write
        mov     ebx, 22222222h
        mov     ecx, 33333333h
        mov     edx, 44444444h
        mov     esi, 55555555h
        mov     edi, 66666666h
        mov     ebp, 77777777h
        stc
write_protected:
        mov     dword [PROTECTED], MARK
        pushfd
        pushad
        rdtsc
        sub     eax, [time_before]
        sbb     edx, [time_before + 4]
        mov     [time_taken], eax
        mov     [time_taken + 4], edx

        mov     esi, esp                        ; what PUSHAD left, and the flags above it
        mov     edi, expected
        mov     ecx, EXPECTED
.register:
        lodsd
        cmp     dword [edi], 0                  ; ESP
        je      .skip
        cmp     eax, [edi]
        jne     .disturbed
.skip:
        add     edi, 4
        loop    .register
        test    dword [esi], 1                  ; CF
        jz      .disturbed
        add     esp, 36
        fxsave  [fpu_after]
        mov     esi, fpu_before
        mov     edi, fpu_after
        mov     ecx, 512 / 4
        repe cmpsd
        jne     .disturbed
        cmp     dword [PROTECTED], MARK
        jne     .disturbed
        call    work_sum
        cmp     eax, [sum_before]
        jne     .disturbed
        mov     esi, text_undisturbed
        call    console_text
        mov     eax, [time_taken]
        call    console_decimal
        mov     esi, text_counts
        call    console_text
        cmp     dword [time_taken + 4], 0
        jne     .time
        cmp     dword [time_taken], TIME_LIMIT
        jae     .time
        call    timer_run
        mov     esi, text_end
        call    console_text
        jmp     acpi_power_off
.time:
        mov     esi, text_time
        jmp     .say
.disturbed:
        mov     esi, text_disturbed
.say:
        call    console_text
        jmp     acpi_power_off

; Asks for what this program needs.
; Out:      ZF set where the processor has CPUID, 4 MiB pages and FXSAVE
; Clobbers: EAX, EBX, ECX, EDX
processor_suffices:
        pushfd
        pop     eax
        mov     ecx, eax
        xor     eax, EFLAGS_ID
        push    eax
        popfd
        pushfd
        pop     eax
        xor     eax, ecx
        test    eax, EFLAGS_ID
        jz      .no
        mov     eax, 1
        cpuid
        and     edx, CPUID_1_EDX_PSE | CPUID_1_EDX_FXSR
        cmp     edx, CPUID_1_EDX_PSE | CPUID_1_EDX_FXSR
        ret
.no:    test    esp, esp
        ret

; As PUSHAD stores them: EDI ESI EBP ESP EBX EDX ECX EAX.
        align 4
expected:
        dd      66666666h, 55555555h, 77777777h, 0, 22222222h, 44444444h, 33333333h, 11111111h
EXPECTED        equ ($ - expected) / 4
sum_before:     dd 0
time_before:    dd 0, 0
time_taken:     dd 0, 0

; An FXSAVE image with something in every register: control word 037Fh, TOP 3, all tags valid, MXCSR 1F80h.
        align 16
fpu_known:
        dw      037Fh, 3 << 11
        db      0FFh, 0
        dw      0
        dd      0, 0, 0, 0
        dd      1F80h, 0FFFFh
%assign register 0
%rep 8
        dd      1234567h + register, 89ABCDEFh - register
        dw      3FFFh + register
        times 6 db 0
  %assign register register + 1
%endrep
%rep 8
        dd      0AAAA0000h + register, register, 55550000h - register, -1 - register
  %assign register register + 1
%endrep
        times 512 - ($ - fpu_known) db 0
fpu_before:
        times 512 db 0
fpu_after:
        times 512 db 0

text_name:
        db      "guest     ", 0
text_under_vmm:
        db      "started under the VMM", 13, 10, 0
text_native:
        db      "started on the bare machine", 13, 10, 0
text_old:
        db      "needs a processor with CPUID, 4 MiB pages and FXSAVE", 13, 10, 0
text_undisturbed:
        db      "guest     undisturbed: registers, flags, FPU, memory; the write took ", 0
text_counts:
        db      " counts", 13, 10, 0
text_time:
        db      "guest     TIME WENT ON during the write", 13, 10, 0
text_disturbed:
        db      "guest     DISTURBED by the write", 13, 10, 0
text_end:
        db      "guest     ends well, power off through ACPI", 13, 10, 0
