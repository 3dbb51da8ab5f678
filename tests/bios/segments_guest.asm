; A guest that loads segment registers, transfers between segments and rings, and executes what ring 3 may not, in every form that
; the software VMM has to carry out; prints what it saw. The same under any VMM. Behind main of a guest, as run_guest has it.

SELECTOR_SMALL  equ 18h                 ; data, base 300000h, limit 0Fh
SELECTOR_CODE_16 equ 20h                ; 16-bit code, base IMAGE_BASE
SELECTOR_THREAD equ 28h                 ; data whose base changes
SELECTOR_USER_CODE equ 30h | 3
SELECTOR_USER_DATA equ 38h | 3
SELECTOR_TASK   equ 40h
SELECTOR_GATE   equ 48h                 ; a call gate to ring 0
SELECTOR_ABSENT equ 50h
SELECTOR_STACK_16 equ 58h               ; data, 16-bit stack, base 0
PLACE           equ 300000h
DIRECTORY       equ 20000h

        mov     edi, DIRECTORY                  ; everything to itself, ring 3's too
        mov     eax, PAGE_P | PAGE_RW | PAGE_PS | 4
        mov     ecx, 1024
.identity:
        stosd
        add     eax, 400000h
        loop    .identity
        mov     eax, cr4
        or      eax, CR4_PSE
        mov     cr4, eax
        mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        lgdt    [own_gdt_pointer]
        lidt    [own_idt_pointer]
        mov     dword [PLACE], 11223344h
        mov     dword [PLACE + 1000h], 55667788h

        mov     eax, SELECTOR_SMALL             ; data segments: MOV, POP, LFS
        mov     fs, eax
        mov     eax, [fs:0]
        call    say
        push    SELECTOR_SMALL
        pop     gs
        mov     eax, [gs:0]
        call    say
        lfs     eax, [far_pointer]
        call    say
        mov     eax, fs
        call    say
        mov     dword [resume], .beyond         ; beyond its limit
        mov     eax, [fs:10h]
.beyond:
        mov     eax, SELECTOR_THREAD            ; a descriptor that changes between two loads
        mov     gs, eax
        mov     eax, [gs:0]
        call    say
        mov     word [own_gdt + SELECTOR_THREAD + 2], (PLACE + 1000h) & 0FFFFh
        mov     eax, [gs:0]                     ; what was loaded holds
        call    say
        cli                                     ; (the VMM is entered in between)
        mov     eax, SELECTOR_THREAD
        mov     gs, eax
        mov     eax, [gs:0]
        call    say
        xor     eax, eax
        mov     gs, eax
        mov     dword [resume], .null
        mov     eax, [gs:0]
.null:
        mov     dword [resume], .absent         ; #NP, and selectors that are none
        mov     eax, SELECTOR_ABSENT
        mov     gs, eax
.absent:
        mov     dword [resume], .far
        mov     eax, 0FF8h
        mov     gs, eax
.far:
        mov     dword [resume], .task
        mov     eax, SELECTOR_TASK
        mov     gs, eax
.task:
        mov     dword [resume], .stack_null     ; SS: null, code, the same again in three forms
        xor     eax, eax
        mov     ss, eax
.stack_null:
        mov     dword [resume], .stack_code
        mov     eax, SELECTOR_CODE32
        mov     ss, eax
.stack_code:
        mov     eax, SELECTOR_SMALL
        mov     ss, eax
        mov     eax, [ss:0]
        mov     ecx, SELECTOR_DATA32
        mov     ss, ecx
        call    say
        push    SELECTOR_DATA32
        pop     ss
        mov     [stack_pointer], esp
        lss     esp, [stack_pointer]
        mov     eax, esp
        call    say
        mov     eax, SELECTOR_STACK_16          ; a 16-bit stack
        mov     ss, eax
        mov     esp, 0ABCDF000h
        push    12345678h
        mov     eax, [0F000h - 4]
        pop     ebx
        mov     ecx, SELECTOR_DATA32
        mov     ss, ecx
        mov     edx, esp
        mov     esp, [stack_pointer]
        call    say
        mov     eax, ebx
        call    say
        mov     eax, edx
        call    say

        call    SELECTOR_CODE32:far_routine     ; far transfers in ring 0
        push    SELECTOR_CODE32
        push    .returned
        retf
.returned:
        mov     [stack_pointer], esp
        push    11h
        push    22h
        push    SELECTOR_CODE32
        push    .returned_more
        retf    8
.returned_more:
        mov     eax, esp
        sub     eax, [stack_pointer]
        call    say
        jmp     SELECTOR_CODE_16:narrow - IMAGE_BASE
wide:
        pushfd                                  ; IRET that turns interrupts on, and flags that it takes
        pop     eax
        and     eax, ~200h
        or      eax, 0CD5h | 200000h
        push    eax
        push    SELECTOR_CODE32
        push    .interrupted
        iretd
.interrupted:
        cld
        pushfd
        pop     eax
        and     eax, 2008D5h
        call    say
        cli

        int     21h                             ; INT n, INT3, INTO; a gate that is not there
        int3
        mov     al, 7Fh
        add     al, 1
        into
        mov     dword [resume], .no_gate
        int     22h
.no_gate:
        mov     dword [resume], .beyond_table
        int     0F0h
.beyond_table:
        mov     dword [resume], .undefined
        ud2
.undefined:
        mov     dword [resume], .lock
        db      0F0h, 90h                       ; LOCK NOP
.lock:
        mov     eax, cr0                        ; machine status word, task-switched flag
        or      eax, 8
        mov     cr0, eax
        mov     dword [resume], .no_fpu
        fxsave  [PLACE + 2000h]
.no_fpu:
        clts
        mov     eax, cr0
        and     eax, 0Fh
        call    say
        mov     ax, 0Ah
        lmsw    ax
        mov     eax, cr0
        and     eax, 0Fh
        call    say
        clts
        mov     eax, cr0
        and     eax, ~2
        mov     cr0, eax
        mov     eax, 12345678h                  ; CR2, debug registers
        mov     cr2, eax
        mov     eax, cr2
        call    say
        mov     eax, PLACE + 20h
        mov     dr0, eax
        mov     eax, 10301h                     ; stores to it, 1 byte
        mov     dr7, eax
        mov     eax, dr7
        call    say
        mov     dword [resume], .data_break
        mov     byte [PLACE + 20h], 1
        nop
.data_break:
        mov     eax, dr6
        and     eax, 0E00Fh
        call    say
        xor     eax, eax
        mov     dr6, eax
        mov     eax, 400h
        mov     dr7, eax
        mov     eax, 2700h                      ; general detection
        mov     dr7, eax
        mov     dword [resume], .detected
        mov     eax, dr0
.detected:
        mov     eax, dr7
        call    say
        pushfd                                  ; single steps over what is carried out
        or      dword [esp], 100h
        mov     dword [resume], 0
        popfd
        nop
        cli
        mov     eax, cr0
        rdtsc
        pushfd
        and     dword [esp], ~100h
        popfd
        mov     eax, [steps]
        call    say

        mov     dword [task + 4], 0E800h        ; to ring 3 and back: IRET, INT, a fault, a return that is refused
        mov     dword [task + 8], SELECTOR_DATA32
        mov     eax, SELECTOR_TASK
        ltr     ax
        mov     eax, [own_gdt + SELECTOR_TASK + 4]
        call    say
        mov     dword [resume], .busy           ; it is busy now
        mov     eax, SELECTOR_TASK
        ltr     ax
.busy:
        xor     eax, eax
        lldt    ax
        mov     [stack_pointer], esp
        push    SELECTOR_USER_DATA
        push    0E400h
        push    2
        push    SELECTOR_USER_CODE
        push    user
        iretd
user:
        mov     eax, SELECTOR_USER_DATA
        mov     es, eax
        mov     ds, eax
        mov     dword [resume], .refused
        cli
.refused:
        mov     dword [resume], .refused_data
        mov     eax, SELECTOR_SMALL             ; ring 0's
        mov     gs, eax
.refused_data:
        mov     dword [resume], .refused_port
        in      al, 21h
.refused_port:
        mov     dword [resume], .refused_control
        mov     eax, cr0
.refused_control:
        mov     dword [resume], .refused_interrupt
        int     24h                             ; a gate of ring 0
.refused_interrupt:
        int     21h                             ; one of ring 3
        int     23h                             ; back to ring 0
kernel:
        mov     eax, SELECTOR_DATA32
        mov     ds, eax
        mov     es, eax
        mov     esp, [stack_pointer]
        mov     ecx, 174h                       ; SYSENTER and SYSEXIT
        mov     eax, SELECTOR_CODE32
        xor     edx, edx
        wrmsr
        inc     ecx
        mov     eax, 0EC00h
        wrmsr
        inc     ecx
        mov     eax, entered
        wrmsr
        mov     edx, 1
        sysenter
entered:
        mov     eax, esp
        call    say
        mov     esp, [stack_pointer]
        mov     al, "."
        call    console_byte
        jmp     acpi_power_off

far_routine:
        mov     eax, 0FA4h
        call    say
        retf

        bits 16
narrow: cli
        sti
        cli
        o32 mov eax, cr0
        db      66h, 0EAh                       ; JMP ptr16:32
        dd      wide
        dw      SELECTOR_CODE32
        bits 32

say:                                            ; prints EAX
        pushad
        call    console_hex
        mov     al, " "
        call    console_byte
        popad
        ret

; Exceptions: a letter, and the error code where there is one; goes on at [resume].
%macro caught 3                                 ; name, letter, whether there is an error code
%1:
        push    eax
        mov     eax, SELECTOR_DATA32
        mov     ds, eax
        mov     al, %2
        push    edx
        call    console_byte
        pop     edx
        pop     eax
  %if %3
        pop     eax
        call    say
  %endif
        jmp     caught_go
%endmacro
        caught  caught_np, "N", 1
        caught  caught_ts, "T", 1
        caught  caught_ss, "S", 1
        caught  caught_gp, "G", 1
caught_pf:
        mov     al, "P"
        call    console_byte
        jmp     acpi_power_off
        caught  caught_ud, "U", 0
        caught  caught_nm, "M", 0
caught_go:
        mov     eax, [esp + 4]                  ; CS as it was
        and     eax, 3
        jz      .kernel
        mov     eax, SELECTOR_USER_DATA
        mov     ds, eax
.kernel:
        mov     eax, [resume]
        mov     [esp], eax
        iretd
caught_db:
        cmp     dword [resume], 0
        je      .step
        mov     al, "B"
        push    edx
        call    console_byte
        pop     edx
        jmp     caught_go
.step:
        inc     dword [steps]
        iretd
caught_trap:                                    ; INT3, INTO, INT 21h
        push    eax
        push    ds
        mov     eax, SELECTOR_DATA32
        mov     ds, eax
        mov     al, "i"
        push    edx
        call    console_byte
        pop     edx
        mov     eax, [esp + 8]
        call    say
        pop     ds
        pop     eax
        iretd

%macro gate 3                                   ; handler, type, selector
        dw      %1 - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), %3, %2, IMAGE_BASE >> 16
%endmacro
        align 8
own_idt:
        dq      0
        gate    caught_db, INTERRUPT_GATE, SELECTOR_CODE32
        dq      0
        gate    caught_trap, INTERRUPT_GATE | 100h | 6000h, SELECTOR_CODE32
        gate    caught_trap, INTERRUPT_GATE | 6000h, SELECTOR_CODE32
        dq      0
        gate    caught_ud, INTERRUPT_GATE, SELECTOR_CODE32
        gate    caught_nm, INTERRUPT_GATE, SELECTOR_CODE32
        dq      0, 0
        gate    caught_ts, INTERRUPT_GATE, SELECTOR_CODE32
        gate    caught_np, INTERRUPT_GATE, SELECTOR_CODE32
        gate    caught_ss, INTERRUPT_GATE, SELECTOR_CODE32
        gate    caught_gp, INTERRUPT_GATE, SELECTOR_CODE32
        gate    caught_pf, INTERRUPT_GATE, SELECTOR_CODE32
        times 21h - 15 dq 0
        gate    caught_trap, INTERRUPT_GATE | 6000h, SELECTOR_CODE32
        gate    caught_trap, INTERRUPT_GATE & ~8000h, SELECTOR_CODE32
        gate    kernel, INTERRUPT_GATE | 6000h, SELECTOR_CODE32
        gate    kernel, INTERRUPT_GATE, SELECTOR_CODE32
own_idt_pointer:
        dw      own_idt_pointer - own_idt - 1
        dd      own_idt
        align 8
own_gdt:
        dq      0
        dq      DESCRIPTOR_CODE32
        dq      DESCRIPTOR_DATA32
        dq      004092300000000Fh
        dq      00009A010000FFFFh
        dq      00CF92300000FFFFh
        dq      DESCRIPTOR_CODE32 | 3 << 45
        dq      DESCRIPTOR_DATA32 | 3 << 45
        dw      103, task - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), 8900h | IMAGE_BASE >> 16, 0
        dq      0000EC0000080000h
        dq      00CF12000000FFFFh
        dq      008F92000000FFFFh
own_gdt_pointer:
        dw      own_gdt_pointer - own_gdt - 1
        dd      own_gdt
        align 4
task:   times 102 db 0
        dw      104                             ; no I/O permission bitmap
far_pointer:
        dd      87654321h
        dw      SELECTOR_SMALL, 0
stack_pointer:
        dd      0
        dw      SELECTOR_DATA32, 0
resume: dd      0
steps:  dd      0
