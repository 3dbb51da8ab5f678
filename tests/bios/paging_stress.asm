; A guest that changes its page tables at random and uses them from both privilege levels, and prints a checksum of all that
; it saw: values, faults with error code and address, accessed and dirty bits. The same on any machine and under any VMM.
;
; Sixteen pages from WINDOW are mapped by a table of their own to eight frames, with random rights, in two page directories;
; a page is changed with INVLPG or, from not present to present, without.

%include "x86.inc"
%include "ports.inc"
%include "flash.inc"
%include "vm_abi.inc"
%include "image.inc"
%include "console.inc"
%include "acpi_off.inc"

DIRECTORY       equ 20000h              ; two, each followed by its table
TABLE           equ 21000h
WORLD           equ 2000h               ; from one directory to the other
WINDOW          equ 40000000h
FRAMES          equ 300000h
PAGE_US         equ 4
PAGE_AD         equ 60h
ROUNDS          equ 20000
SELECTOR_USER_CODE equ 18h | 3
SELECTOR_USER_DATA equ 20h | 3
SELECTOR_TSS    equ 28h
USER_STACK      equ 30000h

main:
        mov     ebx, DIRECTORY
        call    world
        mov     ebx, DIRECTORY + WORLD
        call    world
        mov     eax, cr4
        or      eax, CR4_PSE
        mov     cr4, eax
        mov     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr0
        or      eax, CR0_PG | CR0_WP
        mov     cr0, eax
        mov     dword [tss + 4], IMAGE_STACK - 800h     ; ESP0, below what main uses
        mov     dword [tss + 8], SELECTOR_DATA32        ; SS0
        lgdt    [gdt_pointer]
        mov     eax, SELECTOR_TSS
        ltr     ax
        lidt    [idt_pointer]
        mov     dword [seed], 12345
        mov     dword [rounds], ROUNDS
.round:
        call    random
        and     eax, 7
        call    [actions + eax * 4]
        dec     dword [rounds]
        jnz     .round
        mov     esi, text
        call    console_text
        mov     eax, [sum]
        call    console_hex
        call    console_newline
        mov     eax, [faults]
        call    console_hex
        call    console_newline
        mov     eax, SELECTOR_DATA32            ; IRET to user mode took it away
        mov     es, eax
        jmp     acpi_power_off

; Makes a page directory: everything to itself for the supervisor, the image and the stack for the user too.
; In:       EBX = where
world:
        mov     edi, ebx
        mov     eax, PAGE_P | PAGE_RW | PAGE_PS | PAGE_US
        mov     ecx, 1024
.entry: stosd
        add     eax, 400000h
        loop    .entry
        lea     eax, [ebx + 1000h + (PAGE_P | PAGE_RW | PAGE_US)]
        mov     [ebx + (WINDOW >> 22) * 4], eax
        lea     edi, [ebx + 1000h]
        xor     eax, eax
        mov     ecx, 1024
        rep stosd
        ret

; Out:      EAX
random:
        mov     eax, [seed]
        imul    eax, eax, 1664525
        add     eax, 1013904223
        mov     [seed], eax
        shr     eax, 8
        ret

; Takes EAX into the checksum.
take:
        rol     dword [sum], 5
        xor     [sum], eax
        ret

; Out:      EBX = a linear address of the window, EDI = its entry in the current world
; Clobbers: EAX
somewhere:
        call    random
        and     eax, 0FFFCh
        lea     ebx, [eax + WINDOW]
        shr     eax, 12
        lea     edi, [TABLE + eax * 4]
        add     edi, [world_now]
        ret

        align 4
actions:
        dd      change, read, write, read_user, write_user, protect, other_world, large

change:
        call    somewhere
        mov     eax, [edi]
        and     eax, PAGE_AD | PAGE_P
        call    take
        call    random
        mov     edx, eax
        shr     edx, 3
        and     edx, 7000h                      ; one of eight frames
        and     eax, PAGE_P | PAGE_RW | PAGE_US
        lea     edx, [edx + eax + FRAMES]
        mov     eax, [edi]
        mov     [edi], edx
        test    al, PAGE_P
        jz      .end                            ; nothing can be cached of it
        invlpg  [ebx]
.end:   ret
read:
        call    somewhere
        mov     dword [resume], .end
        mov     eax, [ebx]
        call    take
.end:   ret
write:
        call    somewhere
        mov     dword [resume], .end
        mov     eax, [seed]
        mov     [ebx], eax
.end:   ret
read_user:
        mov     dword [user_entry], user_read
        jmp     go_user
write_user:
        mov     dword [user_entry], user_write
go_user:
        call    somewhere
        mov     [kernel_stack], esp
        mov     dword [resume], back            ; a fault in user mode comes back here
        push    SELECTOR_USER_DATA
        push    USER_STACK
        pushfd
        push    SELECTOR_USER_CODE
        push    dword [user_entry]
        mov     eax, SELECTOR_USER_DATA
        mov     ds, eax
        mov     eax, [seed]
        iretd
user_read:
        mov     eax, [ebx]
        int     80h
user_write:
        mov     [ebx], eax
        int     80h
called:                                         ; from user mode: EAX = what it read
        mov     edx, SELECTOR_DATA32
        mov     ds, edx
        call    take
back:
        mov     edx, SELECTOR_DATA32
        mov     ds, edx
        mov     esp, [kernel_stack]
        ret

protect:                                        ; another CR0.WP
        mov     eax, cr0
        xor     eax, CR0_WP
        mov     cr0, eax
        ret
other_world:
        xor     dword [world_now], WORLD
        mov     eax, [world_now]
        add     eax, DIRECTORY
        mov     cr3, eax
        mov     eax, cr3
        jmp     take
large:                                          ; a 4 MiB page for the supervisor in place of the table, and back
        mov     edi, [world_now]
        add     edi, DIRECTORY + (WINDOW >> 22) * 4
        push    dword [edi]
        mov     dword [edi], PAGE_P | PAGE_PS | PAGE_RW
        invlpg  [WINDOW]
        mov     eax, [WINDOW + FRAMES]
        call    take
        mov     [WINDOW + FRAMES + 4], eax
        mov     eax, [edi]
        call    take
        pop     dword [edi]
        mov     ecx, 16                         ; INVLPG of one page need not forget the others
        mov     edx, WINDOW
.page:  invlpg  [edx]
        add     edx, 1000h
        loop    .page
        invlpg  [WINDOW + FRAMES]
        ret

fault:
        mov     edx, SELECTOR_DATA32
        mov     ds, edx
        inc     dword [faults]
        pop     eax                             ; error code
        call    take
        mov     eax, cr2
        call    take
        mov     eax, [resume]
        mov     edx, [esp + 4]
        test    dl, 3
        jnz     back                            ; from user mode
        mov     [esp], eax
        iretd

%macro gate 2
        dw      %1 - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), SELECTOR_CODE32, %2, IMAGE_BASE >> 16
%endmacro
        align 8
idt:    times 14 dq 0
        gate    fault, INTERRUPT_GATE
        times 80h - 15 dq 0
        gate    called, INTERRUPT_GATE | 6000h
idt_pointer:
        dw      81h * 8 - 1
        dd      idt
        align 8
gdt:
        dq      0
        dq      DESCRIPTOR_CODE32
        dq      DESCRIPTOR_DATA32
        dq      DESCRIPTOR_CODE32 | 3 << 45
        dq      DESCRIPTOR_DATA32 | 3 << 45
        dw      103, tss - IMAGE_BASE + (IMAGE_BASE & 0FFFFh), 8900h | IMAGE_BASE >> 16, 0
gdt_pointer:
        dw      gdt_pointer - gdt - 1
        dd      gdt
        align 4
tss:    times 104 db 0
seed:           dd 0
sum:            dd 0
faults:         dd 0
rounds:         dd 0
world_now:      dd 0
resume:         dd 0
user_entry:     dd 0
kernel_stack:   dd 0
text:           db "stress    ", 0
