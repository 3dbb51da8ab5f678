; Measures the world switch in software (world.inc): two worlds with their own stacks, descriptor tables, page directories,
; FPU contents, interrupt vectors and timer rates hand the machine to each other, and check that they find all of it again.
;
; Entry: flash.inc says in which state; POST boots it as a guest on the bare machine. It prints a line a part on COM1,
; `part NAME CYCLES`, and turns the machine off.
;
; Memory that it uses:
;
;   01000h, 02000h    page directories of the two worlds
;   0B000h - 0BFFFh   stack of the second world
;   0E000h - 0EFFFh   stack of the first
;   10000h - ...      the image

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"

%define WORLD_MARKS
%include "world.inc"
%include "parts.inc"

DIRECTORY_A     equ 1000h
DIRECTORY_B     equ 2000h
STACK_B         equ 0C000h
ROUNDS          equ 8                   ; the first ones warm up, the last one counts
DATA_B          equ 20h                 ; a selector that only the second world has

; In:       32-bit protected mode
; Out:      does not return
main:
        mov     eax, cr4
        or      eax, CR4_PSE | CR4_OSFXSR
        mov     cr4, eax
        mov     edi, DIRECTORY_A
        call    directory
        mov     edi, DIRECTORY_B
        call    directory
        mov     eax, DIRECTORY_A
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG
        mov     cr0, eax
        jmp     .paging
.paging:
        mov     word [world_a + world.pic_vectors], 2820h
        mov     dword [world_a + world.pit_rate], 11932
        mov     word [world_b + world.pic_vectors], 4840h
        mov     dword [world_b + world.pit_rate], 5966
        mov     dword [world_b + world.pit_left], 5966
        mov     word [world_b + world.imr], 0EFEFh
        mov     eax, cr0
        mov     [world_b + world.cr0], eax
        mov     eax, cr4
        mov     [world_b + world.cr4], eax
        mov     dword [world_b + world.cr3], DIRECTORY_B
        mov     word [world_b + world.gdtr], gdt_b.end - gdt_b - 1
        mov     dword [world_b + world.gdtr + 2], gdt_b
        mov     word [world_b + world.idtr], 7FFh
        mov     dword [world_b + world.idtr + 2], 5000h
        fninit
        fxsave  [world_b + world.fx]
        mov     byte [world_b + world.fx + 32], 0BBh    ; something of its own in ST0
        mov     edi, STACK_B - 4        ; the stack as world_switch leaves it
        mov     dword [edi], world_b_main
        mov     dword [edi - 4], EFLAGS_RESERVED
        mov     ecx, 4
        lea     edi, [edi - 4 - 32]
.segment:
        sub     edi, 4
        mov     dword [edi], DATA_B
        loop    .segment
        mov     [world_b + world.esp], edi

        mov     byte [fx_scratch + 32], 0
        mov     edx, ROUNDS
.round:
        push    edx
        mov     ebx, world_a
        mov     ecx, world_b
        mov     eax, 1A1A1A1Ah
        mov     esi, 2A2A2A2Ah
        mov     edi, 3A3A3A3Ah
        mov     ebp, 4A4A4A4Ah
        stc
        call    world_switch
        jnc     disturbed
        cmp     eax, 1A1A1A1Ah
        jne     disturbed
        cmp     esi, 2A2A2A2Ah
        jne     disturbed
        cmp     edi, 3A3A3A3Ah
        jne     disturbed
        cmp     ebp, 4A4A4A4Ah
        jne     disturbed
        pop     edx
        dec     edx
        jnz     .round
        mov     eax, cr3
        cmp     eax, DIRECTORY_A
        jne     disturbed
        sgdt    [pointer]
        cmp     dword [pointer + 2], image_gdt
        jne     disturbed
        call    parts_print
        mov     esi, text_good
        call    console_text
        jmp     acpi_power_off
disturbed:
        mov     esi, text_disturbed
        call    console_text
        jmp     acpi_power_off

; The second world: checks that it is what it was, and goes back.
world_b_main:
        fxsave  [fx_scratch]
        cmp     byte [fx_scratch + 32], 0BBh
        jne     disturbed
        mov     eax, cr3
        cmp     eax, DIRECTORY_B
        jne     disturbed
        mov     ax, ds
        cmp     ax, DATA_B
        jne     disturbed
        mov     ebx, world_b
        mov     ecx, world_a
        call    world_switch
        jmp     world_b_main

; Maps the first 16 MiB to themselves.
; In:       EDI = page directory
; Clobbers: EAX, ECX, EDI
directory:
        push    edi
        mov     ecx, 1024
        xor     eax, eax
        rep stosd
        pop     edi
        mov     eax, PAGE_P | PAGE_RW | PAGE_PS
        mov     ecx, 4
.page:
        stosd
        add     eax, 400000h
        loop    .page
        ret

        align 8
gdt_b:
        dq      0
        dq      DESCRIPTOR_CODE32
        dq      DESCRIPTOR_DATA32
        dq      0
        dq      DESCRIPTOR_DATA32       ; 20h
.end:
pointer:
        dw      0
        dd      0
        align 16
world_a:
        times world_size db 0
        align 16
world_b:
        times world_size db 0
        align 16
fx_scratch:
        times 512 db 0

text_good:
        db      "undisturbed", 13, 10, 0
text_disturbed:
        db      "DISTURBED", 13, 10, 0
